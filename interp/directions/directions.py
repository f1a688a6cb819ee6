"""Directions: labelled vectors at one site. What every analysis of the workbench finds.

A neuron's weight row, a probe's class vector, a feature vector: each is a vector in the space that
is read or written at one place in a model. So all of them can be decoded to tokens, scored on
activations, compared, and steered with. On disk: `vectors.safetensors`, `index.parquet`,
`directions.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import UserError
from ..model.edits import Edit, Where, add
from ..model.site import Site
from ..model.vocabulary import token_strings
from ..model.weights import Weights, open_weights
from ..progress import log
from ..runs.store import Store
from ..runs.writer import RunWriter, save_tensors
from .vectors import checked_vectors

_LONGEST = 1e18
"""The square of a longer vector is beyond float32."""


class Split(Protocol):
    """Cuts activations at a site in three: what an SAE reconstructs, the linear part of its error,
    and the nonlinear rest (`interp.saes.SaeSplit`)."""

    def check(self, site: str, model: str, anyway: bool) -> None: ...

    def __call__(self, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True)
class Directions:
    """`vectors` [n, d_space] in the space of `site`; `index` has one row of labels a vector."""

    site: Site
    vectors: Float[Tensor, "n d"]
    index: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where they come from: model, analysis, run, in plain JSON values."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.index):
            raise ValueError(
                f"{len(self.index)} labels for vectors of shape {list(self.vectors.shape)}"
            )

    @classmethod
    def of(
        cls, vectors: Any, site: str | Site, model: str, name: str | Sequence[str], source: str = ""
    ) -> Directions:
        """Vectors that were made elsewhere: one of [d], or several of [n, d], as a tensor, an array
        or lists. They are read by the bare product.

        Args:
            name: of one; of several a name each, or one that gets a number behind it.
            source: who made them, and from what.

        Raises:
            UserError: the model has no such site, or they do not fit it (see `vectors`).
        """
        site = Site.parse(site) if isinstance(site, str) else site
        weights = open_weights(model)
        checked = checked_vectors(vectors, site, weights)
        names = [name] if isinstance(name, str) else list(name)
        if isinstance(name, str) and len(checked) > 1:
            names = [f"{name} {i}" for i in range(len(checked))]
        if len(names) != len(checked):
            raise UserError(
                f"there are {len(names)} names for {len(checked)} vectors: give each one"
            )
        named = str(weights.folder) if Path(model).expanduser().exists() else model
        about = {"model": named, "fingerprint": weights.fingerprint(), "from": "import"}
        about |= {"source": source, "reading": "bare product"}
        return cls(site, checked, pd.DataFrame({"name": names}), about)

    @property
    def model(self) -> str:
        """The model they belong to, by catalog name, folder or hub id.

        Raises:
            UserError: their provenance does not name it.
        """
        model = self.provenance.get("model")
        if not isinstance(model, str):
            raise UserError("these directions do not name their model: name the model")
        return model

    def note_model(self, weights: Weights | None) -> None:
        """Warn where they are used on other weights than those they were made of."""
        made = self.provenance.get("fingerprint")
        if weights is not None and made is not None and made != weights.fingerprint():
            log.warning("these directions are of %s as it was, not of %s", self.model, weights)

    def __len__(self) -> int:
        return len(self.vectors)

    def pick(self, rows: list[int]) -> Directions:
        """Some of them, in the order given."""
        index = self.index.iloc[rows].reset_index(drop=True)
        return Directions(self.site, self.vectors[rows], index, self.provenance)

    def decode(
        self, weights: Weights, k: int = 10, norm: Literal["raw", "final"] = "raw"
    ) -> pd.DataFrame:
        """Top and bottom tokens through the LM head: the index with `top`, `bottom` (lists of
        strings), their `…_logits`, and `…_z`, the distance of the first of them from the mean logit
        in standard deviations: the same at any length, and NaN for a vector of zeros, which spells
        nothing. Ids that are no token are left out.

        `norm` "final" first multiplies by the final norm's gain, as the model does.
        """
        from ..model.readout import open_readout

        self._fits(weights.spec.d_model, "the residual stream")
        self.note_model(weights)
        vectors = self.vectors.float()
        if norm == "final":
            vectors = vectors * weights.gain("final")
        tokens = token_strings(weights.folder, weights.spec.d_vocab)
        found = open_readout(weights).decode(vectors, k)
        table = self.index.reset_index(drop=True).copy()
        for name, side in (("top", found.top), ("bottom", found.bottom)):
            table[name] = [[tokens[i] for i in ids] for ids in side.ids.tolist()]
            table[f"{name}_logits"] = found.logits(side).tolist()
            table[f"{name}_z"] = found.z(side).abs().tolist()
        return table

    def scores(self, activations: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
        """Dot product of activations at the site with every vector."""
        self._fits(activations.shape[-1], "these activations")
        scores: Tensor = activations @ self.vectors.to(activations).T
        return scores

    def cosine(self, other: Directions) -> Float[Tensor, "n m"]:
        """Cosine of every vector with every vector of another set (0 with a zero vector)."""
        self._fits(other.vectors.shape[1], "the other directions")
        ours, theirs = (normalize(x.vectors.double(), eps=1e-300) for x in (self, other))
        return ours @ theirs.T

    def coupling(self, other: Directions) -> Float[Tensor, "n m"]:
        """C(y1, y2) = y1.y2 / |y1|^2: the expected change of a score along y2 per unit of score
        along y1 (Dunefsky & Cohan, observable propagation). C12 C21 = cos^2."""
        self._fits(other.vectors.shape[1], "the other directions")
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
        self, split: Split, activations: Float[Tensor, "tokens d"], anyway: bool = False
    ) -> Float[Tensor, "3 tokens n"]:
        """Every score in float64 as the sum of three parts: in an SAE's reconstruction, in the
        linear part of its error, and in the nonlinear rest.

        Args:
            anyway: take an SAE that names another model.

        Raises:
            UserError: the SAE belongs to another site or model, is one of an error, or has another
                width.
        """
        self._fits(activations.shape[-1], "these activations")
        model = self.provenance.get("model")
        split.check(str(self.site), model if isinstance(model, str) else "", anyway)
        scores: Tensor = torch.stack(split(activations)) @ self.vectors.double().T
        return scores

    def split(
        self, split: Split, activations: Float[Tensor, "tokens d"], anyway: bool = False
    ) -> pd.DataFrame:
        """The index with `reconstruction`, `linear`, `nonlinear`: each part's share of the variance
        of a direction's score, cov(part, score) / var(score). The shares sum to 1; one may be
        negative. Beside them the `…_spread`s var(part) / var(score), and `variance`. NaN where a
        score does not vary.

        Least squares leaves the nonlinear part uncorrelated with x, so its share is about 0
        whatever its size; the spread shows its size.

        Raises:
            UserError: as `split_scores`.
        """
        parts = self.split_scores(split, activations, anyway)
        parts = parts - parts.mean(1, keepdim=True)
        score = parts.sum(0)
        variance = score.square().mean(0)
        total = torch.where(variance > 0, variance, torch.nan)
        shares, spreads = (parts * score).mean(1) / total, parts.square().mean(1) / total
        table = self.index.reset_index(drop=True).copy()
        for row, name in enumerate(("reconstruction", "linear", "nonlinear")):
            table[name] = shares[row].tolist()
            table[f"{name}_spread"] = spreads[row].tolist()
        table["variance"] = variance.tolist()
        return table

    def save(self, folder: str | Path) -> None:
        """Write the three files; `directions.json` last, so that a half-written set is refused.

        Raises:
            UserError: the folder cannot be written.
        """
        folder = Path(folder)
        writer = RunWriter(folder, {})
        with writer.part("vectors.safetensors") as making:
            (folder / "directions.json").unlink(missing_ok=True)
            save_tensors({"vectors": self.vectors}, making)
        writer.table("index", self.index)
        about = {"site": str(self.site), "provenance": self.provenance}
        with writer.part("directions.json") as making:
            making.write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> Directions:
        """Read what `save` wrote.

        Raises:
            UserError: no directions there, or damaged ones.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "directions.json").read_text())
            vectors = load_file(folder / "vectors.safetensors")["vectors"]
            index = pd.read_parquet(folder / "index.parquet")
            loaded = cls(Site.parse(about["site"]), vectors, index, about["provenance"])
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} holds no directions (no {Path(error.filename).name})"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"the directions in {folder} cannot be read ({reason})") from error
        if not vectors.isfinite().all():
            raise UserError(f"the directions in {folder} hold a NaN or an infinity: make them anew")
        return loaded

    def _fits(self, width: int, what: str) -> None:
        if width != self.vectors.shape[1]:
            own = self.vectors.shape[1]
            raise UserError(
                f"directions at {self.site} have {own} numbers each, not {width} as {what}"
            )


def stored_directions(store: Store) -> list[Path]:
    """Folders of directions inside finished runs, newest run first."""
    return [
        path.parent for run in store.runs() for path in sorted(run.path.rglob("directions.json"))
    ]
