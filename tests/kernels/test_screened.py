"""The screened projection: exact whatever the data, and within the bound that proves it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.kernels import project_topk, screened
from interp.kernels.accuracy import statistic_errors
from interp.kernels.bfloat16 import BFLOAT16
from interp.kernels.data import KINDS, anisotropic, gaussian, near_ties
from interp.kernels.integers import INT8, INT16, MOST, ROOT
from interp.kernels.reference import exact_ids
from interp.kernels.rounding import Format
from interp.kernels.scaling import scaled

FORMATS = {numbers.name: numbers for numbers in screened.FORMATS if numbers.sound()}
"""Those that torch computes well enough here; whether the processor is made for them or not."""
every_format = pytest.mark.parametrize("impl", FORMATS)


def check_ids(x: torch.Tensor, w: torch.Tensor, k: int, impl: str) -> float:
    """Both sides' ids against float64; the certified share."""
    got, want = project_topk(x, w, k, stats=False, impl=impl), exact_ids(x, w, k)
    assert got.impl == impl
    assert torch.equal(got.top.ids, want["top"])
    assert torch.equal(got.bottom.ids, want["bottom"])
    logits = x.double() @ w.double().T
    # correctly rounded, but for the last place of the float64 sums
    for side in (got.top, got.bottom):
        torch.testing.assert_close(
            side.logits, logits.gather(1, side.ids).float(), rtol=1.2e-7, atol=1e-12
        )
    return got.certified


