"""Stage 2 of the GPU projection: the best of each row from its bins, proven; statistics from tiles.

Of each row and side, m candidates. The m highest elements lie in the m bins with the highest first
elements. Of those bins the first two are candidates; a bin whose second is among the m best may
hide a third, so its 32 logits are computed again. The candidates that may be among the k best are
scored in float64 from the operands as they were given, ties by the lowest id. Whatever was not kept
scored at most what the last candidate did on the screen, so a row is certified when its k-th leads
that by more than the error of a screened logit,

    E = |x - x'| |w'| + |x| |w - w'| + gamma |x'| |w'| + 2^-18 |s|      (maxima over w; x', w' bf16)

gamma is 2 d 2^-23, four times that of IEEE float32 sums: tensor cores may round worse, and nobody
has calibrated it on one yet.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .project import Moments
from .triton_bins import BIN, UNPACKED
from .triton_dots import dots

WIDER = 8
"""Rows that m candidates do not prove are tried once more with this many times m."""
LARGEST = torch.finfo(torch.float32).max


class Readout(NamedTuple):
    """The read-out, its bfloat16 copy in permuted order, and what bounds its errors."""

    exact: Tensor
    rounded: Tensor
    order: Tensor
    """Place in `rounded` -> token id."""
    mean: Tensor
    """Mean row, float32."""
    longest: float
    furthest: float
    """Largest |w'| and |w - w'|."""


class Vectors(NamedTuple):
    """Some rows to project, in bfloat16, and how far off their screened logits may be."""

    exact: Tensor
    rounded: Tensor
    error: Tensor
    """[n] E but for its last summand."""
    lossless: bool
    """Whether bfloat16 holds both operands exactly."""


class Found(NamedTuple):
    ids: Tensor
    scores: Tensor
    """[n, k] float64; of the bottom side, negated logits."""
    certified: Tensor


def prepare(readout: Tensor) -> Readout:
    """Permuted at random: neighbouring ids are alike, and most rows would have a bin with three of
    their best."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(readout), generator=generator).to(readout.device)
    rounded = readout.bfloat16()
    longest, furthest = _longest(rounded), _longest(readout.float() - rounded.float())
    mean = readout.mean(0, dtype=torch.float32)
    return Readout(readout, rounded[order], order, mean, longest, furthest)


def rounded(x: Tensor, w: Readout) -> Vectors:
    narrow = x.bfloat16()
    lost = (x.float() - narrow.float()).norm(dim=1, dtype=torch.float64)
    near = narrow.norm(dim=1, dtype=torch.float64)
    d = x.shape[1]
    gamma = 2 * d * 2.0**-23
    error = lost * w.longest + (near + lost) * w.furthest + gamma * near * w.longest
    tiny = d * 2.0**-124 * (1 + near + lost + w.longest)  # subnormal numbers may be flushed to zero
    # a float32 sum that may overflow bounds nothing
    error = (1.001 * error + tiny).masked_fill(~(near * w.longest < LARGEST), torch.inf)
    return Vectors(x, narrow, error, w.furthest == 0 and not bool(lost.any()))


def _longest(rows: Tensor) -> float:
    return float(rows.norm(dim=1, dtype=torch.float64).max())


def candidates(k: int, d: int, vocabulary: int, lossless: bool) -> int:
    """Candidates a side that certify Gaussian logits: z = 3.7 of them lie within E of the k-th in a
    share that grows as exp(z E / sigma); their number fluctuates by a few sqrt(k)."""
    screen = 2 * d * 2.0**-23 + (0.0 if lossless else 0.0034)
    wanted = k * math.exp(3.7 * screen * math.sqrt(d)) + 4.0 * math.sqrt(k) + 8.0
    return min(math.ceil(wanted), vocabulary)


def best(x: Vectors, w: Readout, keys: Tensor, k: int, sign: int) -> Found:
    """The k best of one side; `keys` [n, bins, 2] are its packed first and second elements.

    Rows that the bins cannot prove are scored against every row of the read-out.
    """
    m = candidates(k, x.exact.shape[1], len(w.exact), x.lossless)
    found = _merged(x, w, keys, k, m, sign)
    certified = found.certified
    left = (~certified).nonzero()[:, 0]
    if len(left) and m < len(w.exact):
        part = Vectors(x.exact[left], x.rounded[left], x.error[left], x.lossless)
        wider = _merged(part, w, keys[left], k, min(WIDER * m, len(w.exact)), sign)
        _put(found, left, wider)
        certified[left] = wider.certified
        left = left[~wider.certified]
    everyone = torch.arange(len(w.exact), device=left.device)[None]
    for row in left[:, None]:
        scores = sign * dots(x.exact, w.exact, row, everyone)
        _put(found, row, _first(everyone, scores, k, certified[row]))
    return found


