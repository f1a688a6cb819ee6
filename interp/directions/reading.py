"""Reading: how an activation becomes the score of a direction.

    Product      vector . x + constant, or behind a norm that takes x's own scale,
                 vector . (P x / sigma(x)) + constant
    Coordinate   one number of x, read where a neuron's activation is
    Encoder      a latent's activation, which is no product with the row that the latent writes
                 (`encoder`)
    Unread       no score at all, for a reason

A set of Directions has one reading, saved and loaded with it, and every score of them comes from
it. What it needs to know of each direction stands in a column of their index: `constant`, `unit` or
`latent`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.families import ModelSpec
from ..model.neuron import NeuronName, clamp_site
from ..model.prompting import Bos
from ..model.readout import levelled
from ..model.site import Site
from ..model.weights import Weights

CHUNK = 1024
"""Directions scored at once."""

Piece = Callable[[Tensor], Tensor]


class Scorer(NamedTuple):
    """Scores in units that float32 holds, whatever the vectors' lengths: unit * piece(x) + zero."""

    pieces: Sequence[Piece]
    """Each gives [..., some] of activations [..., d]; together one number a direction."""
    unit: Float[Tensor, " n"]
    zero: Float[Tensor, " n"]

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
        """The scores, in float64."""
        parts = torch.cat([piece(x) for piece in self.pieces], -1)
        return parts.double() * self.unit.to(x.device) + self.zero.to(x.device)


@dataclass(frozen=True)
class Reading(ABC):
    """How activations become scores; the module's text names the kinds."""

    KIND: ClassVar[str]
    COLUMN: ClassVar[str] = ""
    """Of the index, which must have it."""

    def site(self, own: Site) -> Site:
        """Where the activations are that it reads, for directions at a site."""
        return own

    @property
    def bos(self) -> Bos:
        """Whether the texts it is meant for begin with a BOS; "auto" if nobody says so."""
        return "auto"

    @abstractmethod
    def scorer(self, vectors: Float[Tensor, "n d"], index: pd.DataFrame) -> Scorer:
        """What gives every direction's score.

        Raises:
            UserError: they have no score, or what gives it cannot be opened.
        """

    def linear(self, part: Float[Tensor, "... d"], x: Float[Tensor, "... d"]) -> Tensor:
        """What the vectors multiply of a part of x, in float64, so that parts that sum to x have
        scores that sum to x's, but for the constant.

        Raises:
            UserError: the score is no product, so it has no parts.
        """
        raise UserError(
            f"these directions are read as {self}, which is no sum over parts of an activation"
        )

    def record(self) -> dict[str, Any]:
        """Itself as plain JSON values, for `stored.read_reading`."""
        return {"kind": self.KIND, **asdict(self)}

    def identity(self) -> dict[str, Any]:
        """Of `record` what scores depend on."""
        return self.record()

    def numbers(self, index: pd.DataFrame) -> list[Any]:
        """What it needs to know of each direction, by the index."""
        return index[self.COLUMN].tolist() if self.COLUMN else []


@dataclass(frozen=True)
class Scale:
    """A norm without its gain and offset: P x / sigma(x), sigma(x) = sqrt(|P x|^2 / d + eps)."""

    centred: bool
    """P takes the mean over d away: LayerNorm. RMSNorm leaves it."""
    eps: float

    @classmethod
    def before_heads(cls, site: Site, spec: ModelSpec) -> Scale | None:
        """What heads take of the stream that they read; None behind the norm (`mlp_in`), or in a
        family whose heads read the stream itself."""
        if site.kind != "resid_pre" or not spec.family.attn_norm:
            return None
        return cls(spec.norm == "layer", spec.eps)

    def __call__(
        self, part: Float[Tensor, "... d"], x: Float[Tensor, "... d"]
    ) -> Float[Tensor, "... d"]:
        """P part / sigma(x)."""
        centred = x - x.mean(-1, keepdim=True) if self.centred else x
        if part is not x:
            part = part - part.mean(-1, keepdim=True) if self.centred else part
        else:
            part = centred
        return part * torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)


