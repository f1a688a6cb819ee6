"""The GPU path under Triton's interpreter, against its naive float64 twin.

The interpreter has to be chosen before triton is imported, so these run in a process of their own:
`TRITON_INTERPRET=1 pytest tests/kernels/test_triton.py`, as `make unit` does.
"""

import os

import pytest
import torch

from interp.kernels.reference import exact_ids, project_dense

pytest.importorskip("triton", reason="triton is not installed: pip install -e '.[gpu]'")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a process with TRITON_INTERPRET=1: make unit", allow_module_level=True)

from hypothesis import given, settings
from hypothesis import strategies as st

from interp.kernels.triton_bins import UNPACKED
from interp.kernels.triton_dots import dots
from interp.kernels.triton_merge import unpacked
from interp.kernels.triton_project import project_triton

BOTH = ("top", "bottom")
PRODUCERS = ("buffer", "fused", "wide")


def operands(n, vocabulary, d, seed=0, bf16=True):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    w = torch.randn(vocabulary, d, generator=generator)
    return (x.bfloat16().float(), w.bfloat16().float()) if bf16 else (x, w)


def check(x, w, k, producer, exact_operands=True):
    got = project_triton(x, w, k, BOTH, True, producer)
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


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize(
    ("n", "vocabulary", "d", "k"),
    [(1, 33, 3, 1), (2, 1, 5, 1), (5, 300, 48, 16), (3, 700, 123, 100)],
)
def test_odd_shapes(n, vocabulary, d, k, producer):
    got = check(*operands(n, vocabulary, d), k, producer)
    assert got.certified == 1.0
    assert got.impl == f"triton {producer}"


@pytest.mark.parametrize("producer", ["fused", "wide"])
def test_more_rows_than_a_tile_has(producer):
    x, w = operands(130, 130, 24)
    got = project_triton(x, w, 1, ("top",), True, producer)
    want = project_dense(x.double(), w.double(), 1, ("top",), True)
    assert torch.equal(got.top.ids, want.top.ids)
    torch.testing.assert_close(got.moments.var.double(), want.moments.var, atol=0, rtol=1e-5)


@pytest.mark.parametrize("producer", PRODUCERS)
def test_operands_that_bfloat16_rounds(producer):
    """Screened with rounded operands, proven and scored with those that were given."""
    got = check(*operands(9, 1500, 96, bf16=False), 8, producer, exact_operands=False)
    assert got.certified > 0.5


@pytest.mark.parametrize("producer", PRODUCERS)
def test_ties_go_to_the_lowest_id(producer):
    x, w = operands(6, 200, 32)
    check(x, w.repeat(4, 1), 10, producer)


def test_a_bin_may_hold_all_of_the_best():
    """All of a row's best in one bin of the permuted read-out: its 32 logits are made again."""
    x, w = operands(2, 640, 32)
    order = torch.randperm(640, generator=torch.Generator().manual_seed(0))
    w[order[64:96]] = x[0].bfloat16().float() * torch.linspace(1, 2, 32)[:, None]
    w = w.bfloat16().float()
    got = check(x, w, 20, "fused")
    assert set(got.top.ids[0].tolist()) <= set(order[64:96].tolist())


def test_rows_that_cannot_be_proven_are_made_again():
    x, w = operands(4, 1, 64)
    generator = torch.Generator().manual_seed(1)
    near = w + 1e-6 * torch.randn(1500, 64, generator=generator)
    got = project_triton(x, near, 2, BOTH, False, "fused")
    want = project_dense(x.double(), near.double(), 2, BOTH, False)
    assert torch.equal(got.top.ids, want.top.ids)
    assert torch.equal(got.bottom.ids, want.bottom.ids)
    assert got.certified == 0.0


def test_rows_that_few_candidates_do_not_prove_are_proven_by_more(monkeypatch):
    """Thirty logits within rounding of the first, then a gap: not by 14 candidates, but by 112."""
    x, w = operands(3, 1000, 64)
    x = x.abs()
    generator = torch.Generator().manual_seed(1)
    w[:30] = 3.0 + 1e-5 * torch.randn(30, 64, generator=generator)
    want = project_dense(x.double(), w.double(), 1, ("top",), False)
    for times, proven in ((8, 1.0), (1, 0.0)):
        monkeypatch.setattr("interp.kernels.triton_merge.WIDER", times)
        got = project_triton(x, w, 1, ("top",), False, "fused")
        assert torch.equal(got.top.ids, want.top.ids)
        assert got.certified == proven


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 4),
    vocabulary=st.integers(1, 400),
    d=st.integers(1, 40),
    k=st.integers(1, 9),
    copies=st.integers(1, 3),
    scale=st.sampled_from([1e-38, 1e-20, 1.0, 1e4, 1e22]),
    seed=st.integers(0, 10**6),
)
def test_ids_are_those_of_float64(n, vocabulary, d, k, copies, scale, seed):
    """Products that flush to zero or overflow in float32, and equal rows, too."""
    x, w = operands(n, vocabulary, d, seed, bf16=seed % 2 == 0)
    x, w = x * scale, (w * scale).repeat(copies, 1)
    k = min(k, vocabulary)
    got, want = project_triton(x, w, k, BOTH, False), exact_ids(x, w, k)
    assert torch.equal(got.top.ids, want["top"])
    assert torch.equal(got.bottom.ids, want["bottom"])


