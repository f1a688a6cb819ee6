"""Directions: labelled vectors at one site. What every analysis of the workbench finds.

A neuron's weight row, a probe's class vector, a feature vector: each is a vector in the space that
is read or written at one place in a model, with a reading that says how an activation becomes its
score. So all of them can be decoded to tokens, scored, compared, and steered with. On disk:
`vectors.safetensors`, `index.parquet`, `directions.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.edits import Edit, Where, add
from ..model.site import Site
from ..model.weights import Weights, open_weights
from ..progress import log
from ..runs.parts import whole
from ..runs.store import Store
from ..runs.writer import RunWriter
from .identity import identity
from .provenance import Provenance
from .reading import Product, Reading, Scorer
from .spaces import check_comparable, check_in_stream
from .splits import shares
from .stored import Stored, read_folder, write_set
from .vectors import checked_vectors, cosines, each_constant, each_named

if TYPE_CHECKING:
    from ..lens.lens import Lens
    from ..saes import SaeSplit

_LONGEST = 1e18
"""The square of a longer vector is beyond float32."""


@dataclass(frozen=True)
class Directions:
    """`vectors` [n, d_space] in the space of `site`, where each is read or written; `index` has a
    row a vector, with its `name`."""

    site: Site
    vectors: Float[Tensor, "n d"]
    index: pd.DataFrame
    provenance: Provenance = field(default_factory=Provenance)
    reading: Reading = field(default_factory=Product)
    """How an activation becomes the score of each."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.index):
            raise ValueError(
                f"{len(self.index)} labels for vectors of shape {list(self.vectors.shape)}"
            )
        if missing := {"name", self.reading.COLUMN} - {"", *self.index.columns}:
            raise ValueError(f"the index of directions lacks {', '.join(sorted(missing))}")

    @classmethod
    def of(
        cls,
        vectors: Any,
        site: str | Site,
        model: str,
        name: str | Sequence[str],
        source: str = "",
        constant: float | Sequence[float] = 0.0,
    ) -> Directions:
        """Vectors that were made elsewhere: one of [d], or several of [n, d], as a tensor, an array
        or lists. They are read by the product with an activation, plus a constant.

        Args:
            name: of one; of several a name each, or one that gets a number behind it.
            source: who made them, and from what.
            constant: a probe's intercept, one or one each.

        Raises:
            UserError: the model has no such site, or they do not fit it (see `vectors`).
        """
        site = Site.parse(site) if isinstance(site, str) else site
        weights = open_weights(model)
        checked = checked_vectors(vectors, site, weights)
        names, each = each_named(name, len(checked)), each_constant(constant, len(checked))
        index = pd.DataFrame({"name": names, "constant": each})
        return cls(site, checked, index, Provenance.of("import", weights, source=source))

    @property
    def model(self) -> str:
        """The model they belong to, by catalog name, folder or hub id.

        Raises:
            UserError: their provenance does not name it.
        """
        if not self.provenance.model:
            raise UserError("these directions do not name their model: name the model")
        return self.provenance.model

    @property
    def read_as(self) -> str:
        """How they are scored, in a few signs: "v.x/rms + constant"."""
        constants = self.index.get("constant")
        added = constants is not None and bool((constants != 0).any())
        return f"{self.reading} + constant" if added else str(self.reading)

    @property
    def names(self) -> list[str]:
        """Of each."""
        return [str(name) for name in self.index["name"]]

    @property
    def identity(self) -> str:
        """sha256 over all that their scores, and what steers with them, depend on: vectors, site,
        reading, what it needs to know of each, and the names that they bear in tables. It is the
        same whoever made them, wherever they lie, and in whatever dtype the same numbers are."""
        return identity(self.vectors, self.site, self.reading, self.index)

    def note_model(self, weights: Weights | None) -> None:
        """Warn where they are used on other weights than those they were made of."""
        if reason := self.provenance.not_of(weights):
            log.warning("these directions are %s", reason)

    def note_other(self, other: Directions) -> None:
        """Warn where another set is of other weights: their spaces need not be the same."""
        if reason := self.provenance.apart(other.provenance):
            log.warning("these are directions %s", reason)

    def __len__(self) -> int:
        return len(self.vectors)

    def pick(self, rows: list[int]) -> Directions:
        """Some of them, in the order given."""
        index = self.index.iloc[rows].reset_index(drop=True)
        return replace(self, vectors=self.vectors[rows], index=index)

    def decode(self, weights: Weights, k: int = 10, lens: str | Lens = "raw") -> pd.DataFrame:
        """Top and bottom tokens through the LM head: the index with `top`, `bottom` (lists of
        strings), their `…_logits`, and `…_z`, the distance of the first of them from the mean logit
        in standard deviations: the same at any length, and NaN for a vector of zeros, which spells
        nothing. Ids that are no token are left out.

        Args:
            lens: raw; final, with the final norm's gain and without the mean that it takes away;
                or a fitted lens, or what `open_lens` takes for one, which first carries each from
                its layer to the last one.

        Raises:
            UserError: vectors that are not of the residual stream, or of another width.
        """
        from .decoding import decoded

        check_in_stream(self.site)
        self._fits(weights.spec.d_model, "the residual stream")
        self.note_model(weights)
        found = decoded(self.vectors, self.site, weights, k, lens).items()
        return self.index.reset_index(drop=True).assign(**{str(c): v for c, v in found})

    @property
    def read_at(self) -> Site:
        """Where the activations are whose scores they have; a neuron that writes is read where its
        activation is."""
        return self.reading.site(self.site)

    @property
    def scorer(self) -> Scorer:
        """What gives their scores, for many activations."""
        return self.reading.scorer(self.vectors, self.index)

    def scores(self, activations: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
        """Every direction's score in float64, as their reading gives it, of activations at
        `read_at`.

        Raises:
            UserError: activations of another width; directions without a score.
        """
        if self.read_at == self.site:
            self._fits(activations.shape[-1], "these activations")
        return self.scorer(activations)

    def cosine(self, other: Directions) -> Float[Tensor, "n m"]:
        """Cosine of every vector with every vector of another set (0 with a zero vector).

        Raises:
            UserError: vectors of two spaces: neither both of the residual stream nor at one site.
        """
        check_comparable(self.site, other.site)
        self._fits(other.vectors.shape[1], "the other directions")
        return cosines(self.vectors, other.vectors)

    def coupling(self, other: Directions) -> Float[Tensor, "n m"]:
        """C(y1, y2) = y1.y2 / |y1|^2: the expected change of a score along y2 per unit of score
        along y1 (Dunefsky & Cohan, observable propagation). C12 C21 = cos^2.

        Raises:
            UserError: scores that are no products with the same activation.
        """
        self._fits(other.vectors.shape[1], "the other directions")
        ways = [(x.read_at, x.reading) for x in (self, other)]
        if ways[0] != ways[1] or not isinstance(self.reading, Product):
            told = " and ".join(f"{reading} at {site}" for site, reading in ways)
            raise UserError(f"scores read as {told} have no coupling: they read different things")
        ours, theirs = self.vectors.double(), other.vectors.double()
        return ours @ theirs.T / ours.square().sum(1, keepdim=True)

    def steer(self, row: int, scale: float = 1.0, where: Where = "all") -> Edit:
        """An edit that adds one of the vectors at the site.

        Raises:
            UserError: a multiple so long that the square of the stream overflows float32: norms
                would make zeros of it.
        """
        if not abs(scale) * float(self.vectors[row].double().norm()) < _LONGEST:
            raise UserError(f"{scale:g} times this vector overflows float32: give a smaller scale")
        return add(self.site, self.vectors[row], scale, where)

    def split_scores(
        self, split: SaeSplit, activations: Float[Tensor, "tokens d"], anyway: bool = False
    ) -> Float[Tensor, "3 tokens n"]:
        """Every score in float64, but for its constant, as the sum of three parts: in an SAE's
        reconstruction, in the linear part of its error, and in the nonlinear rest. Behind a norm
        each part is divided by the scale of the whole.

        Args:
            anyway: take an SAE that names another model.

        Raises:
            UserError: the SAE belongs to another site or model, is one of an error, or has another
                width; scores that are no products with the activation.
        """
        self._fits(activations.shape[-1], "these activations")
        split.check(str(self.site), self.provenance.model, anyway)
        parts = [self.reading.linear(part, activations) for part in split(activations)]
        scores: Tensor = torch.stack(parts) @ self.vectors.double().T
        return scores

    def split(
        self, split: SaeSplit, activations: Float[Tensor, "tokens d"], anyway: bool = False
    ) -> pd.DataFrame:
        """The index with `reconstruction`, `linear`, `nonlinear`: each part's share of the variance
        of a direction's score, cov(part, score) / var(score). The shares sum to 1; one may be
        negative. Beside them the `…_spread`s var(part) / var(score), and `variance`. NaN where a
        score does not vary.

        Least squares without a ridge leaves the nonlinear part uncorrelated with x on the tokens
        that it is fitted on, so on others its share is near 0 whatever its size, nearer the more
        tokens fit it; the spread shows its size.

        Raises:
            UserError: as `split_scores`.
        """
        found = shares(self.split_scores(split, activations, anyway)).items()
        return self.index.reset_index(drop=True).assign(**{str(c): v for c, v in found})

    def save(self, folder: str | Path) -> None:
        """Write the three files; `directions.json` last, so that a half-written set is refused.

        Raises:
            UserError: the folder cannot be written.
        """
        folder = Path(folder)
        (folder / "directions.json").unlink(missing_ok=True)
        self._write(partial(whole, folder, left="no directions are saved"))

    def save_in(self, out: RunWriter, name: str) -> None:
        """Save them as parts of a run, which their provenance then names."""
        named = replace(self, provenance=replace(self.provenance, run=out.name))
        named._write(lambda file: out.part(f"{name}/{file}"))

    def _write(self, part: Callable[[str], AbstractContextManager[Path]]) -> None:
        write_set(Stored(self.site, self.vectors, self.index, self.provenance, self.reading), part)

    @classmethod
    def load(cls, folder: str | Path) -> Directions:
        """Read what `save` wrote; what an earlier version wrote is upgraded (`old_layout`).

        Raises:
            UserError: no directions there, or damaged ones.
        """
        found = read_folder(Path(folder))
        return cls(found.site, found.vectors, found.index, found.provenance, found.reading)

    def _fits(self, width: int, what: str) -> None:
        if width != self.vectors.shape[1]:
            own = self.vectors.shape[1]
            raise UserError(
                f"directions at {self.site} have {own} numbers each, not {width} as {what}"
            )


def stored_directions(store: Store) -> list[Path]:
    """Folders of directions inside finished runs, newest run first."""
    sets = [(run, name) for run in store.runs() for name in run.files]
    return [(run.path / n).parent for run, n in sets if Path(n).name == "directions.json"]
