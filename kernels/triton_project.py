"""The fused projection on a GPU: bfloat16 products, bins by Triton, merged and proven by torch.

Stage 1 (`triton_bins.py`) leaves, of each row and bin of 32 columns, the two highest and two lowest
logits. Two producers under one contract: "buffer" (P1) multiplies a chunk of rows with cuBLAS into
a float32 buffer and reads it once; "fused" (P2) never writes a logit.

Stage 2, here, a row: the m highest elements lie in the m bins with the highest first elements. Of
those bins the first two are candidates; a bin whose second is among the m best may hide a third,
so its 32 logits are computed again. The m candidates are scored in float64 from the operands as
they were given, ties by the lowest id. A row is certified when its k-th candidate leads whatever
was not kept by more than the error of a screened logit,

    E = |x - x'| |w'| + |x| |w - w'| + gamma |x'| |w'| + 2^-18 |s|      (maxima over w; x', w' bf16)

and is computed again densely in float64 otherwise. So ids are those of a float64 product, as on the
CPU. gamma is 2 d 2^-23: tensor cores may round worse than IEEE additions do, and nobody has
calibrated it on one yet.

The read-out's rows are permuted once: neighbouring ids are alike, and without it most rows would
have a bin with three of their best. Statistics are sums over the screened logits.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .project import Extremes, Moments, Projection
from .reference import project_dense
from .triton_bins import BIN, SUMS, TILE, UNPACKED, fused_kernel, scan_kernel

Producer = Literal["auto", "buffer", "fused"]
ROWS = 4096
"""Rows whose bins are held at once."""
SPARE, SPARE_ROUNDED = 8, 48
"""Candidates beyond k: where bfloat16 loses nothing of the operands, and where it does."""
CHECKED = 4
"""Rows of every call that are compared with the dense twin."""
FUSED_BELOW = 3000
"""Widths below which the fused producer is expected to win (an estimate: none was measured)."""


class _Readout(NamedTuple):
    """The read-out, its bfloat16 copy in permuted order, and what bounds its errors."""

    exact: Tensor
    rounded: Tensor
    order: Tensor
    """Place in `rounded` -> token id."""
    longest: float
    furthest: float
    """Largest |w'| and |w - w'|."""


def project_triton(
    vectors: Tensor,
    readout: Tensor,
    k: int,
    sides: tuple[str, ...],
    stats: bool,
    producer: Producer = "auto",
) -> Projection:
    """See `project_topk`. Runs where the tensors are: a GPU, or the CPU under the interpreter."""
    vectors, readout = vectors.float(), readout.float()
    if producer == "auto":
        producer = "fused" if vectors.shape[1] < FUSED_BELOW else "buffer"
    prepared = _prepare(readout)
    parts = [_chunk(x, prepared, k, sides, stats, producer) for x in torch.split(vectors, ROWS)]
    _check_twin(vectors, readout, parts, k, sides)
    proven = sum(int(part.certified or 0) for part in parts)
    return Projection(
        top=_joined([part.top for part in parts]),
        bottom=_joined([part.bottom for part in parts]),
        moments=_joined([part.moments for part in parts]),
        impl=f"triton {producer}",
        certified=proven / max(len(vectors) * len(sides), 1),
    )


def _check_twin(
    vectors: Tensor, readout: Tensor, parts: list[Projection], k: int, sides: tuple[str, ...]
) -> None:
    """The first rows against the dense float64 twin, on the spot: a kernel that no test has run on
    this device must not be believed. The certificate trusts the screen; this does not.

    Raises:
        RuntimeError: they differ.
    """
    if not parts:
        return
    rows = vectors[:CHECKED].double()
    want = project_dense(rows, readout.double(), k, sides, False)
    for ours, twin in ((parts[0].top, want.top), (parts[0].bottom, want.bottom)):
        if (
            ours is not None
            and twin is not None
            and not torch.equal(ours.ids[: len(rows)], twin.ids)
        ):
            raise RuntimeError("the Triton projection is not its dense twin's: use impl='naive'")


def _prepare(readout: Tensor) -> _Readout:
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(readout), generator=generator).to(readout.device)
    rounded = readout.bfloat16()
    lengths = torch.linalg.vector_norm(rounded.double(), dim=1)
    lost = torch.linalg.vector_norm(readout.double() - rounded.double(), dim=1)
    permuted = rounded[order].contiguous()
    return _Readout(readout, permuted, order, float(lengths.max()), float(lost.max()))


def _joined(parts: list) -> Any:
    if not parts or parts[0] is None:
        return None
    columns = zip(*parts, strict=True)
    kind = type(parts[0])
    return kind(*(None if c[0] is None else torch.cat(c) for c in columns))


def _chunk(
    x: Tensor, w: _Readout, k: int, sides: tuple[str, ...], stats: bool, producer: Producer
) -> Projection:
    """One chunk of rows; `certified` counts its proven (row, side) pairs."""
    rounded = x.bfloat16()
    mean = w.exact.mean(0)
    centre = x @ mean if stats else x.new_zeros(len(x))
    bins, sums = _produce(rounded, w.rounded, centre, stats, producer)
    spare = SPARE if w.furthest == 0 and torch.equal(rounded.to(x.dtype), x) else SPARE_ROUNDED
    found: dict[str, Extremes] = {}
    proven = 0
    for side, sign, first in (("top", 1, 0), ("bottom", -1, 3)):
        if side in sides:
            keys = bins[..., 0:2] if side == "top" else bins[..., 2:4]
            ids, logits, certified = _side(x, rounded, w, keys, k, sign, spare)
            proven += int(certified.sum())
            again = (~certified).nonzero()[:, 0]
            if len(again):
                exact = project_dense(x[again].double(), w.exact.double(), k, (side,), False)
                extremes = exact.top if side == "top" else exact.bottom
                assert extremes is not None
                ids[again], logits[again] = extremes.ids, extremes.logits.to(logits)
            soft = _softmax(sums[..., first : first + 3]) if stats else (None, None, None)
            found[side] = Extremes(ids, logits, *soft)
    moments = _moments(sums[..., 6:], centre, len(w.exact)) if stats else None
    return Projection(found.get("top"), found.get("bottom"), moments, "triton", proven)


def _produce(
    x: Tensor, w: Tensor, centre: Tensor, stats: bool, producer: Producer
) -> tuple[Tensor, Tensor]:
    """bins [n, bins, 4] and sums [n, tiles, 10] (empty without statistics)."""
    n, d, vocabulary = len(x), x.shape[1], len(w)
    tiles = -(-vocabulary // TILE)
    bins = torch.empty(n, tiles * (TILE // BIN), 4, dtype=torch.int32, device=x.device)
    sums = torch.empty(n, tiles if stats else 0, SUMS, dtype=torch.float32, device=x.device)
    interpreted = x.device.type == "cpu"
    if producer == "buffer":
        if interpreted:
            logits = x.float() @ w.float().T
        else:
            logits = torch.mm(x, w.T, out_dtype=torch.float32)
        scan_kernel[(-(-n // 16), tiles)](
            logits, centre.float(), bins, sums, n, vocabulary, tiles, logits.stride(0),
            M=16, STATS=stats, num_warps=4,
        )  # fmt: skip
    else:
        programs = 4 if interpreted else _multiprocessors(x.device)
        fused_kernel[(programs,)](
            x.contiguous(), w, centre.float(), bins, sums, n, vocabulary, tiles, programs,
            D=d, M=128, K=64, BAND=12, STATS=stats, UPCAST=interpreted, num_warps=8, num_stages=3,
        )  # fmt: skip
    return bins, sums


def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _unpacked(keys: Tensor) -> tuple[Tensor, Tensor]:
    """(values, column within the bin) of packed keys."""
    column = 31 - (keys & 31)
    ordered = keys & -32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    values = bits.view(torch.float32)
    # logits are finite: only columns beyond the vocabulary, at -inf, become NaN by being packed
    return values.masked_fill(torch.isnan(values), -torch.inf), column


def _side(
    x: Tensor, rounded: Tensor, w: _Readout, keys: Tensor, k: int, sign: int, spare: int
) -> tuple[Tensor, Tensor, Tensor]:
    """ids [n, k], logits [n, k] and whether they are proven [n], for one side of one chunk."""
    n, vocabulary = len(x), len(w.exact)
    m = min(k + spare, vocabulary)
    best = keys[..., 0].topk(min(m, keys.shape[1]), dim=1).indices
    places, values = _candidates(rounded, w, keys, best, m, sign)
    ids = w.order[places.clamp_max(vocabulary - 1)]
    scores = torch.einsum("nmd,nd->nm", w.exact[ids].double(), x.double()) * sign
    scores = scores.masked_fill(values == -torch.inf, -torch.inf)
    by_id = ids.argsort(dim=1, stable=True)
    ids, scores = ids.gather(1, by_id), scores.gather(1, by_id)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    ids, scores = ids.gather(1, order), scores.gather(1, order)
    if m == vocabulary:
        certified = torch.ones(n, dtype=torch.bool, device=x.device)
    else:
        least = values.min(1).values.double()
        certified = scores[:, k - 1] > least + _error(x, rounded, w) + UNPACKED * least.abs()
    return ids, (sign * scores).float(), certified


def _candidates(
    rounded: Tensor, w: _Readout, keys: Tensor, best: Tensor, m: int, sign: int
) -> tuple[Tensor, Tensor]:
    """Places in the permuted read-out and screened scores [n, m] of each row's candidates."""
    chosen = keys.gather(1, best[..., None].expand(-1, -1, 2))
    values, columns = _unpacked(chosen)
    places = best[..., None] * BIN + columns
    # an element outside is at most this: the m-th of the bins' first elements, or a third in a bin
    edge = values.flatten(1).topk(min(m, values[0].numel()), dim=1).values[:, -1:]
    hiding = values[..., 1] >= edge
    row, at = hiding.nonzero(as_tuple=True)
    if len(row):
        bins = best[row, at]
        inside = bins[:, None] * BIN + torch.arange(BIN, device=bins.device)
        real = inside < len(w.rounded)
        weights = w.rounded[inside.clamp_max(len(w.rounded) - 1)].float()
        again = sign * torch.einsum("bcd,bd->bc", weights, rounded[row].float())
        extra = torch.full((*best.shape, BIN), -torch.inf, device=values.device)
        extra[row, at] = again.masked_fill(~real, -torch.inf)
        values = values.masked_fill(hiding[..., None], -torch.inf)
        whole = torch.cat([values.flatten(1), extra.flatten(1)], 1)
        everywhere = best[..., None] * BIN + torch.arange(BIN, device=best.device)
        all_places = torch.cat([places.flatten(1), everywhere.flatten(1)], 1)
    else:
        whole, all_places = values.flatten(1), places.flatten(1)
    kept = whole.topk(min(m, whole.shape[1]), dim=1)
    return all_places.gather(1, kept.indices), kept.values


