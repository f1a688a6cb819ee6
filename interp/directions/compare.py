"""Two sets of directions against each other: cosine and coupling of every pair, and what they mean
(`spaces`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.weights import Weights, open_weights
from ..progress import log
from .directions import Directions
from .encoder import Encoder
from .reading import Coordinate
from .spaces import as_in_stream, behind_norm, check_comparable, check_in_stream

IN_STREAM = "All are taken in the residual stream, those that read with the gain of their norm."
AS_THEY_ARE = "All are taken as they are: no norm stands between two of them."
WITHOUT_GAIN = "All are taken as they are, without the gain of the norm between them."
READS, WRITES, THROUGH = "reads", "writes", "is of the stream"


class CosineMap(NamedTuple):
    """Cosines of directions, all of one definition."""

    cosine: Float[Tensor, "n m"]
    """NaN where two lie in different spaces, or are of different models."""
    told: str
    """Which definition, in a sentence."""


def in_stream(directions: Directions, weights: Weights) -> Float[Tensor, "n d_model"]:
    """The vectors as they lie in the residual stream, in float64: those at `mlp_in` before its
    norm, the others as they are.

    Raises:
        UserError: at a site whose vectors are not of the stream.
    """
    check_in_stream(directions.site)
    return as_in_stream(directions.vectors.double(), directions.site, weights)


def stream_cosine(ours: Directions, theirs: Directions, weights: Weights) -> Float[Tensor, "n m"]:
    """Cosines in the residual stream: as `Directions.cosine`, with vectors behind a norm
    (`mlp_in`) carried before it.

    Raises:
        UserError: vectors of two spaces, or of none of the stream.
    """
    check_comparable(ours.site, theirs.site)
    a, b = (
        torch.nn.functional.normalize(in_stream(each, weights), eps=1e-300)
        for each in (ours, theirs)
    )
    return a @ b.T


def cosines(ours: Directions, theirs: Directions, weights: Weights | None = None) -> CosineMap:
    """Of two sets: in the residual stream where a norm's gain stands between them and the weights
    are given, else as they are.

    Raises:
        UserError: vectors of two spaces.
    """
    if not gain_between(ours, theirs):
        return CosineMap(ours.cosine(theirs), AS_THEY_ARE)
    if weights is None:
        return CosineMap(ours.cosine(theirs), WITHOUT_GAIN)
    return CosineMap(stream_cosine(ours, theirs, weights), IN_STREAM)


def pairs(
    ours: Directions, theirs: Directions, limit: int = 20, weights: Weights | None = None
) -> pd.DataFrame:
    """The pairs with the largest |cosine|: `name`, `other`, `cosine`, `coupling` (NaN where they
    are not read as products with the same activation) and, where one of them is behind a norm and
    the weights are given, `in_stream`, the cosine before it, which then says how they are ordered.

    Raises:
        UserError: vectors of two spaces.
    """
    ours.note_other(theirs)
    cosine = ours.cosine(theirs)
    try:
        coupling = ours.coupling(theirs)
    except UserError as error:
        log.warning("%s", error)
        coupling = torch.full_like(cosine, math.nan)
    values = {"cosine": cosine, "coupling": coupling}
    if weights is not None and gain_between(ours, theirs):
        values["in_stream"] = stream_cosine(ours, theirs, weights)
    shown = values.get("in_stream", cosine)
    order = shown.abs().flatten().argsort(descending=True, stable=True)[:limit]
    i, j = order // len(theirs), order % len(theirs)
    named = {"name": [ours.names[n] for n in i], "other": [theirs.names[n] for n in j]}
    return pd.DataFrame(named | {name: each[i, j].tolist() for name, each in values.items()})


def role(directions: Directions) -> str:
    """Whether its vectors are what is read or what is written there, as far as it is known."""
    kind = directions.site.kind
    if kind == "mlp_in":
        return READS
    if kind in ("mlp_out", "attn_out") or isinstance(directions.reading, Coordinate | Encoder):
        return WRITES
    return THROUGH


def meaning(ours: Directions, theirs: Directions) -> str:
    """What the cosine of two directions says, in a sentence."""
    roles = {role(ours), role(theirs)}
    if roles == {READS, WRITES}:
        return (
            "One reads and the other writes: the cosine is their composition, how much of what is "
            "written the other reads on the direct path (w_in . w_out)."
        )
    if roles == {READS}:
        return "Both read: the cosine says how alike what they look for is."
    if roles == {WRITES}:
        return "Both write: the cosine says how alike what they add is."
    return "The cosine says how alike their directions in the stream are."


def between(every: Sequence[Directions]) -> CosineMap:
    """Cosines of single directions that may be at several sites: of all in the residual stream
    (`in_stream`) where one of them reads behind a norm and another is of another site, else as they
    are. One whose norm is not known, since its model is not here, has none."""
    pairs = [
        (i, j) for i in range(len(every)) for j in range(i + 1) if not why_not(every[i], every[j])
    ]
    carried, told = [each.vectors.double() for each in every], AS_THEY_ARE
    if any(gain_between(every[i], every[j]) for i, j in pairs):
        told = IN_STREAM
        for number, each in enumerate(every):
            try:
                weights = open_weights(each.model) if behind_norm(each.site) else None
            except UserError as error:
                told = f"{IN_STREAM} {each.names[0]} is left out: {error}."
                pairs = [pair for pair in pairs if number not in pair]
            else:
                carried[number] = as_in_stream(carried[number], each.site, weights)
    unit = [torch.nn.functional.normalize(own, eps=1e-300) for own in carried]
    made = torch.full((len(every), len(every)), torch.nan, dtype=torch.float64)
    for i, j in pairs:
        made[i, j] = made[j, i] = (unit[i] @ unit[j].T)[0, 0]
    return CosineMap(made, told)


def gain_between(ours: Directions, theirs: Directions) -> bool:
    """Whether a norm's gain stands between two: one reads behind a norm, and they are at two
    sites."""
    return ours.site != theirs.site and (behind_norm(ours.site) or behind_norm(theirs.site))


def why_not(ours: Directions, theirs: Directions) -> str:
    """Why two directions have no cosine; "" if they have one."""
    a, b = ours.provenance, theirs.provenance
    if not a.same_model(b):
        return f"they are of two models, {a.model} and {b.model}"
    try:
        check_comparable(ours.site, theirs.site)
    except UserError as error:
        return str(error)
    if ours.vectors.shape[1] != theirs.vectors.shape[1]:
        return f"{ours.vectors.shape[1]} numbers and {theirs.vectors.shape[1]}"
    return ""
