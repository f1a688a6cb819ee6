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

import numpy as np
import torch
import triton
from torch import Tensor

from . import triton_scan as scan
from . import triton_select as select
from .exact import LOST
from .projection import SIDES, Extremes, Projection, central_moments, softmax_statistics
from .reference import in_float64
from .results import correct
from .scaling import Operands, scaled
from .triton_error import Readout, prepare, room
from .triton_rows import RowResults, check_twin, in_doubt

ROWS, LOGITS = 4096, 2**29
"""Largest number of rows, and of logits, of a chunk."""
CHECKED = 4
"""Rows of every call that are compared with dense float64 logits."""
MODERATE = 8
"""Exponents that rows and the read-out keep: theirs are small, and no copy is made."""
FRACTION, LOSSLESS_DOUBT, DOUBT = 2.0**-4, 2.0**-9, 2.0**-4
"""As `tiled.FRACTION`, `tiled.DOUBT` and `screened.DOUBT`."""


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
    given = scaled(_readable(vectors), _readable(readout), MODERATE, MODERATE)
    w = prepare(given.readout)._replace(exact=given.given)
    x, as_given = given.vectors, bool((given.factor == 1).all())
    rounded = (x if as_given else given.rows(slice(None))).bfloat16()
    results = RowResults.empty(given, rounded, w, k)
    lossless = x.dtype == w.exact.dtype == torch.bfloat16
    rows = min(ROWS, max(128, LOGITS // len(w.exact) // 128 * 128))
    search = _Search(w, k, sides, stats, lossless, min(len(x), rows))
    for start in range(0, len(x), search.rows):
        at = slice(start, start + search.rows)
        search.chunk(x[at], rounded[at], RowResults(*(tensor[at] for tensor in results)))
    proven = search.settle(x, results)
    projection = _projection(given, results, sides, stats, float(proven.double().mean()))
    if stats:
        limit = LOSSLESS_DOUBT if lossless else DOUBT
        wrong = in_doubt(given, results, sides, proven, limit)
        correct(projection, given, lambda few: in_float64(few, sides), *wrong)
    check_twin(given.only(np.arange(min(len(x), CHECKED))), w, projection, results.error)
    return projection


def _projection(
    given: Operands, results: RowResults, sides: tuple[str, ...], stats: bool, certified: float
) -> Projection:
    unit = torch.from_numpy(given.unit).to(results.mean.device)
    powers = results.sums[:, 6:] / len(given.readout)
    top, bottom = (
        _extremes(results, unit, SIDES.index(side), stats) if side in sides else None
        for side in SIDES
    )
    moments = central_moments(powers, results.mean * unit, unit) if stats else None
    return Projection(top, bottom, moments, "triton", certified)


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
        if self.stats:
            powers = results.sums[:, 7::2]
            before = powers.clone()
            scan.correct_kernel[(len(x),)](
                logits, self.levels, self.ids, results.counts, self.scores, results.best,
                results.mean, results.centre, results.soft, results.error, results.sums,
                len(self.w.exact), self.stride, self.first_side, self.sides, self.room,
                FRACTION if self.lossless else 0.0,
                PART=self._step(select.PART), num_warps=1,
            )  # fmt: skip
            results.lost.copy_((before > LOST * powers).any(1))

    def _step(self, size: int) -> int:
        """Candidates of one step: many in the interpreter, where every step takes as long."""
        return min(self.room, size if self.w.exact.is_cuda else 512)

    def _scan(self, logits: Tensor, results: RowResults) -> None:
        scan.scan_kernel[(len(logits), self.tiles)](
            logits, results.centre, results.soft, self.bins, self.sums,
            len(self.w.exact), self.stride, self.tiles,
            RUNS=scan.RUNS, WIDTH=scan.WIDTH, RUN=scan.RUN, STATS=self.stats, **scan.OPTIONS,
        )  # fmt: skip
        if self.stats:
            scan.merge_kernel[(len(logits),)](
                self.sums, results.centre, results.soft, results.sums, self.tiles,
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
        self._dots(x, results.factor, self.ids, results.counts, self.scores, 2)
        select.rank_kernel[(len(x), self.sides)](
            self.scores, self.ids, results.counts, results.ids, results.logits, results.best,
            self.first_side, self.k, self.room,
            C=self._step(64), PART=self._step(select.PART), num_warps=4,
        )  # fmt: skip

    def _dots(
        self,
        x: Tensor,
        factor: Tensor,
        ids: Tensor,
        candidates: Tensor,
        scores: Tensor,
        programs: int,
    ) -> None:
        d = x.shape[1]
        inner = select.INNER if d % select.INNER == 0 else min(256, triton.next_power_of_2(d))
        select.dots_kernel[(len(x), self.sides, programs)](
            x, factor, self.w.exact, ids, candidates, scores, self.first_side, ids.shape[2],
            D=d, C=self._step(select.BLOCK), K=inner, RUN=min(select.RUN, inner),
            num_warps=max(1, inner // 256),
        )  # fmt: skip

    def settle(self, x: Tensor, results: RowResults) -> Tensor:
        """Score all logits of the rows that are not proven; returns which are, [n]."""
        own = results.counts[:, self.first_side : self.first_side + self.sides]
        proven = ((own >= self.k) & (own <= self.room)).all(1)
        vocabulary = len(self.w.exact)
        everyone = torch.arange(vocabulary, dtype=torch.int32, device=x.device)
        for rows in torch.split((~proven).nonzero()[:, 0], 16):
            ids = everyone.expand(len(rows), 2, -1).contiguous()
            counts = torch.full_like(results.counts[rows], vocabulary)
            scores = torch.full(ids.shape, -torch.inf, dtype=torch.float64, device=x.device)
            programs = triton.cdiv(vocabulary, 256)
            self._dots(x[rows], results.factor[rows], ids, counts, scores, programs)
            best = scores.argsort(dim=2, descending=True, stable=True)[..., : self.k]
            found = scores.gather(2, best)
            results.ids[rows], results.best[rows] = best, found[..., 0]
            results.logits[rows] = found
            results.logits[rows, 1] *= -1
        return proven


def _extremes(results: RowResults, unit: Tensor, side: int, stats: bool) -> Extremes:
    ids, logits = results.ids[:, side], (results.logits[:, side] * unit[:, None]).float()
    if not stats:
        return Extremes(ids, logits)
    largest, total, weighted = results.sums[:, [side, 2 + 2 * side, 3 + 2 * side]].unbind(1)
    y_best = results.soft * (results.best[:, side] - largest)
    mean_y = weighted / total * math.log(2)  # the kernels' e is a power of 2
    return Extremes(ids, logits, *softmax_statistics(y_best, total.log(), mean_y, largest * unit))
