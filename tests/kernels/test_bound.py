"""Hunts for a logit that is off by more than the bound that proves ids, in every arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, target
from hypothesis import strategies as st

from interp.kernels.bfloat16 import BFLOAT16
from interp.kernels.blocks import INNER, product
from interp.kernels.data import gaussian
from interp.kernels.exact import exact_dot
from interp.kernels.integers import INT8, INT16, MOST, ROOT
from interp.kernels.results import Results
from interp.kernels.rounding import Format, float32_error
from interp.kernels.scaling import scaled

from .paths import FORMATS, every_format, every_path

SHAPES = (
    *("gaussian", "positive", "spread", "worst", "tiny", "sparse", "spike", "alike", "against"),
    "halves",
)


def operands(shape: str, d: int, seed: int, numbers: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """16 vectors and 64 rows of a read-out, each kind bad for a bound in its own way."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, d, generator=generator)
    w = torch.randn(64, d, generator=generator)
    match shape:
        case "positive":
            x, w = x.abs(), w.abs()
        case "spread":
            x, w = x * torch.logspace(-6, 6, d), w * torch.logspace(6, -6, d)
        case "worst":
            # just under bfloat16's midpoint, all errors of one sign
            x, w = torch.full_like(x, 1.0 + 2.0**-8 - 2.0**-20), torch.full_like(w, 1.0 + 2.0**-8)
            x[:, ::2] *= -1
            w[:, ::2] *= -1
        case "halves":  # int8's numbers and nearly half a step, all errors of one sign
            x, w = ((100 * a.clamp(-1, 1)).trunc() + 0.499 * a.sign() for a in (x, w))
            x[:, 0] = w[:, 0] = 127.0
        case "tiny":
            w = w * 2.0**-90
        case "sparse":
            x, w = x * (x > 1), w * (w > 1)
        case "spike":  # one number holds the row's length, and the sum's
            x[:, 0] = w[:, 0] = 1e4
        case "alike":  # as long a sum as there is
            x = x[:1].expand(16, d).clone()
            w = x[:1].expand(64, d).clone()
        case "against":  # along what rounding takes from the vectors
            rounded = numbers.round(x, torch.zeros(d), 16)
            w = (x - rounded.scales[:, None] * rounded.values[:, :d].float()).repeat(4, 1)
    return x, w


def screened(numbers: Format, x: torch.Tensor, w: torch.Tensor, shift: torch.Tensor) -> tuple:
    """Screened logits [16, 64] in float64, and the rounded operands."""
    xr = numbers.round(x, torch.zeros(x.shape[1]), 16)
    wr = numbers.round(w, shift, 64)
    if numbers is BFLOAT16:
        return torch.mm(xr.values, wr.values.T).double(), xr, wr
    whole = xr.values.numpy().astype(np.int64) @ wr.values.numpy().astype(np.int64).T
    out = torch.empty(16, 64, dtype=torch.int32)
    numbers.multiply(xr, numbers.right(wr, 1)[0], (out, out.numpy()))
    np.testing.assert_array_equal(out.numpy(), whole, "a sum left int32")
    return (xr.scales[:, None] * (wr.scales * out.float())).double(), xr, wr


def share_of_screens_bound(
    numbers: Format, x: torch.Tensor, w: torch.Tensor, shift: torch.Tensor
) -> float:
    """Largest error of a screened logit over what is allowed."""
    found, xr, wr = screened(numbers, x, w, shift)
    exact = x.double() @ (w.double() - shift.double()).T
    error = numbers.error(xr, wr.lengths.max(), wr.losses.max())
    return largest(found - exact, numbers.unit * found.abs() + torch.from_numpy(error)[:, None])


