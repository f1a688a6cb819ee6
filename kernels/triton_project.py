"""The projection on a GPU: bfloat16 products, float32 logits, the best of each row proven.

The vectors are handled in chunks. cuBLAS multiplies a chunk into a buffer of float32 logits. One
pass over it keeps the bins' extremes and the statistics (`triton_scan.py`). What may be among the
best is scored in float64 and ranked (`triton_select.py`). The CPU does not wait between chunks.

Precision: ids are those of a float64 product of the operands as given; of equal logits the lowest
id comes first. Logits are float64 rounded to float32, and the mean is float64's. All other
statistics are float32 sums over the logits of the bfloat16 product. They are exact to rounding
where bfloat16 holds the operands, and corrected elsewhere (`triton_scan.correct_kernel`).
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from . import triton_scan as scan
from . import triton_select as select
from .projection import SIDES, Extremes, Projection, central_moments, softmax_statistics
from .triton_error import Readout, errors, prepare, room
from .triton_lengths import lengths

ROWS, LOGITS = 4096, 2**29
"""Largest number of rows, and of logits, of a chunk."""
CHECKED = 4
"""Rows of every call that are compared with dense float64 logits."""


class RowResults(NamedTuple):
    """Results of all rows; a side that was not asked for is left empty."""

    ids: Tensor
    """[n, 2, k] int64"""
    logits: Tensor
    """[n, 2, k] float32"""
    counts: Tensor
    """[n, 2] int32, numbers of candidates"""
    sums: Tensor
    """[n, 10] float64, see `triton_scan.merge_kernel`"""
    error: Tensor
    """[n] float64, E of `triton_error.py`"""
    mean: Tensor
    """[n] float64, of all of a row's logits"""
    centre: Tensor
    """[n] float32, the same mean, taken off before powers are summed"""

    @staticmethod
    def empty(x: Tensor, rounded: Tensor, w: Readout, k: int) -> RowResults:
        n, d = x.shape
        length, loss, mean = lengths(x, rounded, w.mean)
        return RowResults(
            torch.empty(n, 2, k, dtype=torch.int64, device=x.device),
            torch.empty(n, 2, k, device=x.device),
            torch.zeros(n, 2, dtype=torch.int32, device=x.device),
            torch.empty(n, scan.SUMS, dtype=torch.float64, device=x.device),
            errors(length, loss, d, w),
            mean,
            mean.float(),
        )

    def rows(self, at: slice) -> RowResults:
        return RowResults(*(tensor[at] for tensor in self))


