"""RoPE in a GGUF file -> transformers' `rope_parameters`, or a line that says why not.

The scalings: linear, YaRN (https://arxiv.org/abs/2309.00071), Llama 3's (a tensor of factors, one a
frequency) and LongRoPE (two such tensors, https://arxiv.org/abs/2402.13753).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .file import GgufFile
from .metadata import Metadata

_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""What every Llama 3 with a scaling has, but for its factor."""
FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""The tensors that are read here."""


def read_rope(metadata: Metadata, head: int, scope: str) -> dict[str, Any]:
    """`rope_parameters` for heads of `head` dimensions; `scope` is `Architecture.rope`.

    Raises:
        UserError: a scaling that transformers has no name for.
    """
    base = {"rope_theta": metadata.number("rope.freq_base", 10000.0)}
    turned = metadata.size("rope.dimension_count", head)
    if scope == "partial":
        base["partial_rotary_factor"] = turned / head
    elif turned != head:
        raise metadata.refusal(f"turns {turned} of a head's {head} dimensions by RoPE")
    scaled = base | _scaling(metadata, base["rope_theta"], turned)
    if scope != "by layer":
        return scaled
    local = metadata.number("rope.freq_base_swa", 10000.0)
    return {
        "full_attention": scaled,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def _scaling(metadata: Metadata, theta: float, turned: int) -> dict[str, Any]:
    kind = metadata.get("rope.scaling.type", "none")
    factor = metadata.number("rope.scaling.factor", 1.0)
    context = metadata.size("context_length")
    original = metadata.size("rope.scaling.original_context_length", context)
    strength = metadata.number("rope.scaling.attn_factor", 1.0)
    factors = {name: _vector(metadata.file, name) for name in FACTORS}
    long, short = factors[FACTORS[1]], factors[FACTORS[2]]
    if long is not None and short is not None:
        return _longrope(metadata, long, short, context, original)
    if (per_frequency := factors[FACTORS[0]]) is not None and not np.all(per_frequency == 1):
        if kind != "none":
            raise metadata.refusal(f"has both RoPE factors and the RoPE scaling '{kind}'")
        return _llama3(metadata, per_frequency, theta, turned)
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": metadata.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": metadata.number("rope.scaling.yarn_beta_slow", 1.0),
            "attention_factor": strength * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0),
        }
    if kind not in ("none", "linear") or strength != 1:
        raise metadata.refusal(f"has the RoPE scaling '{kind}' with strength {strength:g}")
    if kind == "none" or factor == 1:
        return {"rope_type": "default"}
    return {"rope_type": "linear", "factor": factor}


def _vector(file: GgufFile, name: str) -> NDArray[np.float32] | None:
    stored = file.tensors.get(name)
    return None if stored is None else stored.rows(slice(None)).ravel()


def _longrope(
    metadata: Metadata,
    long: NDArray[np.float32],
    short: NDArray[np.float32],
    context: int,
    original: int,
) -> dict[str, Any]:
    if context == original:  # the file does not say where the long factors begin
        raise metadata.refusal("has LongRoPE's factors without their original context length")
    scale = context / original
    usual = math.sqrt(1 + math.log(scale) / math.log(original))
    return {
        "rope_type": "longrope",
        "long_factor": long.tolist(),
        "short_factor": short.tolist(),
        "factor": scale,
        "original_max_position_embeddings": original,
        "attention_factor": metadata.number("rope.scaling.attn_factor", usual),
    }


def _llama3(
    metadata: Metadata, stored: NDArray[np.float32], theta: float, turned: int
) -> dict[str, Any]:
    """Llama 3's parameters, if they give the stored factors."""
    factor = float(stored.max())
    expected = _llama3_factors(theta, turned, factor, **_LLAMA3)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-5):
        raise metadata.refusal("has RoPE factors ('rope_freqs') that are not those of a Llama 3")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _llama3_factors(
    theta: float,
    turned: int,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: float,
) -> NDArray[np.float64]:
    """What Llama 3 divides each frequency by [turned / 2].

    1 below a wavelength of original / high, `factor` above original / low, and between them the
    reciprocal changes linearly with the number of waves in the original context.
    """
    frequency = theta ** (-np.arange(0, turned, 2) / turned)
    waves = original_max_position_embeddings * frequency / (2 * np.pi)
    smooth = (waves - low_freq_factor) / (high_freq_factor - low_freq_factor)
    divided: NDArray[np.float64] = 1 / ((1 - smooth.clip(0, 1)) / factor + smooth.clip(0, 1))
    return divided
