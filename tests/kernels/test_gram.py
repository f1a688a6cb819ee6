"""Least squares from sums against numpy's on the samples themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.kernels import Gram


def data(n, dx, dy, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dx, dx, generator=generator, dtype=torch.float64)
    x = torch.randn(n, dx, generator=generator, dtype=torch.float64) @ mix + 3.0
    y = x @ torch.randn(dx, dy, generator=generator, dtype=torch.float64) + 5.0
    return x, y + torch.randn(n, dy, generator=generator, dtype=torch.float64)


def in_parts(x, y, size):
    parts = [Gram.of(a, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(30, 90),
    dx=st.integers(1, 8),
    dy=st.integers(1, 4),
    size=st.integers(1, 90),
    intercept=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_least_squares_on_the_samples(n, dx, dy, size, intercept, seed):
    x, y = data(n, dx, dy, seed)
    gram = in_parts(x, y, size)
    fit = gram.solve(intercept=intercept)
    design = torch.cat([x, torch.ones(n, 1, dtype=x.dtype)], 1) if intercept else x
    want = torch.linalg.lstsq(design, y, driver="gelsd").solution
    close(fit.weights, want[:dx], 1e-6)
    errors = y - fit(x)
    close(gram.squared_error(fit), errors.square().sum(0), 1e-6)
    close(gram.r2(fit), 1 - errors.square().sum(0) / (y - y.mean(0)).square().sum(0), 1e-6)


def test_a_fit_is_scored_on_other_samples_by_their_sums():
    x, y = data(400, 6, 3)
    train, test = Gram.of(x[:250], y[:250]), in_parts(x[250:], y[250:], 40)
    fit = train.solve()
    errors = (y[250:] - fit(x[250:])).square().sum(0)
    close(test.squared_error(fit), errors)
    spread = (y[250:] - y[250:].mean(0)).square().sum(0)
    close(test.r2(fit), 1 - errors / spread)
    assert test.fvu(fit) == pytest.approx(float(errors.sum() / spread.sum()))


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    x, y = data(200, 5, 2)
    fit = Gram.of(x, y).solve(ridge=0.3)
    variance = float(x.numpy().var(0).mean())
    twin = Ridge(alpha=0.3 * variance * 200).fit(x.numpy(), y.numpy())
    close(fit.weights, torch.from_numpy(np.ascontiguousarray(twin.coef_.T)))
    close(fit.intercept, torch.from_numpy(twin.intercept_))


@pytest.mark.parametrize("intercept", [True, False])
def test_a_ridge_is_in_variances_of_x(intercept):
    """In other units the same ridge gives the same predictions."""
    x, y = data(200, 5, 2)
    own, small = (Gram.of(s * x, y).solve(0.3, intercept) for s in (1.0, 1e-3))
    close(small(1e-3 * x), own(x), 1e-9)


def test_parts_in_any_order_give_the_same():
    x, y = data(300, 4, 2)
    whole = Gram.of(x, y)
    for size in (1, 7, 299):
        merged = in_parts(x, y, size)
        for name in ("x_mean", "y_mean", "xx", "xy", "yy"):
            close(getattr(merged, name), getattr(whole, name), 1e-9)


@pytest.mark.parametrize("case", ["duplicate input", "constant input", "few samples"])
def test_singular_moments_give_the_least_norm_and_say_so(case):
    x, y = data(6 if case == "few samples" else 100, 9, 2)
    if case == "duplicate input":
        x[:, 1] = x[:, 0]
    if case == "constant input":
        x[:, 1] = 4.0
    gram = Gram.of(x, y)
    fit = gram.solve()
    assert fit.method == "least norm"
    centred = [v - v.mean(0) for v in (x, y)]
    want = torch.linalg.lstsq(*centred, rcond=1e-9, driver="gelsd").solution
    close(fit.weights, want, 1e-6)
    assert gram.solve(ridge=1e-3).method == "cholesky"


def test_inputs_of_very_different_length_are_not_singular():
    x, y = data(200, 3, 1)
    scaled = x * torch.tensor([1e-6, 1.0, 1e6])
    fit = Gram.of(scaled, y).solve()
    assert fit.method == "cholesky"
    close(fit(scaled), Gram.of(x, y).solve()(x), 1e-7)


def test_an_output_that_does_not_vary_has_no_r2():
    x, y = data(50, 2, 2)
    y[:, 1] = 7.0
    gram = Gram.of(x, y)
    r2 = gram.r2(gram.solve())
    assert torch.isnan(r2[1])
    assert 0 < r2[0] <= 1


def test_wrong_arguments_are_named():
    x, y = data(10, 2, 1)
    with pytest.raises(ValueError, match=r"expected x \[n, dx\]"):
        Gram.of(x, y[:5])
    with pytest.raises(ValueError, match=r"n > 0"):
        Gram.of(x[:0], y[:0])
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or an infinity"):
        Gram.of(x, y)
    with pytest.raises(ValueError, match="must not be negative"):
        Gram.of(*data(10, 2, 1)).solve(-1.0)
