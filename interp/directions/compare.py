"""Two sets of directions against each other: cosine and coupling of every pair, and what they mean
(`spaces`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.weights import Weights
from ..progress import log
from .directions import Directions
from .reading import Coordinate, Encoder
from .spaces import before_norm, check_comparable, check_in_stream

READS, WRITES, THROUGH = "reads", "writes", "is of the stream"


def in_stream(directions: Directions, weights: Weights) -> Float[Tensor, "n d_model"]:
    """The vectors as they lie in the residual stream, in float64: those at `mlp_in` before its
    norm, the others as they are.

    Raises:
        UserError: at a site whose vectors are not of the stream.
    """
    site = directions.site
    check_in_stream(site)
    vectors = directions.vectors.double()
    return before_norm(vectors, weights, site.layer) if site.kind == "mlp_in" else vectors


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


def pairs(
    ours: Directions, theirs: Directions, limit: int = 20, weights: Weights | None = None
) -> pd.DataFrame:
    """The pairs with the largest |cosine|: `name`, `other`, `cosine`, `coupling` (NaN where they
    are not read as products with the same activation) and, where one of them is behind a norm and
    the weights are given, `in_stream`, the cosine before it.

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
    behind = {ours.site, theirs.site}
    if weights is not None and len(behind) > 1 and "mlp_in" in {site.kind for site in behind}:
        values["in_stream"] = stream_cosine(ours, theirs, weights)
    order = cosine.abs().flatten().argsort(descending=True, stable=True)[:limit]
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


def between(every: Sequence[Directions], weights: Weights | None = None) -> Float[Tensor, "n n"]:
    """Cosines of single directions that may be at several sites: NaN where two lie in different
    spaces, or are of different models.

    Args:
        weights: of their model, to carry those at `mlp_in` before the norm (`in_stream`).
    """
    made = torch.full((len(every), len(every)), torch.nan, dtype=torch.float64)
    for i, ours in enumerate(every):
        for j, theirs in enumerate(every[: i + 1]):
            if why_not(ours, theirs):
                continue
            if weights is not None and ours.site != theirs.site:
                cosine = stream_cosine(ours, theirs, weights)
            else:
                cosine = ours.cosine(theirs)
            made[i, j] = made[j, i] = cosine[0, 0]
    return made


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