def _put(found: Found, rows: Tensor, better: Found) -> None:
    found.ids[rows], found.scores[rows] = better.ids, better.scores


def _first(ids: Tensor, scores: Tensor, k: int, certified: Tensor) -> Found:
    """The k highest scores, equal ones by the lowest id."""
    by_id = ids.argsort(dim=1, stable=True)
    ids, scores = ids.gather(1, by_id), scores.gather(1, by_id)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return Found(ids.gather(1, order), scores.gather(1, order), certified)


def _merged(x: Vectors, w: Readout, keys: Tensor, k: int, m: int, sign: int) -> Found:
    places, screened, left_out = _candidates(x, w, keys, m, sign)
    ids = w.order[places.clamp_max(len(w.order) - 1)]
    rows = torch.arange(len(ids), device=ids.device)
    # those behind the k-th by twice the error cannot be among the best: they are not scored
    highest = screened + UNPACKED * screened.abs() + 2 * x.error[:, None]
    close = (highest >= screened[:, k - 1, None]) & (screened > -torch.inf)
    scores = sign * dots(x.exact, w.exact, rows, torch.where(close, ids, -1))
    scores = scores.masked_fill(~close, -torch.inf)
    found = _first(ids, scores, k, torch.ones_like(rows, dtype=torch.bool))
    if m < len(w.exact):
        margin = x.error + UNPACKED * left_out.abs()
        found.certified[:] = found.scores[:, k - 1] > left_out + margin
    return found


def _candidates(
    x: Vectors, w: Readout, keys: Tensor, m: int, sign: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Places in the permuted read-out and scores [n, m] of each row's candidates, and the highest
    screened score [n] that anything else can have. Scores are screened, or exact in a bin that was
    computed again."""
    chosen = keys[..., 0].topk(min(m, keys.shape[1]), dim=1).indices
    values, columns = unpacked(keys.gather(1, chosen[..., None].expand(-1, -1, 2)))
    values = values.double()
    whole = values.flatten(1)
    # what is in no chosen bin is at most this, and so is a third in a bin whose second is below it
    edge = whole.topk(min(m, whole.shape[1]), dim=1).values[:, -1:]
    row, at = (values[..., 1] >= edge).nonzero(as_tuple=True)
    places = (chosen[..., None] * BIN + columns).flatten(1)
    if len(row):
        inside = torch.arange(BIN, device=keys.device)
        hidden = chosen[row, at, None] * BIN + inside
        again = sign * dots(x.exact, w.exact, row, w.order[hidden.clamp_max(len(w.order) - 1)])
        extra = torch.full((*chosen.shape, BIN), -torch.inf, dtype=again.dtype, device=keys.device)
        extra[row, at] = again.masked_fill(hidden >= len(w.order), -torch.inf)
        values[row, at] = -torch.inf
        whole = torch.cat([whole, extra.flatten(1)], 1)
        places = torch.cat([places, (chosen[..., None] * BIN + inside).flatten(1)], 1)
    kept = whole.topk(min(m, whole.shape[1]), dim=1)
    return places.gather(1, kept.indices), kept.values, torch.maximum(kept.values, edge).amin(1)


def unpacked(keys: Tensor) -> tuple[Tensor, Tensor]:
    """(values, column within the bin) of packed keys."""
    column = 31 - (keys & 31)
    ordered = keys & -32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    values = bits.view(torch.float32)
    # an infinity becomes a NaN by being packed: columns beyond the vocabulary are at -inf
    return values.masked_fill(torch.isnan(values), -torch.inf), column


def softmax(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """logsumexp, entropy and largest probability [n] from (max, sum e, sum e*y) of the tiles."""
    peak, total, weighted = sums.double().unbind(-1)
    highest = peak.max(1).values
    shift = peak - highest[:, None]
    scale = shift.exp()
    whole = (scale * total).sum(1)
    drift = (scale * (weighted + torch.where(scale > 0, shift, 0.0) * total)).sum(1)
    entropy = (whole.log() - drift / whole).clamp_min(0.0)
    return (highest + whole.log()).float(), entropy.float(), (1 / whole).clamp_max(1.0).float()


def moments(sums: Tensor, centre: Tensor, vocabulary: int) -> Moments:
    """Central moments from the tiles' power sums about `centre`."""
    p1, p2, p3, p4 = (sums.double().sum(1) / vocabulary).unbind(-1)
    var = (p2 - p1.square()).clamp_min(0.0)
    third = p3 - 3 * p1 * p2 + 2 * p1**3
    fourth = p4 - 4 * p1 * p3 + 6 * p1.square() * p2 - 3 * p1**4
    safe = torch.where(var > 0, var, torch.inf)
    kurtosis = torch.where(var > 0, fourth / safe.square() - 3.0, 0.0)
    columns = (centre.double() + p1, var, third / safe.pow(1.5), kurtosis)
    return Moments(*(column.float() for column in columns))
