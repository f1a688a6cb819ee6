"""The GPU path against its naive float64 twin, on a GPU or under Triton's interpreter.

The interpreter has to be chosen before triton is imported, so these run in a process of their own:
`TRITON_INTERPRET=1 pytest tests/kernels/test_triton.py`, as `make unit` does. Where there is a GPU,
`pytest tests/kernels/test_triton.py` runs them there.
"""

import os
from contextlib import contextmanager

import pytest
import torch

from interp.kernels.reference import exact_ids, project_dense

pytest.importorskip("triton", reason="triton is not installed: pip install -e '.[gpu]'")
if os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available():
    pytest.skip("needs a process with TRITON_INTERPRET=1: make unit", allow_module_level=True)

from hypothesis import example, given, settings
from hypothesis import strategies as st

from interp.kernels import triton_error, triton_project, triton_scan
from interp.kernels.triton_error import errors, gamma, prepare
from interp.kernels.triton_lengths import lengths
from interp.kernels.triton_project import project_triton
from interp.kernels.triton_select import levels_kernel

from .oracle import check as check_exact
from .oracle import check_scaling
from .oracle import oracle as longdouble

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
BOTH = ("top", "bottom")


def operands(n, vocabulary, d, seed=0, bf16=True):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator).to(DEVICE)
    w = torch.randn(vocabulary, d, generator=generator).to(DEVICE)
    return (x.bfloat16().float(), w.bfloat16().float()) if bf16 else (x, w)


