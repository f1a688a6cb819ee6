"""Batched fused projection of many vectors against a vocabulary.

Projects `vectors [n, d]` (neuron rows, SAE decoder rows, feature vectors) through a read-out
`readout [V, d]` (an unembedding) and keeps, per vector, the k highest and k lowest logits with
their token ids and the statistics of the whole row. The n x V product never exists in memory.
Equivalent naive code, which `impl="naive"` runs:

    L = vectors @ readout.T
    L.topk(k); (-L).topk(k); L.logsumexp(1); L.mean(1); L.var(1); ...
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from .projection import SIDES, Projection, Side
from .scaling import scaled

if TYPE_CHECKING:
    from .rounding import Format

Impl = Literal["auto", "screened", "screened8", "screened16", "tiled", "triton", "naive"]


def project_topk(
    vectors: Float[Tensor, "n d"],
    readout: Float[Tensor, "V d"],
    k: int = 16,
    *,
    sides: tuple[Side, ...] = SIDES,
    stats: bool = True,
    impl: Impl = "auto",
) -> Projection:
    """Top-k and bottom-k logits and row statistics of `vectors @ readout.T`.

    Args:
        vectors: [n, d], d at least 1, any float dtype; computed in float32 (bf16 and fp16 lose
            nothing, of float64 numbers below 1e-45 become zeros: scale such rows first).
        readout: [V, d], on the same device.
        k: logits kept per side, at most V.
        sides: which ends of each row to keep.
        stats: also moments, logsumexp, entropy and the largest probability.
        impl: which path computes it.
            "tiled": the fused CPU path in float32. Ids are those of a float64 product of the
            float32 operands; of equal logits the lowest id comes first. Statistics that float32
            logits do not give (large ones, rows that hardly differ) come from float64.
            "screened": a CPU path with the same ids, proven after a screen in bfloat16. Logits are
            good to float32's last place. All statistics but the mean are sums over screened logits,
            off by up to 3.5e-3 (the largest of any statistic in the table of docs/kernels.md, of
            logits that spread by 1; other data may have twice as much). Rows in doubt are computed
            in "tiled".
            "screened16": the same in int16 (processors with AVX2), off by up to 4.1e-4.
            "screened8": the same in int8 (VNNI), candidates in int16 before they are in float64;
            off by up to 6.8e-3.
            "triton": the GPU path, with the same ids, proven after bfloat16 products. Statistics
            are sums over these, exact to float32's rounding where bfloat16 holds the operands. The
            first rows of every call are compared with dense float64 logits.
            "naive": dense, a chunk of rows at a time, on any device. Ids are those of float32.
            "auto": on the CPU the first of "screened", "screened8", "screened16" that the processor
            multiplies in hardware, if the job is large enough and most of its first rows can be
            certified, else "tiled"; on an NVIDIA GPU "triton" where it is installed; "naive"
            elsewhere.

    Deterministic: the same call gives the same bits, on any number of threads (but for "naive",
    whose sums are torch's). Skewness and kurtosis are the same bits for a row times a power of 2 in
    "naive" and, of rows not in doubt, the screened paths; in "tiled" they may differ by 1e-6.
    A result that float32 does not hold, as logits of more than 3.4e38, is an infinity; other rows
    do not notice.

    Raises:
        ValueError: shapes, k or dtypes that do not fit, an unknown side or `impl`, or a value that
            is not finite or that float32 does not hold.
    """
    _check(vectors, readout, k, sides)
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be one of {', '.join(get_args(Impl))}, not {impl!r}")
    device = vectors.device.type
    if impl == "auto" and device != "cpu":
        impl = "triton" if device == "cuda" and find_spec("triton") else "naive"
    vectors, readout = vectors.detach(), readout.detach()
    _check_range(vectors, "vectors")
    _check_range(readout, "readout")
    if impl == "triton":
        if not find_spec("triton"):
            raise ValueError("impl='triton' needs triton: pip install 'interp-workbench[gpu]'")
        from .triton_project import project_triton

        return project_triton(vectors, readout, k, sides, stats)
    vectors, readout = vectors.float(), readout.float()
    if impl == "naive":
        from .reference import project_dense

        return project_dense(vectors, readout, k, sides, stats)
    if vectors.device.type != "cpu":
        raise ValueError(f"impl='{impl}' runs on the CPU, not on {vectors.device}: use 'naive'")
    from .screened import FORMATS, best_format, project_screened, worthwhile
    from .tiled import project_tiled

    job = (scaled(vectors.contiguous(), readout.contiguous()), k, sides, stats)
    formats: dict[str, Format] = {numbers.name: numbers for numbers in FORMATS}
    numbers, screened = formats.get(impl), None
    if impl == "auto" and worthwhile(vectors, readout):
        numbers = best_format()
    if numbers:
        enough = 0.5 if impl == "auto" else 0.0
        screened = project_screened(numbers, *job, min_certified=enough)
    return project_tiled(*job) if screened is None else screened


def _check(vectors: Tensor, readout: Tensor, k: int, sides: tuple[str, ...]) -> None:
    if vectors.ndim != 2 or readout.ndim != 2 or vectors.shape[1] != readout.shape[1]:
        raise ValueError(
            f"expected vectors [n, d] and readout [V, d], got {list(vectors.shape)} and "
            f"{list(readout.shape)}"
        )
    if not vectors.shape[1]:
        raise ValueError("vectors and readout have no columns: d must be at least 1")
    for name, operand in (("vectors", vectors), ("readout", readout)):
        if not operand.is_floating_point():
            raise ValueError(f"the {name} are {operand.dtype}: convert them with .float()")
    if vectors.device != readout.device:
        raise ValueError(f"vectors are on {vectors.device} but the readout is on {readout.device}")
    if not 1 <= k <= readout.shape[0]:
        raise ValueError(
            f"k must be between 1 and the {readout.shape[0]} rows of the readout, not {k}"
        )
    if isinstance(sides, str):
        raise ValueError(f"sides must be a tuple, as ('top',), not the string {sides!r}")
    if not sides or set(sides) - set(SIDES):
        raise ValueError(f"sides must name 'top', 'bottom' or both, not {sides!r}")


def _check_range(operand: Tensor, name: str) -> None:
    """Refuse finite float64 values that are infinities in float32."""
    if operand.dtype != torch.float64 or not operand.numel():
        return
    largest = float(operand.abs().max())
    if torch.finfo(torch.float32).max < largest < float("inf"):
        raise ValueError(f"float32 does not hold {largest:.3g} in the {name}: scale them down")
