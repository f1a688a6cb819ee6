"""The fused projection against its naive float64 twin."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.kernels import project_topk
from interp.kernels.reference import project_dense
from interp.kernels.rounding import Format
from interp.kernels.screened import FORMATS

BOTH = ("top", "bottom")


def gaussian(n: int, vocabulary: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    return x, torch.randn(vocabulary, d, generator=generator)


def check(x: torch.Tensor, w: torch.Tensor, k: int) -> None:
    """The float64 oracle's ids; no error beyond the naive float32 version's + slack."""
    got = project_topk(x, w, k, impl="tiled")
    want = project_dense(x.double(), w.double(), k, BOTH, True)
    naive = project_topk(x, w, k, impl="naive")
    scale = (x.norm(dim=1).max() * w.norm(dim=1).max()).item() + 1e-30
    for side in BOTH:
        ours, oracle, plain = getattr(got, side), getattr(want, side), getattr(naive, side)
        assert torch.equal(ours.ids, oracle.ids), side
        for name in ("logits", "logsumexp", "entropy", "max_prob"):
            error = (getattr(ours, name).double() - getattr(oracle, name)).abs().max()
            allowed = (getattr(plain, name).double() - getattr(oracle, name)).abs().max()
            unit = max(scale, 1.0) if name != "max_prob" else 1.0
            assert error <= allowed + 2e-6 * unit, (side, name, error, allowed)
    torch.testing.assert_close(
        got.moments.mean.double(), want.moments.mean, atol=1e-6 * scale, rtol=0
    )
    torch.testing.assert_close(got.moments.var.double(), want.moments.var, atol=0, rtol=1e-5)
    for name in ("skewness", "kurtosis"):
        ours, oracle = getattr(got.moments, name).double(), getattr(want.moments, name)
        torch.testing.assert_close(ours, oracle, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("n", "vocabulary", "d"), [(1, 130, 3), (513, 1025, 64), (40, 2500, 252)])
@pytest.mark.parametrize("k", [1, 16, 123])
def test_odd_shapes(n: int, vocabulary: int, d: int, k: int) -> None:
    check(*gaussian(n, vocabulary, d), k)


@pytest.mark.parametrize("numbers", FORMATS, ids=lambda numbers: numbers.name)
def test_best_tokens_that_lie_in_one_slab_are_found(numbers: Format) -> None:
    """The screen expects a fair share of them in every slab; here every 20th token is the best."""
    x, w = gaussian(20, 20 * numbers.columns, 16)
    w[3::20] *= 30.0
    got = project_topk(x, w, 64, impl=numbers.name)
    want = project_dense(x.double(), w.double(), 64, BOTH, False)
    assert torch.equal(got.top.ids, want.top.ids)
    assert torch.equal(got.bottom.ids, want.bottom.ids)
    assert (got.top.ids % 20 == 3).all()
    # a format with a finer one screens most of these in that, and proves them
    assert numbers.fine or got.certified < 0.5, "a fair share was found: this says nothing"


def test_k_may_be_the_whole_vocabulary() -> None:
    x, w = gaussian(5, 37, 8)
    got = project_topk(x, w, 37)
    assert torch.equal(got.top.ids.sort(1).values, torch.arange(37).expand(5, -1))
    assert torch.equal(got.top.ids.flip(1), got.bottom.ids)


def test_near_ties_are_ordered_as_in_float64() -> None:
    """Rows of the readout that differ by less than float32 can tell apart in a dot product."""
    x, w = gaussian(64, 1, 200)
    generator = torch.Generator().manual_seed(1)
    w = w + 1e-6 * torch.randn(3000, 200, generator=generator)
    got = project_topk(x, w, 16)
    want = project_dense(x.double(), w.double(), 16, BOTH, False)
    assert torch.equal(got.top.ids, want.top.ids)
    assert torch.equal(got.bottom.ids, want.bottom.ids)
    plain = project_topk(x, w, 16, impl="naive")
    assert not torch.equal(plain.top.ids, want.top.ids), "the data should defeat plain float32"


def test_ties_go_to_the_lowest_id() -> None:
    x, w = gaussian(20, 300, 16)
    w = w.repeat(5, 1)  # every row five times
    got = project_topk(x, w, 12)
    for side in (got.top, got.bottom):
        groups = side.ids[:, :10].reshape(20, 2, 5)
        assert torch.equal(groups % 300, (groups[:, :, :1] % 300).expand_as(groups))
        assert torch.equal(groups, groups.sort(2).values)


def test_zero_row_is_uniform() -> None:
    _, w = gaussian(1, 1000, 8)
    got = project_topk(torch.zeros(2, 8), w, 4)
    assert torch.equal(got.top.ids, torch.arange(4).expand(2, -1))
    assert torch.equal(got.bottom.ids, torch.arange(4).expand(2, -1))
    assert torch.equal(got.top.max_prob, torch.full((2,), 1 / 1000))
    assert torch.equal(got.moments.kurtosis, torch.zeros(2))
    torch.testing.assert_close(got.top.entropy, torch.full((2,), 1000.0).log())


def test_planted_row_decodes_to_its_token() -> None:
    _, w = gaussian(1, 5000, 64)
    planted = 10 * w[1234] / w[1234].norm()
    got = project_topk(planted[None], w, 3)
    assert got.top.ids[0, 0] == 1234
    assert got.top.max_prob[0] > 0.99


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1e-4, 1e4), seed=st.integers(0, 1000))
def test_ranking_ignores_a_positive_scale(factor: float, seed: int) -> None:
    x, w = gaussian(4, 500, 16, seed)
    scaled = (x.double() * 2.0 ** round(torch.tensor(factor).log2().item())).float()
    assert torch.equal(project_topk(x, w, 8).top.ids, project_topk(scaled, w, 8).top.ids)


def test_large_logits_do_not_overflow_the_softmax() -> None:
    x, w = gaussian(8, 2000, 32)
    check(x * 300, w, 5)


def test_one_side_and_no_statistics() -> None:
    x, w = gaussian(8, 500, 16)
    got = project_topk(x, w, 4, sides=("bottom",), stats=False)
    assert got.top is None
    assert got.moments is None
    assert got.bottom.entropy is None
    assert torch.equal(got.bottom.ids, project_topk(x, w, 4).bottom.ids)


def test_half_precision_operands_lose_nothing() -> None:
    x, w = gaussian(30, 900, 48)
    x, w = x.bfloat16(), w.half()
    want = project_dense(x.double(), w.double(), 16, BOTH, False)
    assert torch.equal(project_topk(x, w, 16).top.ids, want.top.ids)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["vectors", "readout"])
def test_non_finite_values_are_refused(bad: float, which: str) -> None:
    x, w = gaussian(3, 50, 4)
    (x if which == "vectors" else w)[1, 2] = bad
    with pytest.raises(ValueError, match=f"NaN or an infinity in the {which}"):
        project_topk(x, w, 4)


def test_wrong_arguments_are_named() -> None:
    x, w = gaussian(3, 50, 4)
    with pytest.raises(ValueError, match=r"expected vectors \[n, d\]"):
        project_topk(x[:, :3], w, 4)
    with pytest.raises(ValueError, match="k must be between 1 and the 50"):
        project_topk(x, w, 51)
    with pytest.raises(ValueError, match="sides"):
        project_topk(x, w, 4, sides=())
    with pytest.raises(ValueError, match=r"a tuple, as \('top',\), not the string 'top'"):
        project_topk(x, w, 4, sides="top")
    with pytest.raises(ValueError, match="impl must be one of auto, .*naive, not 'nonsense'"):
        project_topk(x, w, 4, impl="nonsense")
    with pytest.raises(ValueError, match="d must be at least 1"):
        project_topk(x[:, :0], w[:, :0], 4)


@pytest.mark.parametrize("impl", ["naive", "tiled"])
@pytest.mark.parametrize("which", ["vectors", "readout"])
def test_numbers_that_float32_does_not_take_are_refused(which: str, impl: str) -> None:
    given = dict(zip(("vectors", "readout"), gaussian(3, 50, 4), strict=True))
    for dtype in (torch.complex64, torch.int32):
        with pytest.raises(ValueError, match=f"the {which} are {dtype}: convert"):
            project_topk(**{**given, which: given[which].to(dtype)}, k=4, impl=impl)
    large = given[which].double().clone()
    large[1, 2] = -1e200
    with pytest.raises(ValueError, match=rf"float32 does not hold 1e\+200 in the {which}"):
        project_topk(**{**given, which: large}, k=4, impl=impl)


def test_no_vectors_give_no_rows() -> None:
    _, w = gaussian(1, 50, 4)
    assert project_topk(torch.zeros(0, 4), w, 4).top.ids.shape == (0, 4)
