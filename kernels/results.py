"""The results of both CPU paths: what blocks fill in, second searches, and the last formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .blocks import INNER, SIGNS, State, each, product
from .exact import LOST, exact_topk, rescore, settle
from .fine import Fine
from .projection import Extremes, Moments, Projection, central_moments, softmax_statistics
from .scaling import Operands, soft
from .scan import BOTTOM, TOP
from .sharpen import sharpen

AGAIN = 64
"""Rows of one second search over the whole vocabulary."""

ONE = 8.0
"""A single logit may be off by so many times more than all may be."""

Again = Callable[[Operands], Projection]
"""Computes some rows again, more precisely."""


class Results:
    """The operands of a projection, and the results of all rows, filled in block by block.

    Logits are in the unit of the products; `projection` gives them their own.
    """

    def __init__(self, operands: Operands, k: int, sides: tuple[str, ...]) -> None:
        n = len(operands.vectors)
        self.operands, self.k = operands, k
        self.x, self.w = operands.vectors.numpy(), operands.given.numpy()
        self.factor = 1.0 / operands.unit
        self.sides = tuple(side for side in SIGNS if side in sides)
        self.ids = {side: np.zeros((n, k), np.int64) for side in self.sides}
        self.logits = {side: np.zeros((n, k)) for side in self.sides}
        self.certified = {side: np.zeros(n, np.bool_) for side in self.sides}
        self.cut = {side: np.zeros(n) for side in self.sides}
        """Every member of a row's true top k has a float32 score of at least this."""
        self.best = {side: np.zeros(n) for side in self.sides}
        """The first score, as the sums know it (see `exact.rescore`)."""
        self.doubt = {side: np.zeros(n) for side in self.sides}
        """What may be wrong with a logsumexp, in nats (see `exact.rescore`)."""
        self.sums, self.before = np.zeros((n, 10)), np.zeros((n, 2))
        """The sums, and those of even powers before exact logits replaced others."""
        self.mean, self.shift = np.zeros(n), np.zeros(n)
        """Exact means of the rows, and what was taken off every logit before it was scanned."""

    def of(self, side: str, rows: slice) -> tuple[np.ndarray, ...]:
        """Logits, ids, certified, cut and best of one side of some rows."""
        arrays = (self.logits, self.ids, self.certified, self.cut, self.best)
        return tuple(array[side][rows] for array in arrays)

    def soft(self, rows: slice = slice(None), shrink: np.ndarray | float = 1.0) -> np.ndarray:
        """[rows] float32: what differences of logits are in nats, if `shrink` [rows] is still to be
        multiplied with them."""
        return soft(self.operands.unit[rows] * shrink)

    def share(self, rows: slice) -> float:
        """Share of some rows certified on all sides."""
        certified = np.all([self.certified[side][rows] for side in self.sides], axis=0)
        return float(certified.mean()) if len(certified) else 1.0

    def settle(
        self, rows: slice, state: State, kept: int, chosen: np.ndarray, bound: np.ndarray
    ) -> None:
        """`exact.settle` of some rows, of which `chosen` are wanted, on all sides."""
        given = self.x[rows], self.w, self.factor[rows], chosen, bound
        for side in self.sides:
            candidates = (*state.side(side), self.k, kept, SIGNS[side])
            settle(*candidates, *given, *self.of(side, rows))

    def scanned(self, rows: slice, state: State, shrink: np.ndarray | float = 1.0) -> None:
        """All logits of some rows were scanned, and the sums are made those of logits times
        `shrink` [rows]."""
        self.before[rows] = state.sums[:, 1:4:2]
        powers = np.power.outer(shrink, [1, 2, 3, 4, 1, 1])
        state.sums[:, [0, 1, 2, 3, TOP, BOTTOM]] *= powers

    def sharpen(
        self, rows: slice, state: State, fine: Fine, coarse: np.ndarray, single: np.ndarray,
        shrink: np.ndarray, centre: np.ndarray, stats: bool,
    ) -> None:  # fmt: skip
        """`sharpen.sharpen` of some rows on all sides; arguments as in `rescore`, before and after
        which there are errors `coarse` and `fine.error` [rows]."""
        errors = coarse, fine.error[rows], self._double(single), fine.unit
        soft, easy = self.soft(rows).astype(np.float64), len(fine.easy)
        given = shrink, soft, centre, easy
        for side in self.sides:
            candidates = (*state.side(side), self.k, SIGNS[side], *fine.operands(rows))
            sums = state.sums if stats else state.sums[:, :0]
            own = sums, self.doubt[side][rows]
            sharpen(*candidates, *errors, *given, *own)  # type: ignore[call-arg]

    def rescore(
        self, rows: slice, state: State, kept: int, chosen: np.ndarray,
        error: tuple[np.ndarray, float], single: np.ndarray, shrink: np.ndarray,
        centre: np.ndarray, stats: bool,
    ) -> None:  # fmt: skip
        """`exact.rescore` of some rows, of which `chosen` are wanted, on all sides.

        Args:
            error: the bound on the error of a scanned logit [rows], and what of its size is added.
            single: [rows] bound on the error of a float32 logit.
            shrink: [rows] what scanned logits were multiplied with in the sums.
            centre: [rows] of the sums.
        """
        sums = state.sums if stats else state.sums[:, :0]
        given = self.x[rows], self.w, self.factor[rows], chosen, *error, self._double(single)
        moved = self.shift[rows], shrink, self.soft(rows).astype(np.float64), centre
        for side in self.sides:
            candidates = (*state.side(side), self.k, kept, SIGNS[side])
            own = sums, self.doubt[side][rows], *self.of(side, rows)
            rescore(*candidates, *given, *moved, *own)
            self.cut[side][rows][chosen] -= single[chosen]

    def _double(self, single: np.ndarray) -> np.ndarray:
        """Bound on the error of a float64 logit, from that of a float32 one."""
        # a float64 sum is made in one piece; the other half of 2^-28 is for x . shift, taken off it
        bound: np.ndarray = single * 2.0**-28 * -(-self.x.shape[1] // INNER)
        return bound

    def _search_again(self, side: str) -> None:
        """Search the rows that are not certified over the whole vocabulary."""
        left, sign = np.flatnonzero(~self.certified[side]), SIGNS[side]

        def search(at: int) -> None:
            rows = left[at : at + AGAIN]
            out = torch.empty(len(rows), len(self.w))
            some = self.operands.rows(torch.from_numpy(rows))
            scores = sign * product(some, self.operands.readout.T, out).numpy()
            for row, own in zip(rows, scores, strict=True):
                close = np.flatnonzero(own >= self.cut[side][row])
                into = self.logits[side][row], self.ids[side][row]
                exact_topk(self.x[row], self.w, self.factor[row], close, self.k, sign, *into)

        each(search, range(0, len(left), AGAIN))

    def projection(
        self, stats: bool, impl: str, noise: np.ndarray, limit: float, again: Again
    ) -> Projection:
        """Everything as the public function returns it, uncertified rows searched again.

        Args:
            noise: [2, n] the typical error of a scanned logit, and that of the worst token, which
                may hide a logit far from all others among them.
            limit: where a logsumexp is in doubt by more nats than this, or the noise is more
                standard deviations of the row, all its statistics are computed `again`.
        """
        for side in self.sides:
            self._search_again(side)
        found = Projection(
            **{side: self._extremes(side, stats) for side in self.sides},
            **dict.fromkeys(set(SIGNS) - set(self.sides)),
            moments=self._moments() if stats else None,
            impl=impl,
            certified=self.share(slice(None)),
        )
        if stats:
            doubt = np.max([self.doubt[side] for side in self.sides], axis=0)
            searched = ~np.all([self.certified[side] for side in self.sides], axis=0)
            lost = (self.before > LOST * self.sums[:, 1:4:2]).any(1)
            typical, worst = noise
            noisy = lost | (np.maximum(typical, worst / ONE) > limit * self._deviation())
            hidden = searched & (worst * self.soft() > ONE * limit)
            correct(found, self.operands, again, noisy, hidden | (doubt > limit))
        return found

    def _deviation(self) -> np.ndarray:
        """[n] standard deviation of each row's scanned logits."""
        first, second = self.sums[:, :2].T / len(self.w)
        deviation: np.ndarray = np.sqrt(np.maximum(second - first**2, 0.0))
        return deviation

    def _moments(self) -> Moments:
        powers = self.sums[:, :4] / len(self.w)
        unit = self.operands.unit
        return central_moments(*map(torch.from_numpy, (powers, self.mean * unit, unit)))

    def _extremes(self, side: str, stats: bool) -> Extremes:
        ids, unit, sign = torch.from_numpy(self.ids[side]), self.operands.unit, SIGNS[side]
        logits = torch.from_numpy(self.logits[side] * unit[:, None]).float()
        if not stats:
            return Extremes(ids, logits)
        at = TOP if side == "top" else BOTTOM
        reference, total, weighted = self.sums[:, at : at + 3].T
        y_best = self.soft() * (self.best[side] - reference)
        reference = (reference + sign * self.shift) * unit
        with np.errstate(all="ignore"):  # rows in doubt are computed again
            columns = (y_best, np.log(total), weighted / total, reference)
        return Extremes(ids, logits, *softmax_statistics(*map(torch.from_numpy, columns)))


def correct(
    found: Projection, operands: Operands, again: Again, noisy: np.ndarray, doubtful: np.ndarray
) -> None:
    """Compute the moments of the rows that are `noisy` [n], and the sides' statistics of those that
    are `doubtful`, again."""
    for parts, wrong in ((("moments",), noisy), (SIGNS, doubtful)):
        rows = np.flatnonzero(wrong)
        if not len(rows):
            continue
        other, at = again(operands.only(rows)), torch.from_numpy(rows)
        for part in parts:
            mine, new = getattr(found, part), getattr(other, part)
            for name in set(mine._fields if mine else ()) - {"ids", "logits"}:
                getattr(mine, name)[at] = getattr(new, name).to(getattr(mine, name))
