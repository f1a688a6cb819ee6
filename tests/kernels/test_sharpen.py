"""Fine scores of a coarse screen's candidates, against a naive twin."""

import numpy as np
import pytest
import torch
from numba import njit

from interp.kernels.blocks import new_state
from interp.kernels.candidates import pack, score_of, token_of
from interp.kernels.integers import INT8
from interp.kernels.madd import supported
from interp.kernels.scaling import scaled
from interp.kernels.scan import BOTTOM, TOP, scan_tile
from interp.kernels.screened import Screen
from interp.kernels.sharpen import _dot, sharpen

N, TOKENS, D, KEPT = 8, 700, 96, 120


class Case:
    """Gaussian operands, screened in int8: the logits, and the state after a scan."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(N, D, generator=generator) / D**0.5
        self.w = torch.randn(TOKENS, D, generator=generator)
        operands = scaled(x, self.w)
        self.screen = Screen(INT8, operands, True)
        in_order, order = INT8.round(self.w, self.screen.shift, 1), self.screen.fine.order
        self.easy, self.order = self.screen.tokens, order
        self.fine = self._logits(self.screen.fine.x, self.screen.fine.w)[:N]
        self.coarse = self._logits(self.screen.x, in_order)[:N]
        self.hard = order[self.easy :]
        self.coarse[:, self.hard] = self.fine[:, self.hard]
        rows, shifted = operands.rows(slice(None)).double(), self.w - self.screen.shift
        self.exact = (rows @ shifted.double().T).numpy()
        self.centre = np.zeros(N, np.float32)
        self.state = new_state(self.centre, KEPT, ("top", "bottom"))
        ones = np.ones(N, np.float32)
        for start, stop in ((0, self.easy), (self.easy, TOKENS)):
            tile = np.ascontiguousarray(self.coarse[:, order[start:stop]])
            sizes = (stop - start, start, 1)
            scan_tile(tile, *sizes, ones, self.centre, *self.state, KEPT, True)

    def _logits(self, x, w) -> np.ndarray:
        """Float32 as the screens compute them."""
        whole = x.values.double() @ w.values.double().T
        return (x.scales[:, None] * (w.scales * whole.float())).numpy()

    def sharpen(self, k: int) -> np.ndarray:
        fine, ones = self.screen.fine, np.ones(N)
        typical = np.zeros((2, N))
        for at, side in enumerate(("top", "bottom")):
            sharpen(
                *self.state.side(side), k, 1.0 - 2.0 * at, *fine.operands(slice(0, N)),
                self.screen.error, fine.error, 1e-12 * ones, fine.unit, ones, ones,
                self.centre.astype(np.float64), self.easy, self.state.sums, typical[at],
            )  # fmt: skip
        return typical


@pytest.fixture
def case() -> Case:
    return Case()


def found(case: Case, side: str, r: int, order: np.ndarray | None = None) -> dict[int, float]:
    """Scores by token id; of keys that hold positions in an `order`, if one is given."""
    keys, count, _ = case.state.side(side)
    ids = np.arange(TOKENS) if order is None else order
    return {int(ids[token_of(key)]): float(score_of(key)) for key in keys[r, : count[r]]}


@pytest.mark.parametrize("k", [1, 16, 90])
def test_candidates_get_the_scores_of_the_naive_twin(case: Case, k: int) -> None:
    before = {
        side: [found(case, side, r, case.order) for r in range(N)] for side in ("top", "bottom")
    }
    case.sharpen(k)
    dropped = 0
    for side, sign in (("top", 1.0), ("bottom", -1.0)):
        for r in range(N):
            after, fine = found(case, side, r), sign * case.fine[r]
            assert after == {token: fine[token] for token in after}
            assert set(after) <= set(before[side][r])
            gone, kth = set(before[side][r]) - set(after), np.sort(sign * case.exact[r])[-k]
            # whatever its coarse score may hide
            assert all(sign * case.coarse[r, t] + case.screen.error[r] < kth for t in gone)
            assert (sign * case.exact[r] >= kth)[list(after)].sum() == k
            dropped += len(gone)
    assert dropped > N or k > 16, "nothing was dropped: this says little"


def test_the_raised_limit_bounds_what_was_not_kept(case: Case) -> None:
    """By the fine error, where before it was by the coarse one."""
    coarse, lost = case.state.limit.copy(), case.screen.error - case.screen.fine.error
    case.sharpen(16)
    assert np.isfinite(coarse).all()
    reach = case.state.limit.astype(np.float64) - coarse
    assert (reach >= lost[:, None]).all()
    np.testing.assert_allclose(reach, lost[:, None].repeat(2, 1), rtol=1e-4)


def test_a_row_with_too_few_candidates_is_left_alone(case: Case) -> None:
    before = [a.copy() for a in case.state]
    case.state.counts[3] = before[1][3] = 5
    case.sharpen(16)
    for a, b in zip(case.state, before, strict=True):
        np.testing.assert_array_equal(a[3], b[3])


def test_fine_scores_replace_coarse_ones_in_the_sums(case: Case) -> None:
    typical = case.sharpen(16)
    for r in range(N):
        t = case.coarse[r].astype(np.float64)
        fine = np.zeros(TOKENS, bool)
        for side, sign in (("top", 1.0), ("bottom", -1.0)):
            own = [token for token, score in found(case, side, r).items() if score > 0]
            off = (case.fine[r] - case.coarse[r].astype(np.float64))[np.setdiff1d(own, case.hard)]
            at = 0 if sign > 0 else 1
            np.testing.assert_allclose(typical[at, r], np.sqrt((off**2).mean()), rtol=1e-9)
            fine[own] = fine[case.hard] = True
        u = np.where(fine, case.fine[r], t)
        np.testing.assert_allclose(
            case.state.sums[r, :4],
            [(u**power).sum() for power in (1, 2, 3, 4)],
            rtol=1e-6,
            atol=1e-6 * TOKENS,
        )
        for sign, at in ((1.0, TOP), (-1.0, BOTTOM)):
            reference, total, weighted = case.state.sums[r, at : at + 3]
            y = sign * u - reference
            e = np.exp(y)
            np.testing.assert_allclose((total, weighted), (e.sum(), (e * y).sum()), rtol=1e-5)


@pytest.mark.skipif(not supported(), reason="the processor has no AVX2")
def test_pairs_of_int16_are_multiplied_in_one_instruction() -> None:
    @njit
    def dot(x, w):  # type: ignore[no-untyped-def]
        return _dot(x, 0, w, 0)

    x = np.arange(-32, 32, dtype=np.int16)[None]
    assert dot(x, x) == (x.astype(np.int64) ** 2).sum()
    assert "vpmaddwd" in "".join(dot.inspect_asm().values())


def test_pack_is_undone() -> None:
    """The twin above reads keys: a wrong reading would agree with itself."""
    for score, token in ((1.5, 7), (-2.25, 0), (0.0, 699)):
        key = np.uint64(pack(np.float32(score), token))
        assert (float(score_of(key)), int(token_of(key))) == (score, token)
