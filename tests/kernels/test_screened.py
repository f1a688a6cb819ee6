"""The screened projection: exact whatever the data, and within the bound that proves it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.kernels import project_topk, screened
from interp.kernels.accuracy import statistic_errors
from interp.kernels.data import KINDS, anisotropic, gaussian, near_ties
from interp.kernels.reference import exact_ids
from interp.kernels.rounding import UNIT, round_to_bfloat16, screening_error
from interp.kernels.scaling import scaled

pytestmark = pytest.mark.skipif(
    not screened.sound(), reason="torch's bfloat16 products are too coarse here"
)


def check_ids(x: torch.Tensor, w: torch.Tensor, k: int) -> float:
    """Both sides' ids against float64; the certified share."""
    got, want = project_topk(x, w, k, stats=False, impl="screened"), exact_ids(x, w, k)
    assert got.impl == "screened"
    assert torch.equal(got.top.ids, want["top"])
    assert torch.equal(got.bottom.ids, want["bottom"])
    logits = x.double() @ w.double().T
    # correctly rounded, but for the last place of the float64 sums
    for side in (got.top, got.bottom):
        torch.testing.assert_close(
            side.logits, logits.gather(1, side.ids).float(), rtol=1.2e-7, atol=1e-12
        )
    return got.certified