@dataclass(frozen=True)
class Product(Reading):
    """vector . x, or behind a norm vector . (P x / sigma(x)); plus the index's `constant`."""

    KIND: ClassVar[str] = "product"

    norm: Scale | None = None

    def __str__(self) -> str:
        if self.norm is None:
            return "v.x"
        return "v.(x - mean)/sd" if self.norm.centred else "v.x/rms"

    def prepared(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """What the vectors multiply, in float32 or better."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x if self.norm is None else self.norm(x, x)

    def scorer(self, vectors: Float[Tensor, "n d"], index: pd.DataFrame) -> Scorer:
        near_one, unit = levelled(vectors.float())
        pieces = [partial(self._piece, chunk) for chunk in torch.split(near_one, CHUNK)]
        return Scorer(pieces, unit, torch.tensor(self.numbers(index), dtype=torch.float64))

    def _piece(self, vectors: Tensor, x: Tensor) -> Tensor:
        return self.prepared(x) @ vectors.to(x).to(torch.promote_types(x.dtype, torch.float32)).T

    def linear(self, part: Float[Tensor, "... d"], x: Float[Tensor, "... d"]) -> Tensor:
        return part.double() if self.norm is None else self.norm(part.double(), x.double())

    def record(self) -> dict[str, Any]:
        return {"kind": self.KIND, **(asdict(self.norm) if self.norm else {})}

    def numbers(self, index: pd.DataFrame) -> list[Any]:
        constants = index["constant"].to_numpy(float) if "constant" in index else [0.0] * len(index)
        return list(map(float, constants))


@dataclass(frozen=True)
class Coordinate(Reading):
    """The number `unit` of the activation at a site of its own: what a neuron fires with, where the
    vector is what it writes."""

    KIND: ClassVar[str] = "coordinate"
    COLUMN: ClassVar[str] = "unit"

    at: str

    def __str__(self) -> str:
        return f"the activation at {self.at}"

    def site(self, own: Site) -> Site:
        return Site.parse(self.at)

    def scorer(self, vectors: Float[Tensor, "n d"], index: pd.DataFrame) -> Scorer:
        return some_columns(index["unit"], lambda x: x)


@dataclass(frozen=True)
class Unread(Reading):
    """No score, for a reason that whoever asks for one is told."""

    KIND: ClassVar[str] = "none"

    reason: str

    def __str__(self) -> str:
        return "no score"

    def scorer(self, vectors: Float[Tensor, "n d"], index: pd.DataFrame) -> Scorer:
        raise UserError(f"these directions have no score: {self.reason}")


def neuron_reading(
    weights: Weights, neurons: Sequence[NeuronName]
) -> tuple[Reading, dict[str, list[Any]]]:
    """How neurons of one layer and kind are read, and the columns that it needs.

    The projection's output (up, gate) is x.v and its bias; what a write vector is multiplied by is
    a number at a site of its own, which an expert's neurons have not.
    """
    layer, kind = neurons[0].layer, neurons[0].kind
    if kind != "down":
        experts = dict.fromkeys(neuron.expert for neuron in neurons)
        biases = {e: weights.bias(kind, layer, e) for e in experts}  # type: ignore[arg-type]
        return Product(), {"constant": [float(biases[n.expert][n.neuron]) for n in neurons]}
    try:
        return Coordinate(str(clamp_site(neurons[0]))), {"unit": [n.neuron for n in neurons]}
    except UserError as error:
        return Unread(str(error)), {}


def some_columns(columns: pd.Series[int], features: Piece, every: int = 0) -> Scorer:
    """Scores that are some columns of what `features` gives, or all of `every` one, uncopied."""
    which = columns.tolist()
    zero = torch.zeros(len(which), dtype=torch.float64)
    if which == list(range(every)):
        return Scorer([features], torch.ones_like(zero), zero)

    def piece(x: Tensor) -> Tensor:
        values = features(x)
        if which and max(which) >= values.shape[-1]:
            raise UserError(
                f"these directions read the number {max(which)} of {values.shape[-1]}: make them "
                "anew"
            )
        return values[..., which]

    return Scorer([piece], torch.ones_like(zero), zero)