@every_format
@pytest.mark.parametrize("k", [1, 16, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_float64(kind: str, k: int, impl: str) -> None:
    share = check_ids(*KINDS[kind](48, 3000, 128, 0), k, impl)
    if kind in ("gaussian", "anisotropic", "zeros", "near-ties"):
        assert share > 0.95, "not a proof but a search"
    if kind == "duplicated" and k < 64:
        assert share < 0.9, "64 tie at the end of the top k: it should defeat the screen"


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    n=st.integers(1, 40),
    vocabulary=st.integers(1, 2100),
    d=st.integers(1, 200),
    k=st.integers(1, 512),
    seed=st.integers(0, 10**6),
    log_scale=st.integers(-30, 30),
    impl=st.sampled_from(sorted(FORMATS)),
)
def test_odd_shapes_and_scales(
    kind: str, n: int, vocabulary: int, d: int, k: int, seed: int, log_scale: int, impl: str
) -> None:
    x, w = KINDS[kind](n, vocabulary, d, seed)
    check_ids(x * 10.0**log_scale, w, min(k, vocabulary), impl)


def operands(shape: str, d: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """16 vectors and 64 rows of a read-out, each kind bad for a bound in its own way."""
    x = torch.randn(16, d, generator=generator)
    w = torch.randn(64, d, generator=generator)
    if shape == "positive":
        return x.abs(), w.abs()
    if shape == "spread":
        return x * torch.logspace(-6, 6, d), w * torch.logspace(6, -6, d)
    if shape == "worst":
        # just under bfloat16's midpoint, all errors of one sign
        x, w = torch.full_like(x, 1.0 + 2.0**-8 - 2.0**-20), torch.full_like(w, 1.0 + 2.0**-8)
        x[:, ::2] *= -1
        w[:, ::2] *= -1
        return x, w
    if shape == "tiny":
        return x, w * 2.0**-90
    if shape == "sparse":
        return x * (x > 1), w * (w > 1)
    if shape == "spike":  # one number holds the row's length, and the sum's
        x[:, 0], w[:, 0] = 1e4, 1e4
    if shape == "alike":  # as long a sum as there is
        return x[:1].expand(16, d).clone(), x[:1].expand(64, d).clone()
    return x, w


SHAPES = ["gaussian", "positive", "spread", "worst", "tiny", "sparse", "spike", "alike"]


def products(numbers: Format, x: torch.Tensor, w: torch.Tensor, shift: torch.Tensor) -> tuple:
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


@settings(max_examples=300, deadline=None)
@given(
    d=st.integers(1, 1500),
    seed=st.integers(0, 10**6),
    shape=st.sampled_from(SHAPES),
    log_scale=st.integers(-44, 15),
    shifted=st.booleans(),
    impl=st.sampled_from(sorted(FORMATS)),
)
def test_no_screened_logit_breaks_the_bound(
    d: int, seed: int, shape: str, log_scale: int, shifted: bool, impl: str
) -> None:
    """Hunts for |s - s_hat| > E."""
    numbers = FORMATS[impl]
    x, w = operands(shape, d, torch.Generator().manual_seed(seed))
    x = x * 2.0**log_scale
    shift = w.mean(0) if shifted else torch.zeros(d)
    found, xr, wr = products(numbers, x, w, shift)
    exact = x.double() @ (w.double() - shift.double()).T
    error = numbers.error(xr, wr.lengths.max(), wr.losses.max())
    excess = (found - exact).abs() - numbers.unit * found.abs() - torch.from_numpy(error)[:, None]
    assert excess.max() <= 0


@every_format
def test_the_bound_is_not_idle(impl: str) -> None:
    """Without the measured losses it does break; and what is allowed is within a factor of what a
    row can lose."""
    numbers, (x, w) = FORMATS[impl], gaussian(64, 512, 8)
    found, xr, wr = products(numbers, x[:16], w[:64], torch.zeros(8))
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
    for matrix in operands(shape, d, torch.Generator().manual_seed(d)):
        values = INT16.round(matrix, torch.zeros(d), 16).values.double()
        lengths = values.norm(dim=1)
        assert lengths.max() <= ROOT
        some = matrix.any(1)
        room = torch.minimum(ROOT / lengths, MOST / values.abs().amax(1))[: len(matrix)][some]
        # shorter by half a step a number, which may all add up, and by a thousandth
        assert (room <= 1.002 + d**0.5 / ROOT).all(), "steps are larger than they need to be"


def test_rounding_is_torchs() -> None:
    x = torch.randn(100, 77) * torch.logspace(-30, 30, 77)
    found = BFLOAT16.round(x, torch.zeros(77), 32)
    assert torch.equal(found.values[:100, :77], x.bfloat16())
    assert len(found.values) == 128
    assert not found.values[100:].any()
    assert not found.values[:, 77:].any()


@every_format
def test_what_rounding_loses_is_measured(impl: str) -> None:
    y, shift = torch.randn(50, 64), torch.randn(64)
    found = FORMATS[impl].round(y, shift, 1)
    rounded = found.scales[:, None].double() * found.values.double()
    lost = (y.double() - shift.double() - rounded).norm(dim=1).numpy()
    lengths = rounded.norm(dim=1).numpy()
    for got, want in ((found.losses, lost), (found.lengths, lengths)):
        assert (got >= want).all()
        np.testing.assert_allclose(got, want, rtol=2e-3 if impl == "screened" else 2e-2)
    assert abs(lost / lengths / (FORMATS[impl].loss(64) / 2) - 1).max() < 0.5


@every_format
def test_rounded_rows_are_put_in_strided_slabs(impl: str) -> None:
    x = torch.randn(1003, 8)
    plain, strided = (FORMATS[impl].round(x, torch.zeros(8), 128, step) for step in (1, 8))
    places = torch.arange(1003) % 8 * 128 + torch.arange(1003) // 8
    assert torch.equal(strided.values[places], plain.values[:1003])
    padding = torch.ones(1024, dtype=torch.bool).scatter(0, places, False)
    assert not strided.values[padding].any()
    for got in (strided, plain):
        np.testing.assert_allclose(got.mean, x.double().mean(0), rtol=1e-14, atol=1e-16)
    np.testing.assert_array_equal(strided.lengths, plain.lengths)
    np.testing.assert_array_equal(strided.scales[places], plain.scales[:1003])


@every_format
def test_centring_makes_near_ties_provable(impl: str) -> None:
    """A common part a million times the differences: uncentred, nothing could be told apart."""
    x, w = near_ties(64, 3000, 128)
    screen = screened.Screen(FORMATS[impl], scaled(x, w), False)
    torch.testing.assert_close(screen.shift, w.mean(0))
    np.testing.assert_allclose(screen.w.mean, w.double().mean(0), rtol=1e-12)


def test_what_bfloat16_holds_is_not_centred() -> None:
    x, w = (a.bfloat16().float() for a in anisotropic(64, 3000, 128))
    assert not screened.Screen(BFLOAT16, scaled(x, w), False).shift.any()


@pytest.mark.parametrize("make", [gaussian, anisotropic])
def test_statistics_are_far_closer_than_naive_bfloat16s(make) -> None:
    """And ids, logits and means no worse than naive float32's: the ml-cross-entropy rule."""
    x, w = make(96, 8192, 576, 3)
    rows = statistic_errors(x, w, 16, (*FORMATS, "tiled"))
    off = {(row["variant"], row["statistic"]): row["largest"] for row in rows}
    for impl, times in (("screened", 8), ("screened8", 2), ("screened16", 100)):
        if impl not in FORMATS:
            continue
        for statistic in ("logsumexp", "entropy", "max_prob", "var", "skewness", "kurtosis", "z"):
            assert off[impl, statistic] <= off["naive bfloat16", statistic] / times, statistic
        for statistic in ("logits", "mean"):
            assert off[impl, statistic] <= off["naive float32", statistic] * 1.05 + 1e-8


@every_format
def test_concentrated_softmax_and_large_logits(impl: str) -> None:
    x, w = gaussian(32, 4000, 96)
    x = torch.cat([x * 400, 30 * w[:8]])  # logits up to 1,500; rows that are one token
    got, want = (project_topk(x, w, 8, impl=each) for each in (impl, "naive"))
    for side in ("top", "bottom"):
        ours, plain = getattr(got, side), getattr(want, side)
        torch.testing.assert_close(ours.logsumexp, plain.logsumexp, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(ours.entropy, plain.entropy, rtol=0, atol=2e-2)
        torch.testing.assert_close(ours.max_prob, plain.max_prob, rtol=0, atol=5e-3)


@every_format
def test_deterministic_on_any_number_of_threads(impl: str) -> None:
    x, w = gaussian(700, 3100, 96)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(project_topk(x, w, 16, impl=impl))
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(results[0][:3], results[1][:3], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_auto_screens_where_it_pays_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def has(numbers: Format, answer: bool) -> None:
        monkeypatch.setattr(type(numbers), "supported", lambda self: answer)

    has(BFLOAT16, False)
    has(INT8, False)
    has(INT16, True)
    x, w = gaussian(1040, 8192, 256)
    assert project_topk(x, w, 4, stats=False).impl == "screened16"
    assert project_topk(x[:9], w, 4, stats=False).impl == "tiled"
    copies = w[:64].repeat(128, 1)
    found = project_topk(x, copies, 4, stats=False)
    assert found.impl == "tiled", "rows searched twice cost more than the screen saves"
    assert torch.equal(found.top.ids, exact_ids(x, copies, 4)["top"])
    has(INT16, False)
    assert project_topk(x, w, 4, stats=False).impl == "tiled"
    has(BFLOAT16, True)
    monkeypatch.setattr(type(BFLOAT16), "sound", lambda self: True)
    assert screened.best_format() is BFLOAT16
    has(BFLOAT16, False)
    has(INT8, True)
    for fast, best in ((True, INT8), (False, None)):
        monkeypatch.setattr(type(INT8), "fast", lambda self, fast=fast: fast)
        assert screened.best_format() is best


@every_format
def test_one_side_without_statistics(impl: str) -> None:
    x, w = gaussian(8, 500, 16)
    got = project_topk(x, w, 4, sides=("bottom",), stats=False, impl=impl)
    assert got.top is None
    assert got.moments is None
    assert torch.equal(got.bottom.ids, exact_ids(x, w, 4)["bottom"])
    assert project_topk(x[:0], w, 4, impl=impl).top.ids.shape == (0, 4)


@pytest.mark.parametrize("impl", [*FORMATS, "tiled"])
def test_wide_rows_are_proven(impl: str) -> None:
    """Llama 405B's width: sums of 16,384 terms, whose plain bound would leave no row proven."""
    x, w = gaussian(24, 2048, 16384)
    found = project_topk(x, w, 16, impl=impl, stats=False)
    assert torch.equal(found.top.ids, exact_ids(x, w, 16)["top"])
    assert found.certified > 0.9