@pytest.mark.parametrize("k", [1, 16, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_float64(kind: str, k: int) -> None:
    share = check_ids(*KINDS[kind](48, 3000, 128, 0), k)
    if kind in ("gaussian", "anisotropic", "zeros", "near-ties"):
        assert share > 0.95, "not a proof but a search"
    if kind == "duplicated":
        assert share < 0.9, "whole groups tie at the end of the top k: it should defeat the screen"


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    n=st.integers(1, 40),
    vocabulary=st.integers(1, 2100),
    d=st.integers(1, 200),
    k=st.integers(1, 256),
    seed=st.integers(0, 10**6),
    log_scale=st.integers(-12, 6),
)
def test_odd_shapes_and_scales(
    kind: str, n: int, vocabulary: int, d: int, k: int, seed: int, log_scale: int
) -> None:
    x, w = KINDS[kind](n, vocabulary, d, seed)
    check_ids(x * 10.0**log_scale, w, min(k, vocabulary))


@settings(max_examples=150, deadline=None)
@given(
    d=st.integers(1, 1500),
    seed=st.integers(0, 10**6),
    shape=st.sampled_from(["gaussian", "positive", "spread", "worst", "tiny", "sparse"]),
    log_scale=st.integers(-44, 15),
    shifted=st.booleans(),
)
def test_no_screened_logit_breaks_the_bound(
    d: int, seed: int, shape: str, log_scale: int, shifted: bool
) -> None:
    """Hunts for |s - s_hat| > E; 'worst' are numbers half a unit off what bfloat16 can hold."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, d, generator=generator)
    w = torch.randn(64, d, generator=generator)
    if shape == "positive":
        x, w = x.abs(), w.abs()
    elif shape == "spread":
        x, w = x * torch.logspace(-6, 6, d), w * torch.logspace(6, -6, d)
    elif shape == "worst":
        # just under the midpoint, all errors of one sign
        x, w = torch.full_like(x, 1.0 + 2.0**-8 - 2.0**-20), torch.full_like(w, 1.0 + 2.0**-8)
        x[:, ::2] *= -1
        w[:, ::2] *= -1
    elif shape == "tiny":
        w = w * 2.0**-90
    elif shape == "sparse":
        x, w = x * (x > 1), w * (w > 1)
    x = x * 2.0**log_scale
    shift = w.mean(0) if shifted else torch.zeros(d)
    xr, wr = round_to_bfloat16(x, torch.zeros(d), 16), round_to_bfloat16(w, shift, 64)
    found = torch.mm(xr.values, wr.values.T).double()
    exact = x.double() @ (w.double() - shift.double()).T
    error = screening_error(xr, wr.lengths.max(), wr.losses.max())
    excess = (found - exact).abs() - UNIT * found.abs() - torch.from_numpy(error)[:, None]
    assert excess.max() <= 0


def test_the_bound_is_not_idle() -> None:
    """Without the measured losses, or with half the output rounding, it does break."""
    x, w = gaussian(64, 512, 8)
    xr, wr = (round_to_bfloat16(a, torch.zeros(8), 16) for a in (x, w))
    exact, found = x.double() @ w.double().T, torch.mm(xr.values, wr.values.T).double()
    lossless = screening_error(xr._replace(losses=0 * xr.losses), wr.lengths.max(), 0.0)
    allowed = torch.from_numpy(lossless)[:, None] + UNIT * found.abs()
    assert ((found - exact).abs() > allowed).any()
    rounded = xr.values.double() @ wr.values.double().T
    assert ((found - rounded).abs() > UNIT / 2 * found.abs()).any()


def test_rounding_is_torchs_and_its_loss_measured() -> None:
    x = torch.randn(100, 77) * torch.logspace(-30, 30, 77)
    found = round_to_bfloat16(x, torch.zeros(77), 32)
    assert torch.equal(found.values[:100], x.bfloat16())
    assert len(found.values) == 128
    assert not found.values[100:].any()
    y, shift = torch.randn(50, 64), torch.randn(64)
    found = round_to_bfloat16(y, shift, 1)
    lost = (y.double() - shift.double() - found.values.double()).norm(dim=1).numpy()
    lengths = found.values.double().norm(dim=1).numpy()
    for got, want in ((found.losses, lost), (found.lengths, lengths)):
        assert (got >= want).all()
        np.testing.assert_allclose(got, want, rtol=2e-3)


def test_rounded_rows_are_put_in_strided_slabs() -> None:
    x = torch.randn(1003, 8)
    plain, strided = (round_to_bfloat16(x, torch.zeros(8), 128, step) for step in (1, 8))
    places = torch.arange(1003) % 8 * 128 + torch.arange(1003) // 8
    assert torch.equal(strided.values[places], plain.values[:1003])
    padding = torch.ones(1024, dtype=torch.bool).scatter(0, places, False)
    assert not strided.values[padding].any()
    for got in (strided, plain):
        np.testing.assert_allclose(got.mean, x.double().mean(0), rtol=1e-14, atol=1e-16)
    np.testing.assert_array_equal(strided.lengths, plain.lengths)


def test_centring_makes_near_ties_provable() -> None:
    """A common part a million times the differences: uncentred, nothing could be told apart."""
    x, w = near_ties(64, 3000, 128)
    screen = screened.Screen(scaled(x, w), False)
    torch.testing.assert_close(screen.shift, w.mean(0))
    np.testing.assert_allclose(screen.w.mean, w.double().mean(0), rtol=1e-12)
    w16 = anisotropic(1, 3000, 128)[1].bfloat16().float()
    nothing_to_round = screened.Screen(scaled(x.bfloat16().float(), w16), False)
    assert not nothing_to_round.shift.any()


@pytest.mark.parametrize("make", [gaussian, anisotropic])
def test_statistics_are_far_closer_than_naive_bfloat16s(make) -> None:
    """And ids, logits and means no worse than naive float32's: the ml-cross-entropy rule."""
    x, w = make(96, 8192, 576, 3)
    rows = statistic_errors(x, w, 16)
    off = {(row["variant"], row["statistic"]): row["largest"] for row in rows}
    for statistic in ("logsumexp", "entropy", "max_prob", "var", "skewness", "kurtosis", "z"):
        assert off["screened", statistic] <= off["naive bfloat16", statistic] / 8, statistic
    for statistic in ("logits", "mean"):
        assert off["screened", statistic] <= off["naive float32", statistic] * 1.05 + 1e-8


def test_concentrated_softmax_and_large_logits() -> None:
    x, w = gaussian(32, 4000, 96)
    x = torch.cat([x * 400, 30 * w[:8]])  # logits up to 1,500; rows that are one token
    got, want = (project_topk(x, w, 8, impl=impl) for impl in ("screened", "naive"))
    for side in ("top", "bottom"):
        ours, plain = getattr(got, side), getattr(want, side)
        torch.testing.assert_close(ours.logsumexp, plain.logsumexp, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(ours.entropy, plain.entropy, rtol=0, atol=2e-2)
        torch.testing.assert_close(ours.max_prob, plain.max_prob, rtol=0, atol=5e-3)


def test_deterministic_on_any_number_of_threads() -> None:
    x, w = gaussian(700, 3100, 96)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(project_topk(x, w, 16, impl="screened"))
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(results[0][:3], results[1][:3], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_auto_screens_where_it_pays_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screened, "supported", lambda: True)
    x, w = gaussian(1040, 8192, 256)
    assert project_topk(x, w, 4, stats=False).impl == "screened"
    assert project_topk(x[:9], w, 4, stats=False).impl == "tiled"
    copies = w[:64].repeat(128, 1)
    found = project_topk(x, copies, 4, stats=False)
    assert found.impl == "tiled", "rows searched twice cost more than the screen saves"
    assert torch.equal(found.top.ids, exact_ids(x, copies, 4)["top"])
    monkeypatch.setattr(screened, "supported", lambda: False)
    assert project_topk(x, w, 4, stats=False).impl == "tiled"


def test_one_side_without_statistics() -> None:
    x, w = gaussian(8, 500, 16)
    got = project_topk(x, w, 4, sides=("bottom",), stats=False, impl="screened")
    assert got.top is None
    assert got.moments is None
    assert torch.equal(got.bottom.ids, exact_ids(x, w, 4)["bottom"])
    assert project_topk(x[:0], w, 4, impl="screened").top.ids.shape == (0, 4)


@pytest.mark.parametrize("impl", ["screened", "tiled"])
def test_wide_rows_are_proven(impl: str) -> None:
    """Llama 405B's width: sums of 16,384 terms, whose plain bound would leave no row proven."""
    x, w = gaussian(24, 2048, 16384)
    found = project_topk(x, w, 16, impl=impl, stats=False)
    assert torch.equal(found.top.ids, exact_ids(x, w, 16)["top"])
    assert found.certified > 0.9
