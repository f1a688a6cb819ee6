"""FVU and detections against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.probes import detections, fvu
from interp.probes.metrics import claims


def test_fvu_of_known_cases() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) + 7
    assert fvu(x, x) == 0
    assert fvu(x, x.mean(0).expand_as(x)) == pytest.approx(1)
    half = x.mean(0) + (x - x.mean(0)) / 2
    assert fvu(x, half) == pytest.approx(0.25, rel=1e-5)


def test_fvu_is_not_what_the_field_got_wrong() -> None:
    """Not the variance about zero, not a mean of ratios; moving or scaling both changes nothing."""
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(1)).double()
    x_hat = x + 0.1 * torch.randn(400, 5, generator=torch.Generator().manual_seed(2))
    assert fvu(3 * x + 50, 3 * x_hat + 50) == pytest.approx(fvu(x, x_hat), rel=1e-9)
    assert fvu(torch.cat([x, x]), torch.cat([x_hat, x_hat])) == pytest.approx(fvu(x, x_hat))
    naive = ((x - x_hat).norm(dim=1) ** 2).sum() / ((x - x.mean(0)).norm(dim=1) ** 2).sum()
    assert fvu(x, x_hat) == pytest.approx(float(naive), rel=1e-12)


def test_fvu_refuses_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="do not match"):
        fvu(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="all the same"):
        fvu(torch.ones(3, 2), torch.zeros(3, 2))


def sample(seed, n=80, f=6, labels=5):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, f)).astype(np.float32)
    features[:, 0] = 0  # a dead one
    features[:, 1] = np.round(features[:, 1])  # many ties, at thresholds too
    features[rng.random((n, f)) < 0.5] = 0
    return features, rng.random((n, labels)) < rng.random(labels)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_detections_by_definition(seed) -> None:
    features, labels = sample(seed)
    found = detections(features, labels)
    for j in range(features.shape[1]):
        for t, threshold in enumerate(found.thresholds[j]):
            above = features[:, j] > threshold
            assert found.active[j, t] == above.sum()
            both = (above[:, None] & labels).sum(0)
            assert (found.both[j, t] == both).all()
            for k in range(labels.shape[1]):
                fp, fn = (above & ~labels[:, k]).sum(), (~above & labels[:, k]).sum()
                f1 = 2 * both[k] / (2 * both[k] + fp + fn) if both[k] + fp + fn else 0
                assert found.f1[j, t, k] == pytest.approx(f1)
                precision = both[k] / above.sum() if above.any() else 0
                assert found.precision[j, t, k] == pytest.approx(precision)


def test_detections_at_given_thresholds() -> None:
    features, labels = sample(0)
    thresholds = np.tile(np.array([-0.5, 0.2], np.float32), (features.shape[1], 1))
    found = detections(features, labels, thresholds)
    assert (found.active == (features[:, :, None] > thresholds).sum(0)).all()
    with pytest.raises(ValueError, match="80 samples with features, 79 with labels"):
        detections(features, labels[1:])
    features[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or an infinity"):
        detections(features, labels)


def test_claims_by_definition() -> None:
    features, _ = sample(1)
    rng = np.random.default_rng(2)
    thresholds = np.where(rng.random((6, 9)) < 0.3, rng.normal(size=(6, 9)), np.inf)
    expected = (features[:, :, None] > thresholds.astype(np.float32)).any(1)
    assert expected.any()
    assert (claims(features, thresholds) == expected).all()


@pytest.mark.parametrize("wrong", [2, 257, -1])
def test_labels_of_several_classes_are_refused(wrong):
    with pytest.raises(ValueError, match="labels must be yes or no"):
        detections(np.ones((3, 2)), np.array([[0], [1], [wrong]]))