def share_of_float32s_bounds(x: torch.Tensor, w: torch.Tensor) -> tuple[float, float]:
    """The same of logits in float32, and of the exact ones, which float64 rounds."""
    lengths, longest = (a.double().norm(dim=1).numpy() for a in (x, w))
    bound = float32_error(lengths, longest.max(), x.shape[1])
    found = product(x, w.T, torch.empty(16, 64)).double()
    single = largest(found - x.double() @ w.double().T, torch.from_numpy(bound)[:, None])
    doubles = x.double().numpy()
    long = doubles.astype(np.longdouble) @ w.numpy().astype(np.longdouble).T
    off = [[exact_dot(x, w.numpy(), i) for i in range(len(w))] for x in doubles] - long
    tail = Results(scaled(x, w), 1, ("top",))._double(bound)
    return single, largest(torch.from_numpy(off.astype(float)), torch.from_numpy(tail)[:, None])


def largest(errors: torch.Tensor, allowed: torch.Tensor) -> float:
    """Over what is allowed; errors where nothing is are infinite."""
    return float(torch.where(errors == 0, 0.0, errors.abs() / allowed).max())


hunt = given(
    d=st.integers(1, 1500) | st.sampled_from((1, 7, 63, 65, INNER, INNER + 1)),
    seed=st.integers(0, 10**6),
    shape=st.sampled_from(SHAPES),
    log_scale=st.integers(-44, 15),
    shifted=st.booleans(),
)


def search(impl: str, d: int, seed: int, shape: str, log_scale: int, shifted: bool) -> None:
    """Towards the largest share of the bound, which nothing may be beyond."""
    numbers = FORMATS.get(impl, INT8)
    x, w = operands(shape, d, seed, numbers)
    x = x * 2.0**log_scale
    if impl == "tiled":
        share = max(share_of_float32s_bounds(x, w))
    else:
        shift = w.mean(0) if shifted else torch.zeros(d)
        share = share_of_screens_bound(numbers, x, w, shift)
    target(share)
    assert share <= 1


test_no_logit_breaks_its_bound = every_path(settings(max_examples=100, deadline=None)(hunt(search)))
test_nor_in_a_long_hunt = pytest.mark.slow(
    every_path(settings(max_examples=10_000, deadline=None)(hunt(search)))
)


@every_format
def test_the_bound_is_not_idle(impl: str) -> None:
    """Without the measured losses it does break; and what is allowed is within a factor of what a
    row can lose."""
    numbers, (x, w) = FORMATS[impl], gaussian(64, 512, 8)
    found, xr, wr = screened(numbers, x[:16], w[:64], torch.zeros(8))
    exact = x[:16].double() @ w[:64].double().T
    lossless = numbers.error(xr._replace(losses=0 * xr.losses), wr.lengths.max(), 0.0)
    allowed = torch.from_numpy(lossless)[:, None] + numbers.unit * found.abs()
    assert ((found - exact).abs() > allowed).any()
    whole = torch.from_numpy(numbers.error(xr, wr.lengths.max(), wr.losses.max()))
    off = (found - exact).abs().amax(1)
    assert (whole < 20 * off + numbers.unit * found.abs().amax(1)).any()


def test_bfloat16_needs_its_unit() -> None:
    x, w = (BFLOAT16.round(a, torch.zeros(8), 16) for a in gaussian(64, 512, 8))
    rounded, found = x.values.double() @ w.values.double().T, torch.mm(x.values, w.values.T)
    assert ((found - rounded).abs() > BFLOAT16.unit / 2 * found.abs()).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("d", [2, 7, 576, 4096])
def test_whole_numbers_are_as_long_as_int32_allows(shape: str, d: int) -> None:
    for matrix in operands(shape, d, d, INT16):
        values = INT16.round(matrix, torch.zeros(d), 16).values.double()
        lengths = values.norm(dim=1)
        assert lengths.max() <= ROOT
        some = matrix.any(1)
        room = torch.minimum(ROOT / lengths, MOST / values.abs().amax(1))[: len(matrix)][some]
        # shorter by half a step a number, which may all add up, and by a thousandth
        assert (room <= 1.002 + d**0.5 / ROOT).all(), "steps are larger than they need to be"
