"""The fused projection on a GPU: bfloat16 products, bins by Triton, the best of each row proven.

Stage 1 (`triton_bins.py`) leaves, of each row and bin of 32 columns, the two highest and two lowest
logits, and sums for the statistics. Two producers under one contract: "buffer" (P1) multiplies a
chunk of rows with cuBLAS into a float32 buffer and reads it once; "fused" (P2) never writes a
logit. "wide" is "fused" with tiles of 256 columns: it reads less and keeps more in registers.

Stage 2 (`triton_merge.py`) finds the best of each row. Precision: operands in bfloat16, sums in
float32 on the screen; ids and logits are those of a float64 product of the operands as they were
given (`triton_dots.py`), as on the CPU. Statistics are sums over the screened logits: exact to
float32's sums where bfloat16 holds the operands, else as good as a bfloat16 product's.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from torch import Tensor

from .project import Extremes, Projection
from .triton_bins import BIN, SUMS, fused_kernel, scan_kernel
from .triton_merge import Readout, best, moments, prepare, rounded, softmax

Producer = Literal["auto", "buffer", "fused", "wide"]
COLUMNS = {"buffer": 128, "fused": 128, "wide": 256}
"""Columns of a tile."""
ROWS = 4096
"""Rows whose bins are held at once."""
CHECKED = 4
"""Rows of every call that are compared with a dense twin."""
FUSED_BELOW = 3000
"""Widths below which the fused producer is expected to win (an estimate: none was measured)."""


def project_triton(
    vectors: Tensor,
    readout: Tensor,
    k: int,
    sides: tuple[str, ...],
    stats: bool,
    producer: Producer = "auto",
) -> Projection:
    """See `project_topk`. Runs where the tensors are: a GPU, or the CPU under the interpreter.

    bfloat16 and float16 operands are read as they are; others as float32.

    Raises:
        ValueError: operands on a device that Triton does not run on here.
        RuntimeError: the first rows are not their dense twin's.
    """
    if vectors.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"impl='triton' runs on a GPU, not on {vectors.device}: use 'auto'")
    vectors, readout = _readable(vectors), _readable(readout)
    if producer == "auto":
        producer = "fused" if vectors.shape[1] < FUSED_BELOW else "buffer"
    w = prepare(readout)
    parts = [_chunk(x, w, k, sides, stats, producer) for x in torch.split(vectors, ROWS)]
    proven = sum(int(part.certified or 0) for part in parts)
    found = Projection(
        top=_joined([part.top for part in parts]),
        bottom=_joined([part.bottom for part in parts]),
        moments=_joined([part.moments for part in parts]),
        impl=f"triton {producer}",
        certified=proven / max(len(vectors), 1),
    )
    _check_twin(vectors[:CHECKED], w, found)
    return found


def _readable(operand: Tensor) -> Tensor:
    narrow = operand.dtype in (torch.bfloat16, torch.float16)
    return (operand if narrow else operand.float()).contiguous()


def _joined(parts: list) -> Any:
    if parts[0] is None:
        return None
    columns = zip(*parts, strict=True)
    return type(parts[0])(*(None if c[0] is None else torch.cat(c) for c in columns))


def _chunk(
    x: Tensor, w: Readout, k: int, sides: tuple[str, ...], stats: bool, producer: Producer
) -> Projection:
    """One chunk of rows; `certified` counts the rows proven on all sides."""
    own = rounded(x, w)
    centre = x.float() @ w.mean if stats else torch.zeros(len(x), device=x.device)
    bins, sums = _produce(own.rounded, w.rounded, centre, stats, producer)
    found: dict[str, Extremes] = {}
    certified = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for side, sign, at in (("top", 1, 0), ("bottom", -1, 1)):
        if side in sides:
            first = best(own, w, bins[..., 2 * at : 2 * at + 2], k, sign)
            certified &= first.certified
            soft = softmax(sums[..., 3 * at : 3 * at + 3]) if stats else (None, None, None)
            found[side] = Extremes(first.ids, (sign * first.scores).float(), *soft)
    kept = moments(sums[..., 6:], centre, len(w.exact)) if stats else None
    return Projection(found.get("top"), found.get("bottom"), kept, "", int(certified.sum()))


def _produce(
    x: Tensor, w: Tensor, centre: Tensor, stats: bool, producer: Producer
) -> tuple[Tensor, Tensor]:
    """bins [n, bins, 4] and sums [n, tiles, 10] (empty without statistics)."""
    (n, d), vocabulary, columns = x.shape, len(w), COLUMNS[producer]
    tiles = -(-vocabulary // columns)
    bins = torch.empty(n, tiles * (columns // BIN), 4, dtype=torch.int32, device=x.device)
    sums = torch.empty(n, tiles if stats else 0, SUMS, device=x.device)
    interpreted = x.device.type == "cpu"
    if producer == "buffer":
        if interpreted:
            logits = x.float() @ w.float().T
        else:
            logits = torch.mm(x, w.T, out_dtype=torch.float32)
        scan_kernel[(-(-n // 16), tiles)](
            logits, centre, bins, sums, n, vocabulary, tiles, vocabulary,
            M=16, N=columns, STATS=stats, num_warps=4,
        )  # fmt: skip
    else:
        programs = 4 if interpreted else _multiprocessors(x.device)
        fused_kernel[(programs,)](
            x, w, centre, bins, sums, n, vocabulary, tiles, programs,
            D=d, M=128, N=columns, K=64, BAND=12, STATS=stats, UPCAST=interpreted,
            num_warps=8, num_stages=3,
        )  # fmt: skip
    return bins, sums


def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _check_twin(vectors: Tensor, w: Readout, found: Projection) -> None:
    """The first rows against dense float64 logits, on the spot: a kernel that no test has run on
    this device must not be believed. The certificate trusts the screen; this does not.

    Raises:
        RuntimeError: an id that is not among the best, or a wrong logsumexp.
    """
    x = vectors.double()
    logits = torch.cat([x @ part.double().T for part in torch.split(w.exact, 8192)], 1)
    error = rounded(vectors, w).error[:, None]
    # float64 products round too, and may add in another order
    close = 1e-9 * error + 1e-300
    for sign, side in ((1, found.top), (-1, found.bottom)):
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
            raise RuntimeError("the Triton projection is not its dense twin's: use impl='naive'")
