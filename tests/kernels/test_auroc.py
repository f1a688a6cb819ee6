"""All AUROCs in one product against scikit-learn's, one at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from interp.kernels import rank_auroc


def naive(features, labels):
    return torch.tensor(
        [
            [
                roc_auc_score(y, x) if 0 < y.sum() < len(y) else float("nan")
                for y in labels.numpy().T
            ]
            for x in features.numpy().T
        ],
        dtype=torch.float64,
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 60),
    f=st.integers(1, 3),
    count=st.integers(1, 2),
    levels=st.integers(1, 6),
    sparsity=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_equals_scikit_learn(n, f, count, levels, sparsity, seed):
    """Few levels make ties, of negative values and zeros too."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randint(-levels, levels + 1, (n, f), generator=generator).float()
    features *= torch.rand(n, f, generator=generator) > sparsity
    labels = torch.rand(n, count, generator=generator) > 0.5
    got = rank_auroc(features, labels)
    torch.testing.assert_close(got, naive(features, labels), atol=1e-12, rtol=0, equal_nan=True)


def test_sparse_latents_over_several_chunks():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3000, 70, generator=generator).relu()
    features *= torch.rand(3000, 70, generator=generator) < 0.1
    labels = torch.rand(3000, 3, generator=generator) < torch.linspace(0.01, 0.9, 3)
    got = rank_auroc(features, labels)
    torch.testing.assert_close(got, naive(features, labels), atol=1e-12, rtol=0)


def test_perfect_reversed_and_constant_features():
    labels = torch.tensor([[0], [0], [1], [1]], dtype=torch.bool)
    features = torch.tensor([[0.0, 3, 5], [1, 2, 5], [2, 1, 5], [3, 0, 5]])
    assert rank_auroc(features, labels)[:, 0].tolist() == [1.0, 0.0, 0.5]


def test_a_label_without_positives_or_negatives_is_nan():
    labels = torch.tensor([[1, 0, 1], [1, 0, 0]], dtype=torch.bool)
    got = rank_auroc(torch.tensor([[1.0], [0.0]]), labels)
    assert np.isnan(got[0, :2]).all()
    assert got[0, 2] == 1.0


def test_rank_sums_beyond_float32_are_exact():
    n = 200_000
    features = torch.arange(n, dtype=torch.float32)[:, None]
    labels = (torch.arange(n) % 2 == 1)[:, None]
    half = n // 2
    want = (half * (half + 1) / 2) / half**2
    assert float(rank_auroc(features, labels)) == want


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"expected features \[n, f\]"):
        rank_auroc(torch.ones(3, 2), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="no samples"):
        rank_auroc(torch.ones(0, 2), torch.ones(0, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="NaN or an infinity"):
        rank_auroc(torch.full((3, 2), float("nan")), torch.ones(3, 2, dtype=torch.bool))


def test_float64_is_ranked_as_it_is():
    close = 1 + torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64) * 1e-9
    labels = torch.tensor([[False], [True], [False], [True]])
    assert float(rank_auroc(close, labels)) == 0.75
    assert float(rank_auroc(close.float(), labels)) == 0.5, "all the same in float32"


@pytest.mark.parametrize("wrong", [2.0, 0.5, float("nan")])
def test_labels_of_several_classes_are_refused(wrong: float) -> None:
    labels = torch.tensor([[0.0], [1.0], [wrong]])
    with pytest.raises(ValueError, match="labels must be yes or no"):
        rank_auroc(torch.rand(3, 2), labels)