def _error(x: Tensor, rounded: Tensor, w: _Readout) -> Tensor:
    """[n] largest |screened - exact| of a row's logits, before packing."""
    near = torch.linalg.vector_norm(rounded.double(), dim=1)
    lost = torch.linalg.vector_norm(x.double() - rounded.double(), dim=1)
    whole = torch.linalg.vector_norm(x.double(), dim=1)
    gamma = 2 * x.shape[1] * 2.0**-23
    found: Tensor = lost * w.longest + whole * w.furthest + gamma * near * w.longest
    return 1.001 * found


def _softmax(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """logsumexp, entropy and largest probability [n] from (max, sum e, sum e*y) of the tiles."""
    peak, total, weighted = sums.double().unbind(-1)
    highest = peak.max(1).values
    shift = peak - highest[:, None]
    scale = shift.exp()
    whole = (scale * total).sum(1)
    drift = (scale * (weighted + torch.where(scale > 0, shift, 0.0) * total)).sum(1)
    entropy = (whole.log() - drift / whole).clamp_min(0.0)
    return (highest + whole.log()).float(), entropy.float(), (1 / whole).clamp_max(1.0).float()


def _moments(sums: Tensor, centre: Tensor, vocabulary: int) -> Moments:
    """Central moments from the tiles' power sums about `centre`."""
    p1, p2, p3, p4 = (sums.double().sum(1) / vocabulary).unbind(-1)
    var = (p2 - p1.square()).clamp_min(0.0)
    third = p3 - 3 * p1 * p2 + 2 * p1**3
    fourth = p4 - 4 * p1 * p3 + 6 * p1.square() * p2 - 3 * p1**4
    safe = torch.where(var > 0, var, torch.inf)
    kurtosis = torch.where(var > 0, fourth / safe.square() - 3.0, 0.0)
    columns = (centre.double() + p1, var, third / safe.pow(1.5), kurtosis)
    return Moments(*(column.float() for column in columns))