def project_triton(
    vectors: Tensor, readout: Tensor, k: int, sides: tuple[str, ...], stats: bool
) -> Projection:
    """See `project_topk`. Runs where the tensors are: a GPU, or the CPU under the interpreter.

    bfloat16 and float16 operands are read as they are; others as float32.

    Raises:
        ValueError: operands on a device that Triton does not run on here.
        RuntimeError: the first rows differ from dense float64 logits.
    """
    if vectors.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"impl='triton' runs on a GPU, not on {vectors.device}: use 'auto'")
    x, w = _readable(vectors), prepare(_readable(readout))
    rounded = x.bfloat16()
    results = RowResults.empty(x, rounded, w, k)
    lossless = x.dtype == w.exact.dtype == torch.bfloat16
    rows = min(ROWS, max(128, LOGITS // len(w.exact) // 128 * 128))
    search = _Search(w, k, sides, stats, lossless, min(len(x), rows))
    for start in range(0, len(x), search.rows):
        at = slice(start, start + search.rows)
        search.chunk(x[at], rounded[at], results.rows(at))
    certified = search.settle(x, results)
    top, bottom = (_extremes(results, SIDES.index(s), stats) if s in sides else None for s in SIDES)
    powers = results.sums[:, 6:] / len(w.exact)
    moments = central_moments(powers, results.mean) if stats else None
    projection = Projection(top, bottom, moments, "triton", certified)
    _check_twin(x[:CHECKED], w, projection, results.error[:CHECKED, None])
    return projection


def _readable(operand: Tensor) -> Tensor:
    half = operand.dtype in (torch.bfloat16, torch.float16)
    return (operand if half else operand.float()).contiguous()


class _Search:
    """The buffers of a projection, and the work on a chunk of its rows."""

    def __init__(
        self, w: Readout, k: int, sides: tuple[str, ...], stats: bool, lossless: bool, rows: int
    ) -> None:
        self.w, self.k, self.stats, self.lossless = w, k, stats, lossless
        self.rows = max(rows, 1)
        vocabulary, d = w.exact.shape
        self.first_side, self.sides = SIDES.index("top" if "top" in sides else "bottom"), len(sides)
        self.room = room(k, d, vocabulary)
        self.tiles = triton.cdiv(vocabulary, scan.TILE)
        self.stride = triton.cdiv(vocabulary, 16) * 16  # 16 bytes at a time in every row

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(*shape, dtype=dtype, device=w.exact.device)

        self.logits = new(self.rows, self.stride)
        self.bins = new(self.rows, 2, self.tiles * scan.PER_TILE)
        self.sums = new(self.rows if stats else 0, self.tiles, scan.SUMS)
        self.levels = new(self.rows, 2)
        self.list = new(self.rows, 2, self.room, dtype=torch.int32)
        self.listed = new(self.rows, 2, dtype=torch.int32)
        self.ids = torch.empty_like(self.list)
        self.scores = new(self.rows, 2, self.room, dtype=torch.float64)

    def chunk(self, x: Tensor, rounded: Tensor, results: RowResults) -> None:
        """All the work on some rows x, of which `rounded` is the bfloat16 copy."""
        logits = self.logits[: len(x)]
        out = logits[:, : len(self.w.rounded)]
        if x.is_cuda:
            torch.mm(rounded, self.w.rounded.T, out_dtype=torch.float32, out=out)
        else:
            out.copy_(rounded.float() @ self.w.rounded.float().T)
        self._scan(logits, results)
        self._candidates(logits, results)
        self._rank(x, results)
        if self.stats and not self.lossless:
            scan.correct_kernel[(len(x),)](
                logits, self.levels, self.ids, results.counts, self.scores, results.mean,
                results.centre, results.sums,
                len(self.w.exact), self.stride, self.first_side, self.sides, self.room,
                PART=self._step(select.PART), num_warps=1,
            )  # fmt: skip

    def _step(self, size: int) -> int:
        """Candidates of one step: many in the interpreter, where every step takes as long."""
        return min(self.room, size if self.w.exact.is_cuda else 512)

    def _scan(self, logits: Tensor, results: RowResults) -> None:
        scan.scan_kernel[(len(logits), self.tiles)](
            logits, results.centre, self.bins, self.sums,
            len(self.w.exact), self.stride, self.tiles,
            RUNS=scan.RUNS, WIDTH=scan.WIDTH, RUN=scan.RUN, STATS=self.stats, **scan.OPTIONS,
        )  # fmt: skip
        if self.stats:
            scan.merge_kernel[(len(logits),)](
                self.sums, results.sums, self.tiles,
                TILES=triton.next_power_of_2(self.tiles), num_warps=1,
            )  # fmt: skip

    def _candidates(self, logits: Tensor, results: RowResults) -> None:
        grid = (len(logits), self.sides)
        groups = min(8192, max(128, 8 * triton.next_power_of_2(self.k)))
        select.levels_kernel[grid](
            self.bins, results.error, self.levels, self.list, self.listed,
            self.bins.shape[2], self.first_side, self.k, self.room,
            GROUPS=groups, STEP=max(groups, 2048), num_warps=1 if groups <= 1024 else 4,
        )  # fmt: skip
        select.candidates_kernel[grid](
            logits, self.levels, self.list, self.listed, self.ids, results.counts,
            len(self.w.exact), self.stride, self.first_side, self.room,
            RUNS=scan.RUNS, WIDTH=scan.WIDTH, RUN=scan.RUN, PART=self._step(select.BINS),
            num_warps=1,
        )  # fmt: skip

    def _rank(self, x: Tensor, results: RowResults) -> None:
        self._dots(x, self.ids, results.counts, self.scores, 2)
        select.rank_kernel[(len(x), self.sides)](
            self.scores, self.ids, results.counts, results.ids, results.logits,
            self.first_side, self.k, self.room,
            C=self._step(64), PART=self._step(select.PART), num_warps=4,
        )  # fmt: skip

    def _dots(
        self, x: Tensor, ids: Tensor, candidates: Tensor, scores: Tensor, programs: int
    ) -> None:
        d = x.shape[1]
        inner = select.INNER if d % select.INNER == 0 else min(256, triton.next_power_of_2(d))
        select.dots_kernel[(len(x), self.sides, programs)](
            x, self.w.exact, ids, candidates, scores, self.first_side, ids.shape[2],
            D=d, C=self._step(select.BLOCK), K=inner, RUN=min(select.RUN, inner),
            num_warps=max(1, inner // 256),
        )  # fmt: skip

    def settle(self, x: Tensor, results: RowResults) -> float:
        """Score all logits of the rows that are not proven; returns the share of those that are."""
        own = results.counts[:, self.first_side : self.first_side + self.sides]
        proven = ((own >= self.k) & (own <= self.room)).all(1)
        proven &= results.error.isfinite()  # or logits that overflowed to NaN are no candidates
        left = (~proven).nonzero()[:, 0]
        vocabulary = len(self.w.exact)
        everyone = torch.arange(vocabulary, dtype=torch.int32, device=x.device)
        for rows in torch.split(left, 16):
            ids = everyone.expand(len(rows), 2, -1).contiguous()
            counts = torch.full_like(results.counts[rows], vocabulary)
            scores = torch.full(ids.shape, -torch.inf, dtype=torch.float64, device=x.device)
            self._dots(x[rows], ids, counts, scores, triton.cdiv(vocabulary, 256))
            best = scores.argsort(dim=2, descending=True, stable=True)[..., : self.k]
            results.ids[rows] = best
            results.logits[rows] = scores.gather(2, best).float()
            results.logits[rows, 1] *= -1
        return 1 - len(left) / max(len(x), 1)


def _extremes(results: RowResults, side: int, stats: bool) -> Extremes:
    ids, logits = results.ids[:, side], results.logits[:, side]
    if not stats:
        return Extremes(ids, logits)
    largest, total, weighted = results.sums[:, [side, 2 + 2 * side, 3 + 2 * side]].unbind(1)
    best = logits[:, 0] if side == 0 else -logits[:, 0]
    mean_y = weighted / total * math.log(2)  # the kernels' e is a power of 2
    return Extremes(ids, logits, *softmax_statistics(best, total.log(), mean_y, largest))


def _check_twin(vectors: Tensor, w: Readout, projection: Projection, error: Tensor) -> None:
    """Compare the first rows [r, d], whose E is error [r, 1], with dense float64 logits.

    The proof trusts the screen. This check does not, because no test may have seen this compiler or
    device.

    Raises:
        RuntimeError: an id that is not among the best, or a wrong logsumexp.
    """
    x = vectors.double()
    logits = torch.cat([x @ part.double().T for part in torch.split(w.exact, 8192)], 1)
    # float64 products round too, and may add in a different order
    close = 1e-8 * error + 1e-300
    for sign, side in ((1, projection.top), (-1, projection.bottom)):
        if side is None:
            continue
        ids = side.ids[: len(x)]
        want = (sign * logits).topk(ids.shape[1], dim=1).values
        wrong = ((sign * logits).gather(1, ids) - want).abs() > close
        if side.logsumexp is not None:
            whole = (sign * logits).logsumexp(1)
            drift = (side.logsumexp[: len(x)].double() - whole).abs()[:, None]
            wrong = wrong | (drift > error + 1e-5 * (1 + whole.abs()[:, None]))
        if wrong.any():
            raise RuntimeError("the Triton projection differs from dense logits: use impl='naive'")
