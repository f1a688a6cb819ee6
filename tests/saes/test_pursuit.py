"""Gradient pursuit: exact over orthonormal dictionaries, never worse, never a NaN."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from interp.saes.pursuit import pursue


def rebuilt(codes, dictionary, bias):
    atoms = dictionary[codes.atom]
    return torch.einsum("ns,nsd->nd", codes.value, atoms) + bias


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_orthonormal_dictionary_gives_the_largest_positive_coefficients():
    dictionary = torch.linalg.qr(gaussian(16, 16)).Q
    bias, x = gaussian(16, seed=1), gaussian(300, 16, seed=2)
    steps = torch.arange(300) % 9
    codes = pursue(x, dictionary, bias, steps)
    coefficients = ((x - bias) @ dictionary.T).clamp_min(0)
    for row, count in enumerate(steps.tolist()):
        kept = torch.zeros(16, dtype=torch.float64)
        best = coefficients[row].topk(count).indices
        kept[best] = coefficients[row, best]
        own = torch.zeros(16, dtype=torch.float64)
        own.index_add_(0, codes.atom[row], codes.value[row])
        torch.testing.assert_close(own, kept, rtol=0, atol=1e-12)


def test_the_residual_is_what_the_codes_leave():
    dictionary, bias, x = gaussian(40, 12), gaussian(12, seed=1), gaussian(700, 12, seed=2)
    codes = pursue(x, dictionary, bias, torch.full((700,), 6))
    assert (codes.value >= 0).all()
    torch.testing.assert_close(codes.residual, x - rebuilt(codes, dictionary, bias))


def test_close_to_nnls_on_the_same_atoms():
    """One gradient step an atom gives most of what the exact solution would (here .948 of it)."""
    dictionary, x = gaussian(30, 10), gaussian(200, 10, seed=2)
    codes = pursue(x, dictionary, torch.zeros(10), torch.full((200,), 5))
    own = codes.residual.square().sum(1)
    exact = torch.tensor(
        [
            nnls(dictionary[i].numpy().T, y.numpy())[1] ** 2
            for i, y in zip(codes.atom, x, strict=True)
        ]
    )
    assert (exact <= own + 1e-9).all()
    gained = x.square().sum() - own.sum()
    assert gained > 0.9 * (x.square().sum() - exact.sum())


@settings(max_examples=25, deadline=None)
@given(
    atoms=st.integers(1, 16),
    d=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    double=st.booleans(),
    repeated=st.booleans(),
)
@example(atoms=16, d=12, seed=1, double=True, repeated=False)
@example(atoms=16, d=4, seed=2, double=False, repeated=False)
@example(atoms=9, d=3, seed=3, double=False, repeated=True)
def test_never_worse_and_never_a_nan(atoms, d, seed, double, repeated):
    dtype = torch.float64 if double else torch.float32
    dictionary = gaussian(atoms, d, seed=seed, dtype=dtype)
    if repeated:
        dictionary = dictionary[:1].repeat(atoms, 1)
    x = gaussian(20, d, seed=seed + 1, dtype=dtype)
    x[0] = 0
    x[1] = 3 * dictionary[0]  # an exact fit after one step
    errors = [x.square().sum(1)]
    for steps in range(atoms + 1):
        codes = pursue(x, dictionary, torch.zeros(d, dtype=dtype), torch.full((20,), steps))
        assert codes.value.isfinite().all()
        assert codes.residual.isfinite().all()
        assert (codes.value >= 0).all()
        errors.append(codes.residual.square().sum(1))
        assert (errors[-1] <= errors[-2]).all()


@pytest.mark.parametrize("fault", ["steps", "nan"])
def test_what_cannot_be_pursued_is_refused(fault):
    dictionary, x = gaussian(4, 3), gaussian(5, 3)
    if fault == "nan":
        x[2, 1] = torch.nan
    steps = torch.full((5,), 5 if fault == "steps" else 2)
    with pytest.raises(
        ValueError, match="more than the dictionary's 4" if fault == "steps" else "NaN"
    ):
        pursue(x, dictionary, torch.zeros(3), steps)


def test_nothing_to_pursue():
    codes = pursue(
        torch.zeros(0, 3), torch.eye(3), torch.zeros(3), torch.zeros(0, dtype=torch.long)
    )
    assert codes.residual.shape == (0, 3)