def test_dots_are_float64_and_the_same_for_equal_rows():
    x, w = operands(3, 50, 600, bf16=False)
    w[7] = w[41]
    rows, ids = torch.tensor([2, 0]), torch.randint(50, (2, 13))
    ids[:, 0], ids[:, 11] = 7, 41
    for a, b in ((x, w), (x.bfloat16(), w.half())):
        got = dots(a, b, rows, ids)
        want = torch.einsum("pcd,pd->pc", b[ids].double(), a[rows].double())
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)
        assert torch.equal(got[:, 0], got[:, 11])
    none = dots(x, w, rows, torch.full((2, 3), -1))
    assert torch.equal(none, torch.zeros(2, 3, dtype=torch.float64))


def test_zero_rows_one_side_and_no_statistics():
    _, w = operands(1, 300, 16)
    got = project_triton(torch.zeros(2, 16), w, 4, ("bottom",), False, "buffer")
    assert got.top is None
    assert got.moments is None
    assert torch.equal(got.bottom.ids, torch.arange(4).expand(2, -1))
    assert project_triton(torch.zeros(0, 16), w, 4, BOTH, True).top.ids.shape == (0, 4)


def test_deterministic_and_the_same_from_both_producers():
    x, w = operands(20, 700, 64)
    a, b, c = (project_triton(x, w, 6, BOTH, True, p) for p in ("fused", "fused", "buffer"))
    for other, exact in ((b, True), (c, False)):
        for part in (*BOTH, "moments"):
            for p, q in zip(getattr(a, part), getattr(other, part), strict=True):
                assert torch.equal(p, q) if exact else torch.allclose(p, q, atol=1e-4)


def test_a_wrong_screen_is_noticed(monkeypatch):
    from interp.kernels import triton_project

    def broken(*args):
        bins, sums = produce(*args)
        bins[:, ::2] = -(2**31)  # as if half of the columns had never been looked at
        return bins, sums

    produce = triton_project._produce
    monkeypatch.setattr(triton_project, "_produce", broken)
    with pytest.raises(RuntimeError, match="not its dense twin's"):
        project_triton(*operands(6, 700, 32), 4, BOTH, False, "fused")


def test_the_public_function_takes_half_precision_as_it_is():
    from interp.kernels import project_topk

    x, w = operands(5, 200, 24)
    got = project_topk(x.bfloat16(), w.half(), 4, impl="triton")
    assert got.impl == "triton fused"
    want = project_topk(x, w.half(), 4, impl="tiled")
    assert torch.equal(got.top.ids, want.top.ids)
    assert got.top.logits.dtype == torch.float32


def test_the_benchmark_runs():
    from interp.kernels.bench_gpu import VARIANTS, operands, report

    found = report(*operands(3, 16, 150, "cpu"), 2, 2)
    assert len(found["seconds"]) == 2
    assert all(set(t) == set(VARIANTS) and min(t.values()) > 0 for t in found["seconds"])
    fastest = min(t["fused"] for t in found["seconds"])
    assert found["tflops"]["fused"] == pytest.approx(2e-12 * 3 * 16 * 150 / fastest)
    assert found["certified"] == 1.0


def test_packed_keys_order_as_the_floats_do():
    from interp.kernels.triton_project import _produce

    logits = torch.tensor([[3.0, -2.0, 3.0, 0.0, -0.0, 1e-30, -7.5, 2.9999]])
    eye = torch.eye(8)
    bins, _ = _produce(logits.bfloat16(), eye.bfloat16(), torch.zeros(1), False, "buffer")
    values, columns = unpacked(bins[0, 0])
    assert columns.tolist() == [0, 2, 6, 1], "the first of equal logits comes first"
    want = torch.tensor([3.0, 3.0, 7.5, 2.0])
    assert ((values - want).abs() <= UNPACKED * want).all()
