"""Where a site's activations lie and how far apart: what an SAE's inputs are centred and scaled by.

    x' = (x - centre) sqrt(d) / distance        so that the mean of |x'| is sqrt(d)

The centre is the mean of x and the distance the mean of |x - centre|, over the tokens that are not
massive: those within LONGEST median distances of the median of x (coordinate by coordinate; tokens
that are at the median itself do not count). So neither some tokens of a thousand times the length
nor a mean of a thousand times the spread changes what training sees. Naive equivalent where there
are none: x.mean(0), and (x - x.mean(0)).norm(dim=1).mean().
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import UserError

LONGEST = 10.0
"""A token is massive from this distance on, in medians; `darkmatter run` leaves out as much."""


class Spread(NamedTuple):
    """A site's centre and distances, in float64."""

    centre: Float[Tensor, " d"]
    distance: Float[Tensor, ""]
    """Mean |x - centre| of the tokens that are not massive."""
    middle: Float[Tensor, " d"]
    """The median of x."""
    limit: Float[Tensor, ""]
    """|x - middle| from which on a token is massive."""

    @classmethod
    def of(cls, x: Float[Tensor, "n d"]) -> Spread:
        """Of one sample of tokens, from many batches.

        Raises:
            UserError: a value that is not finite, or all tokens are the same.
        """
        wide = x.double()
        middle = wide.median(0).values
        distances = (wide - middle).norm(dim=1)
        if not distances.isfinite().all():
            raise UserError("the activations hold a NaN or an infinity: no SAE can learn them")
        if not distances.any():
            raise UserError("the activation is the same for every token: there is nothing to learn")
        limit = LONGEST * distances[distances > 0].median()
        near = wide[distances <= limit]
        centre = near.mean(0)
        return cls(centre, (near - centre).norm(dim=1).mean(), middle, limit)

    @property
    def scale(self) -> float:
        """Factor of the centred inputs."""
        return float(len(self.centre) ** 0.5 / self.distance)

    def near(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Which tokens are not massive."""
        kept: Tensor = (x - self.middle.to(x)).norm(dim=1) <= self.limit.to(x)
        return kept

    def scaled(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Centred and scaled."""
        return (x - self.centre.to(x)) * self.scale
