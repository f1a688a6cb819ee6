"""Which latents of an SAE are like a direction: by what they write, and by what they read.

    decoder = cos(direction, row of W_dec)      encoder = cos(direction, column of W_enc)

Both in the residual stream, as `directions.nearest` takes them: what reads behind the MLP's norm
(`mlp_in`), a direction or a latent's encoder, with the norm's gain, and what is written there, a
decoder's row, as the step of the stream that becomes it (`directions.spaces`).

Chance: of N random directions in d dimensions, independent and in all directions alike, the largest
|cos| with a given one exceeds c with probability

    p = 1 - (1 - P)^N,    P = P(|cos| > c) = I(1 - c^2; (d - 1) / 2, 1 / 2)

(cos^2 is Beta(1/2, (d - 1)/2); I is the regularised incomplete beta function). Vectors of a trained
model do not lie in all directions alike, so p is a bound on how little a cosine says, not a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..directions.compare import carried, gain_unknown
from ..directions.encoder import Encoder
from ..directions.spaces import as_in_stream, behind_norm
from ..errors import UserError
from ..model.site import Site
from ..model.weights import Weights, open_weights
from ..progress import log

if TYPE_CHECKING:
    from ..directions import Directions
    from ..saes import Sae

BLOCK = 1 << 14
"""Latents compared at once."""

Side = Literal["decoder", "encoder"]
SIDES: tuple[Side, ...] = ("decoder", "encoder")


def nearest(
    directions: Directions,
    sae: Sae,
    limit: int = 10,
    by: Side | None = None,
    weights: Weights | None = None,
) -> pd.DataFrame:
    """The latents with the largest |cos| of each direction.

    One row a latent, the most alike first, and none beside itself: `name` (the direction's), `by`
    (which cosine it is found by), `latent`, `decoder`, `encoder` (both cosines; NaN where the SAE
    has another width there) and `p`, the probability of chance for the one it is found by.

    Args:
        by: only one of both.
        weights: whose norm stands before `mlp_in`; by default the directions' own model's.

    Raises:
        UserError: the SAE neither reads nor writes vectors as wide as the directions; the gain of
            a norm is asked for, and no model is given or named, or one of other weights.
    """
    sides = _sides(directions, sae)
    if by is not None and by not in sides:
        raise UserError(
            f"the directions at {directions.site} have {directions.vectors.shape[1]} numbers, the "
            f"SAE's {by} has others: leave --by"
        )
    said = {"decoder": sae.out_site, "encoder": sae.site}
    places = {side: Site.parse(said[side]) if said[side] else None for side in sides}
    if weights is None and any(map(behind_norm, [directions.site, *places.values()])):
        weights = open_weights(directions.model)
    directions.note_model(weights)
    if reason := gain_unknown(directions, weights):
        raise UserError(f"they have no place in the stream: {reason}")
    ours = carried(directions, weights)
    cosines = {}
    for side, latents in sides.items():
        placed = partial(as_in_stream, site=places[side], weights=weights)
        cosines[side] = cosine(ours, latents, partial(placed, written=side == "decoder"))
    nothing = torch.full((len(directions), sae.d_sae), torch.nan)
    both = {side: cosines.get(side, nothing) for side in SIDES}
    width, made = directions.vectors.shape[1], []
    for n, name in enumerate(directions.names):
        own = _itself(directions, n, both["decoder"][n])
        for side in [by] if by else cosines:
            found = both[side][n].abs().topk(min(limit + 1, sae.d_sae)).indices
            found = found[found != own][:limit]
            rows: dict[str, object] = {"name": name, "by": side, "latent": found.tolist()}
            rows |= {each: both[each][n, found].double().tolist() for each in SIDES}
            chance = at_least(both[side][n, found].double().numpy(), width, sae.d_sae)
            made.append(pd.DataFrame(rows | {"p": chance}))
    return pd.concat(made, ignore_index=True)


def _itself(directions: Directions, row: int, decoder: Float[Tensor, " latents"]) -> int:
    """The number of the latent that a direction is; -1 if it is none of this SAE."""
    if not isinstance(directions.reading, Encoder):
        return -1
    own = int(directions.index["latent"].iloc[row])
    return own if own < len(decoder) and float(decoder[own]) > 1 - 1e-5 else -1


def cosine(
    vectors: Float[Tensor, "n d"],
    rows: Float[Tensor, "latents d"],
    before: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Float[Tensor, "n latents"]:
    """Cosines in float32; only a block of the rows is copied at a time. 0 with a row of zeros.

    Args:
        before: what is made of each block of the rows.
    """
    unit = normalize(vectors.double(), eps=1e-300).float()
    parts = (before(part.float()) for part in torch.split(rows, BLOCK))
    blocks = (unit @ normalize(part, eps=1e-30).T for part in parts)
    return torch.cat(list(blocks), 1)


def at_least(cosines: Float[np.ndarray, " k"], width: int, latents: int) -> Float[np.ndarray, " k"]:
    """The probability that the largest |cos| of random directions is no smaller."""
    from scipy.special import betainc

    square = np.square(np.clip(np.abs(cosines), 0, 1))
    one = betainc((width - 1) / 2, 0.5, 1 - square)
    with np.errstate(divide="ignore"):  # log of 0 where one of them is as large for certain
        return np.asarray(-np.expm1(latents * np.log1p(-one)))


def chance_level(width: int, latents: int, p: float = 0.05) -> float:
    """The |cos| that the largest of random directions exceeds with probability p."""
    from scipy.special import betaincinv

    one = -np.expm1(np.log1p(-p) / latents)
    return float(np.sqrt(1 - betaincinv((width - 1) / 2, 0.5, one)))


def _sides(directions: Directions, sae: Sae) -> dict[Side, Tensor]:
    """What the directions are compared with, [latents, d] each: where the widths agree."""
    width = directions.vectors.shape[1]
    sides = dict(_wide(sae, width))
    if not sides:
        raise UserError(
            f"the directions at {directions.site} have {width} numbers, the SAE reads {sae.d_in} "
            f"and writes {sae.d_out} at {sae.site or 'its site'}: give an SAE of their site"
        )
    places = dict.fromkeys(site for site in (sae.site, sae.out_site) if site)
    if places and str(directions.site) not in places:
        log.warning(
            "the directions are at %s, the SAE's latents at %s: cosines of two places",
            directions.site,
            " and ".join(places),
        )
    return sides


def _wide(sae: Sae, width: int) -> Iterator[tuple[Side, Tensor]]:
    if sae.d_out == width:
        yield "decoder", sae.W_dec
    if sae.d_in == width:
        yield "encoder", sae.W_enc.T