@contextmanager
def small_steps():
    """In the interpreter, tiles of 64 columns with 8 bins of 8, and 16 candidates at a time: a few
    columns cross every border. The interpreter takes 2 ms for each row of the read-out."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            for name, value in {"RUNS": 2, "WIDTH": 32, "TILE": 64, "PER_TILE": 8}.items():
                patch.setattr(triton_scan, name, value)
            patch.setattr(triton_project._Search, "_step", lambda self, size: min(self.room, 16))
        yield


def check(x, w, k, exact_operands=True):
    got = project_triton(x, w, k, BOTH, True)
    want = project_dense(x.double(), w.double(), k, BOTH, True)
    naive = project_dense(x.bfloat16(), w.bfloat16(), k, BOTH, True)
    for side in BOTH:
        ours, oracle = getattr(got, side), getattr(want, side)
        assert torch.equal(ours.ids, oracle.ids), side
        torch.testing.assert_close(ours.logits.double(), oracle.logits, atol=1e-5, rtol=1e-6)
    parts = [("moments", n) for n in got.moments._fields]
    parts += [(s, n) for s in BOTH for n in ("logsumexp", "entropy", "max_prob")]
    for part, name in parts:
        oracle = getattr(getattr(want, part), name)
        error = (getattr(getattr(got, part), name).double() - oracle).abs().max()
        allowed = (getattr(getattr(naive, part), name).double() - oracle).abs().max()
        assert error <= allowed + 1e-5, (part, name, error, allowed)
        if exact_operands:
            torch.testing.assert_close(
                getattr(getattr(got, part), name).double(), oracle, atol=1e-4, rtol=1e-4
            )
    return got


@pytest.mark.parametrize(
    ("n", "tiles", "tail", "d", "k"),
    [
        pytest.param(2, 0, 1, 5, 1, id="one logit"),
        pytest.param(1, 0, 9, 2048, 2, id="two whole chunks of d"),
        pytest.param(2, 3, 3, 259, 20, id="tails of d, of a tile and of the candidates"),
    ],
)
@small_steps()
def test_odd_shapes(n, tiles, tail, d, k):
    got = check(*operands(n, tiles * triton_scan.TILE + tail, d), k)
    assert got.certified == 1.0
    assert got.impl == "triton"


@pytest.mark.slow
def test_bfloat16_operands_over_the_border_of_a_tile():
    """At the sizes of the product; more are asked for than there are bins."""
    x, w = operands(2, triton_scan.TILE + 5, 123)
    assert check(x.bfloat16(), w.bfloat16(), 300).certified == 1.0


def test_chunks_share_a_buffer(monkeypatch):
    """Three chunks, the last of them smaller; and the same bits again."""
    x, w = operands(5, 20, 16)
    monkeypatch.setattr(triton_project, "ROWS", 2)
    parts, again = check(x, w, 3), project_triton(x, w, 3, BOTH, True)
    for part in (*BOTH, "moments"):
        for p, q in zip(getattr(parts, part), getattr(again, part), strict=True):
            assert torch.equal(p, q)


@small_steps()
def test_operands_that_bfloat16_rounds():
    """Screened with rounded operands, proven and scored with those that were given. The softmax is
    concentrated on candidates (logits spread by 10), so it is as exact as they are."""
    x, w = operands(3, 2 * triton_scan.TILE + 22, 96, bf16=False)
    got = check(x, w, 8, exact_operands=False)
    assert got.certified == 1.0
    want = project_dense(x.double(), w.double(), 8, BOTH, True)
    for side in BOTH:
        ours, oracle = getattr(got, side), getattr(want, side)
        torch.testing.assert_close(ours.logsumexp.double(), oracle.logsumexp, atol=1e-3, rtol=0)
        torch.testing.assert_close(ours.max_prob.double(), oracle.max_prob, atol=1e-3, rtol=0)


@small_steps()
def test_a_large_common_part_does_not_spoil_the_mean():
    """Logits that share 300, of which bfloat16 would lose 1."""
    x, w = operands(2, triton_scan.TILE + 36, 32, bf16=False)
    common = torch.randn(32, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    x, w = x + 3 * common, w + 3 * common
    got = project_triton(x, w, 4, BOTH, True)
    want = project_dense(x.double(), w.double(), 4, BOTH, True)
    torch.testing.assert_close(got.moments.mean.double(), want.moments.mean, atol=1e-4, rtol=0)
    for side in BOTH:
        ours, oracle = getattr(got, side), getattr(want, side)
        assert torch.equal(ours.ids, oracle.ids)
        torch.testing.assert_close(ours.logsumexp.double(), oracle.logsumexp, atol=1e-2, rtol=0)


@small_steps()
def test_candidates_of_both_sides_are_corrected_once():
    """All logits are asked for, so all are candidates on both sides: every statistic is exact."""
    x, w = operands(2, 40, 30, bf16=False)
    got = project_triton(x, w, 40, BOTH, True)
    want = project_dense(x.double(), w.double(), 40, BOTH, True)
    for part in (*BOTH, "moments"):
        for ours, oracle in zip(getattr(got, part), getattr(want, part), strict=True):
            torch.testing.assert_close(ours.double(), oracle.double(), atol=1e-6, rtol=1e-6)


@small_steps()
def test_ties_go_to_the_lowest_id():
    """Copies lie in different tiles."""
    x, w = operands(2, triton_scan.TILE // 2 + 3, 32)
    check(x, w.repeat(4, 1), 10)


@small_steps()
def test_a_bin_may_hold_all_of_the_best():
    """And so the k-th highest maximum is far below them."""
    runs, width, run = triton_scan.RUNS, triton_scan.WIDTH, triton_scan.RUN
    x, w = operands(2, 2 * triton_scan.TILE + 12, 32)
    bin_5 = [width * r + 5 * run + i for r in range(runs) for i in range(run)]
    w[bin_5] = x[0] * torch.linspace(1, 2, len(bin_5), device=DEVICE)[:, None]
    w = w.bfloat16().float()
    got = check(x, w, len(bin_5) - 2)
    assert set(got.top.ids[0].tolist()) <= set(bin_5)
    assert got.certified == 1.0


@pytest.mark.parametrize("bins", [5, 2048, 2100])
def test_the_level_is_the_kth_of_the_groups_of_bins(bins):
    """Bins are read 2,048 at a time, in 128 groups of which each gives its highest."""
    values = torch.randn(2, 2, bins, generator=torch.Generator().manual_seed(bins)).to(DEVICE)
    values[:, :, -1] = 9.0  # so that the last one counts
    error = torch.tensor([0.25, 0.0], dtype=torch.float64, device=DEVICE)
    levels = torch.zeros(2, 2, device=DEVICE)
    listed = torch.zeros(2, 2, dtype=torch.int32, device=DEVICE)
    places = torch.zeros(2, 2, 64, dtype=torch.int32, device=DEVICE)
    steps = {"GROUPS": 128, "STEP": 2048}
    levels_kernel[(2, 2)](values, error, levels, places, listed, bins, 0, 3, 64, **steps)
    for row, side in ((row, side) for row in range(2) for side in range(2)):
        own = values[row, side]
        groups = torch.stack([own[start::128].max() for start in range(min(bins, 128))])
        level = groups.sort(descending=True).values[2] - 2 * error[row].float()
        assert levels[row, side] == level
        reached = (own >= level).nonzero()[:, 0]
        assert listed[row, side] == len(reached)
        assert torch.equal(places[row, side, : len(reached)].long(), reached)


@pytest.mark.slow
def test_rows_without_room_for_their_candidates_are_searched_again(monkeypatch):
    """More of them than are searched at once, in more steps than one program takes. No candidate
    corrects their statistics, only the mean, of which bfloat16 loses up to 0.03."""
    monkeypatch.setattr("interp.kernels.triton_error.SMALL", 0)
    x, w = operands(17, 1, 64, bf16=False)
    generator = torch.Generator().manual_seed(1)
    near = w + 1e-6 * torch.randn(270, 64, generator=generator).to(DEVICE)
    got = project_triton(x, near, 2, BOTH, True)
    want = exact_ids(x, near, 2)
    assert torch.equal(got.top.ids, want["top"])
    assert torch.equal(got.bottom.ids, want["bottom"])
    dense = project_dense(x.double(), near.double(), 2, BOTH, True)
    for ours, oracle in ((got.top, dense.top), (got.bottom, dense.bottom)):
        torch.testing.assert_close(ours.logits.double(), oracle.logits, atol=0, rtol=1e-7)
        torch.testing.assert_close(ours.logsumexp.double(), oracle.logsumexp, atol=1e-4, rtol=0)
    assert got.certified == 0.0


@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(1, 3),
    vocabulary=st.integers(1, 30 if INTERPRETED else 400),
    d=st.integers(1, 40),
    k=st.integers(1, 9),
    copies=st.integers(1, 3),
    scale=st.sampled_from([1e-38, 1e-20, 1.0, 1e4, 1e22]),
    seed=st.integers(0, 10**6),
)
@example(n=1, vocabulary=3, d=2, k=2, copies=2, scale=1e22, seed=0)  # NaN logits
@small_steps()
def test_ids_are_those_of_float64(n, vocabulary, d, k, copies, scale, seed):
    """Products that flush to zero or overflow in float32, and equal rows, too."""
    x, w = operands(n, vocabulary, d, seed, bf16=seed % 2 == 0)
    x, w = x * scale, (w * scale).repeat(copies, 1)
    k = min(k, vocabulary)
    got, want = project_triton(x, w, k, BOTH, False), exact_ids(x, w, k)
    assert torch.equal(got.top.ids, want["top"])
    assert torch.equal(got.bottom.ids, want["bottom"])


@pytest.mark.skipif(INTERPRETED, reason="a matter of tensor cores")
@pytest.mark.parametrize("kind", ["Gaussian", "positive", "growing", "cancelling", "same"])
@pytest.mark.parametrize("d", [1, 5, 64, 576, 4096, 16384])
def test_the_product_is_no_further_off_than_half_the_bound(d, kind):
    """Of operands that bfloat16 holds; tensor cores cut off where others round."""
    x, w = operands(500, 2000, d)
    if kind == "positive":
        x, w = x.abs(), w.abs()
    if kind == "growing":
        x = x * torch.logspace(-2, 2, d, device=DEVICE)
    if kind == "cancelling":
        half = d // 2
        x[:, half : 2 * half], w[:, half : 2 * half] = -x[:, :half], w[:, :half]
    if kind == "same":
        x, w = 1 + x.abs() / 64, 1 + w.abs() / 64
    x, w = x.bfloat16(), w.bfloat16()
    got = torch.mm(x, w.T, out_dtype=torch.float32).double()
    truth = x.double() @ w.double().T
    lengths = x.double().norm(dim=1)[:, None] * w.double().norm(dim=1)
    assert ((got - truth).abs() / lengths).max() <= gamma(d) / 2


@pytest.mark.parametrize("rounded", ["x", "w", "both"])
def test_the_error_of_rounded_operands_is_measured(rounded):
    x, w = operands(4, 20, 300, bf16=False)
    x = x.bfloat16().float() if rounded == "w" else x
    w = w.bfloat16().float() if rounded == "x" else w
    read = prepare(w)
    ones = torch.ones(4, dtype=torch.float64, device=DEVICE)
    length, loss, mean = lengths(x, ones, x.bfloat16(), read.mean)
    torch.testing.assert_close(loss, (x - x.bfloat16().float()).double().norm(dim=1))
    torch.testing.assert_close(mean, x.double() @ w.double().mean(0), atol=1e-6, rtol=1e-6)
    error = errors(length, loss, 300, read)
    off = (x.double() @ w.double().T - x.bfloat16().double() @ w.bfloat16().double().T).abs()
    assert (off.max(1).values <= error).all()
    assert (off.max(1).values >= error / 20).all(), "a bound that says nothing"


def test_zero_rows_one_side_and_no_statistics():
    _, w = operands(1, 40, 16)
    got = project_triton(torch.zeros(2, 16, device=DEVICE), w, 4, ("bottom",), False)
    assert got.top is None
    assert got.moments is None
    assert torch.equal(got.bottom.ids.cpu(), torch.arange(4).expand(2, -1))
    none = project_triton(torch.zeros(0, 16, device=DEVICE), w, 4, BOTH, True)
    assert none.top.ids.shape == (0, 4)


@small_steps()
def test_a_wrong_screen_is_noticed(monkeypatch):
    def broken(self, logits, results):
        logits[:, ::2] = 0  # as if half of the columns had never been multiplied
        scan(self, logits, results)

    scan = triton_project._Search._scan
    monkeypatch.setattr(triton_project._Search, "_scan", broken)
    with pytest.raises(RuntimeError, match="differs from dense logits"):
        project_triton(*operands(2, 2 * triton_scan.TILE + 12, 32), 4, BOTH, False)


def test_the_public_function_takes_half_precision_as_it_is():
    from interp.kernels import project_topk

    x, w = operands(2, 40, 24)
    got = project_topk(x.bfloat16(), w.half(), 4, impl="triton")
    assert got.impl == "triton"
    assert torch.equal(got.top.ids, exact_ids(x, w.half(), 4)["top"])
    assert got.top.logits.dtype == torch.float32


def test_the_benchmark_runs():
    from interp.kernels.bench_gpu import VARIANTS, accuracy, operands, report

    found = report(*operands(1, 16, 30, DEVICE), 2, 2)
    assert len(found["seconds"]) == 2
    assert all(set(t) == set(VARIANTS) and min(t.values()) > 0 for t in found["seconds"])
    middle = sum(t["projected"] for t in found["seconds"]) / 2
    assert found["tflops"]["projected"] == pytest.approx(2e-12 * 16 * 30 / middle)
    assert found["certified"] == 1.0
    exact = accuracy(1, DEVICE, 16, 8)["exactness"]
    assert len(exact) == 6
    assert all(row["exact"] for rows in exact.values() for row in rows)


@pytest.mark.slow
@small_steps()
def test_statistics_at_every_scale_that_float32_holds():
    """Of rows, and of a read-out; and of one with a row many times longer than others."""
    check_scaling(lambda x, w: project_triton(x, w, 5, BOTH, True), 2e-6, [-149, -50, 27], 0)
    x, w = operands(2, 70, 12)
    for power in (-130, 110):
        big = (w.double() * 2.0**power).float()
        check_exact(project_triton(x, big, 5, BOTH, True), longdouble(x, big), 2e-6)
    w[5] *= 1e10
    x[1] -= (x[1] @ w[5]) / w[5].square().sum() * w[5]
    check_exact(project_triton(x, w, 5, BOTH, True), longdouble(x, w), 2e-6)


@small_steps()
def test_rounding_one_long_token_hides_no_logit(monkeypatch):
    """Among more tokens than there is room for, a row that hardly sees the longest of them."""
    monkeypatch.setattr(triton_error, "SMALL", 0)
    for power in (1e3, 1e6, 1e10):
        x, w = operands(2, 200, 12)
        w[5] *= power
        x[1] -= (x[1] @ w[5]) / w[5].square().sum() * w[5]
        found = project_triton(x, w, 1, BOTH, True)
        check_exact(found, longdouble(x, w), 2e-2)


@pytest.mark.parametrize("bf16", [True, False])
@small_steps()
def test_large_logits_that_are_close(bf16):
    x, w = operands(2, 90, 12, bf16=bf16)
    x = x / x.norm(dim=1, keepdim=True)
    w[:2], w[40:42] = 1e7 * x, 1e7 * x
    w[40:42] += x
    if bf16:
        x, w = x.bfloat16().float(), w.bfloat16().float()
    check_exact(project_triton(x, w, 5, BOTH, True), longdouble(x, w), 2e-5)
    w = w[2:40] + 1e6 * w[2]
    check_exact(project_triton(x, w, 5, BOTH, True), longdouble(x, w), 2e-2 if bf16 else 5e-2)
