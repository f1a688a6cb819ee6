"""Vectors that were made elsewhere: read from a file, and checked against their site."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import UserError
from ..model.places import DENSE_ONLY, expert_reason
from ..model.site import HEAD_KINDS, Site
from ..model.weights import Weights

BLOCK = 1 << 14
"""Vectors in float64 at once."""
ENDINGS = (".npy", ".safetensors", ".pt", ".pth")


_UNREADABLE = (
    *(OSError, ValueError, LookupError, EOFError, RuntimeError, TypeError, OverflowError),
    *(SyntaxError, TokenError, SafetensorError),  # the header of a .npy is Python
)


def read_vectors(path: Path, tensor: str = "") -> Any:
    """The array or tensor in a file; nothing in it is run.

    Args:
        tensor: which one, of a file with several.

    Raises:
        UserError: no such file, one of another form, or several tensors and none named.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"{path} is none of {', '.join(ENDINGS)}: save the vector as one of these")
    try:
        if path.suffix == ".npy":
            # mapped: its header may ask for more numbers than the file has
            return np.array(np.lib.format.open_memmap(path, mode="r"))
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return file.get_tensor(_chosen(path, list(file.keys()), tensor))
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"cannot read {path}, it holds more than tensors: save them alone"
        ) from error
    except _UNREADABLE as error:
        raise UserError(f"cannot read {path}: {_first_line(error)}") from error
    if isinstance(stored, dict):
        tensors = {str(k): v for k, v in stored.items() if isinstance(v, Tensor)}
        return tensors[_chosen(path, list(tensors), tensor)]
    if not isinstance(stored, Tensor):
        raise UserError(f"{path} holds a {type(stored).__name__}, no tensor: save the tensor alone")
    return stored


def checked_vectors(values: Any, site: Site, weights: Weights) -> Float[Tensor, "n d"]:
    """Vectors in float32 for a site of a model: one of [d], or n of [n, d].

    Raises:
        UserError: a site the model lacks, another shape, whole numbers, a NaN, a vector of zeros.
    """
    width = site_width(weights, site)
    try:
        vectors = _plain(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"these are no vectors: {_first_line(error)}") from error
    shape = list(vectors.shape)
    if vectors.ndim not in (1, 2) or shape[-1] != width or not vectors.numel():
        turned = "; transpose it" if vectors.ndim == 2 and shape[0] == width else ""
        raise UserError(
            f"a direction at {site} has {width} numbers, so give [{width}] or [n, {width}], not "
            f"{shape}{turned}"
        )
    if not vectors.is_floating_point():
        raise UserError(f"the vectors are {vectors.dtype}, no decimal numbers: give floats")
    given, vectors = vectors.reshape(-1, width), vectors.reshape(-1, width).float()
    for wrong, says in (
        (~given.isfinite().all(1), "holds a NaN or an infinity: make it anew"),
        (~given.any(1), "is all zeros, which is no direction: leave it out"),
        (
            ~(vectors.isfinite().all(1) & vectors.any(1)),
            "is too long or too short for float32: scale it",
        ),
    ):
        if wrong.any():
            raise UserError(f"vector {wrong.nonzero()[0].item()} {says}")
    return vectors


def _plain(values: Any) -> Tensor:
    """A dense tensor on the CPU.

    Raises:
        UserError: it is sparse, nested or quantised.
        TypeError, ValueError, RuntimeError: torch can make no tensor of them, or not copy it.
    """
    if isinstance(values, np.ndarray):
        # torch takes neither long doubles nor another order of bytes
        decimal = values.dtype.kind == "f"
        with np.errstate(over="ignore"):
            values = values.astype(np.float64 if decimal else values.dtype.newbyteorder("="))
    tensor = torch.as_tensor(values).detach()
    if tensor.is_nested:
        raise UserError("the vectors are a nested tensor: stack them as one of [n, d]")
    if tensor.layout != torch.strided:
        raise UserError("the vectors are a sparse tensor: give v.to_dense()")
    if tensor.is_quantized:
        raise UserError("the vectors are a quantised tensor: give v.dequantize()")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError("the vectors share their numbers with each other: give v.contiguous()")
    return tensor.cpu()


def site_width(weights: Weights, site: Site) -> int:
    """How many numbers a vector at a site of a model has; heads beside each other, if not one.

    Raises:
        UserError: the model has no such site, or it has no vector per token.
    """
    spec, family = weights.spec, weights.spec.family
    by_kind = {"mlp_gate": spec.d_mlp, "mlp_up": spec.d_mlp, "mlp_post": spec.d_mlp}
    by_kind["logits"] = spec.d_vocab
    heads = {"head_v": spec.n_kv_heads, "head_z": spec.n_heads}
    if site.layer is not None and site.layer >= spec.n_layers:
        raise UserError(f"there is no {site}: this model has layers 0..{spec.n_layers - 1}")
    part = {"head_v": family.value, "head_z": family.output}.get(site.kind)
    if (
        (site.module is not None or site.kind == "attn_pattern")
        or (site.kind == "mlp_gate" and "gate" not in spec.kinds)
        or (site.kind == "resid_mid" and spec.parallel)
        or (part is not None and site.layer is not None and not weights.has(site.layer, part))
    ):
        raise UserError(
            f"{site} has no vector per token in a {spec.model_type} model: name another"
        )
    if site.kind in DENSE_ONLY and site.layer in weights.sparse:
        raise UserError(f"there is no {site}: {expert_reason(spec, site.layer)}")
    if site.kind in HEAD_KINDS:
        count = heads[site.kind]
        if site.head is not None and site.head >= count:
            raise UserError(f"there is no {site}: a layer has heads 0..{count - 1} there")
        return spec.d_head * (count if site.head is None else 1)
    return by_kind.get(site.kind, spec.d_model)


def _chosen(path: Path, names: list[str], wanted: str) -> str:
    if not names:
        raise UserError(f"{path} holds no tensor: save the vector in it")
    if wanted in names or (not wanted and len(names) == 1):
        return wanted or names[0]
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    said = f"has no tensor '{wanted}'" if wanted else "holds several tensors"
    raise UserError(f"{path} {said}: give --tensor one of {shown}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def each_named(name: str | Sequence[str], vectors: int) -> list[str]:
    """A name for each of some vectors: one given for several gets a number behind it.

    Raises:
        UserError: there are more or fewer.
    """
    names = [name] if isinstance(name, str) else list(name)
    if isinstance(name, str) and vectors > 1:
        names = [f"{name} {i}" for i in range(vectors)]
    if len(names) != vectors:
        raise UserError(f"there are {len(names)} names for {vectors} vectors: give each one")
    return names


def each_constant(constant: float | Sequence[float], vectors: int) -> list[float]:
    """A constant for each of some vectors.

    Raises:
        UserError: there are more or fewer, or one is no finite number.
    """
    each = [constant] * vectors if isinstance(constant, int | float) else list(constant)
    if len(each) != vectors or not all(map(math.isfinite, each)):
        raise UserError(f"give one finite constant, or one for each of {vectors} vectors")
    return each


def cosines(ours: Float[Tensor, "n d"], theirs: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosines in float64 (0 with a vector of zeros), of which only a block of each set is a copy at
    a time."""
    return torch.cat([_cosines(rows, theirs) for rows in torch.split(ours, BLOCK)])


def _cosines(ours: Tensor, theirs: Tensor) -> Tensor:
    unit = normalize(ours.double(), eps=1e-300)
    blocks = (normalize(part.double(), eps=1e-300) for part in torch.split(theirs, BLOCK))
    return torch.cat([unit @ block.T for block in blocks], 1)
