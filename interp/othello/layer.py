"""One layer of the comparison: read it, probe it, match its dictionaries, write its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from interp.probes.metrics import as_array

from ..directions import Directions
from ..model.site import Site
from ..model.subject import Subject
from ..runs.store import RunWriter, save_tensors
from ..saes.sae import Sae, load_sae
from .facts import STATES, TILES, read
from .match import Match, match
from .readers import (
    Boards,
    Probes,
    Rows,
    autoencoder_rows,
    colour_rows,
    cosine_rows,
    dictionary_rows,
    majority_rows,
    probe_rows,
    shortcut_rows,
    stability_rows,
)

Values = npt.NDArray[np.float32]
Games = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""The choosing and the scoring ones."""


class Dictionary(NamedTuple):
    """Activations of some features on the choosing and the scoring games."""

    reader: str
    seed: int
    choose: Values
    score: Values
    sae: Sae | None = None


@dataclass(frozen=True)
class LayerJob:
    """What is the same for every reader of a layer."""

    layer: int
    boards: Boards
    ridge: float
    passes: int
    seed: int
    k: int
    """Active random directions a token."""
    model: str
    out: RunWriter
    advance: Callable[..., None]

    def run(
        self, subject: Subject, twin: Subject, games: Games, saes: list[tuple[str, int, Path]]
    ) -> None:
        """Everything about the layer; its scores are the last part to be written."""
        stream, neurons = Site("resid_post", self.layer), Site("mlp_post", self.layer)
        own = self._read(subject, games, [stream, neurons])
        probes = self._probes(*own[stream])
        rows = [*self._baselines(), *probes.rows]
        found: list[tuple[Dictionary, Match]] = []
        rules: list[pd.DataFrame] = []
        for dictionary in self._dictionaries(own, stream, neurons, saes):
            matched = match(dictionary.choose, dictionary.score, self.boards.asked)
            rows += self._tagged(self._matched_rows(dictionary, matched, own[stream], probes),
                                 dictionary.reader, dictionary.seed)  # fmt: skip
            if dictionary.sae:
                rules.append(_rules_table(matched.rules, dictionary.reader, dictionary.seed))
            kept = dictionary._replace(choose=_NOTHING, score=_NOTHING)
            found.append((kept, matched))
            self.advance(1, f"layer {self.layer}, {dictionary.reader}")
        rows += self._random_model(twin, games, stream, neurons)
        self._write(stream, rows, found, rules, probes)

    def _read(
        self, subject: Subject, games: Games, sites: list[Site]
    ) -> dict[Site, tuple[Tensor, Tensor]]:
        kept = (self.boards.choose.kept, self.boards.score.kept)
        both = [read(subject, g, sites, k) for g, k in zip(games, kept, strict=True)]
        return {site: (both[0][site], both[1][site]) for site in sites}

    def _tagged(self, rows: Rows, reader: str, seed: int = 0) -> Rows:
        return [{"layer": self.layer, "reader": reader, "seed": seed, **r} for r in rows]

    def _probes(self, x: Tensor, y: Tensor) -> Probes:
        settings = (self.boards, self.ridge, self.passes)
        found = probe_rows(x, y, *settings)
        self.advance(1, f"layer {self.layer}, probe of own and enemy")
        rows = [*found.rows, *colour_rows(x, y, *settings)]
        self.advance(1, f"layer {self.layer}, probe of black and white")
        rows += stability_rows(x, y, *settings)
        self.advance(1, f"layer {self.layer}, probe of stable discs")
        return found._replace(rows=self._tagged(rows, "probe"))

    def _baselines(self) -> Rows:
        rows = self._tagged(majority_rows(self.boards), "majority")
        for reader, part in shortcut_rows(self.boards).items():
            rows += self._tagged(part, reader)
        return rows

    def _dictionaries(
        self,
        own: dict[Site, tuple[Tensor, Tensor]],
        stream: Site,
        neurons: Site,
        saes: list[tuple[str, int, Path]],
    ) -> Iterator[Dictionary]:
        x, y = own[stream]
        choose, score = (as_array(part) for part in own[neurons])
        yield Dictionary("neurons", 0, choose, score)
        for arch, seed, folder in saes:
            sae = load_sae(folder)
            yield Dictionary(arch, seed, as_array(sae.encode(x)), as_array(sae.encode(y)), sae)
        generator = torch.Generator().manual_seed(self.seed)
        width = sae.d_sae if saes else 8 * x.shape[1]
        vectors = torch.randn(x.shape[1], width, generator=generator)
        choose, score = (as_array(_sparse((part - x.mean(0)) @ vectors, self.k)) for part in (x, y))
        yield Dictionary("random directions", 0, choose, score)

    def _matched_rows(
        self, dictionary: Dictionary, found: Match, stream: tuple[Tensor, Tensor], probes: Probes
    ) -> Rows:
        rows = dictionary_rows(found, dictionary.score, self.boards)
        if dictionary.sae:
            z = torch.from_numpy(dictionary.score)
            x_hat = dictionary.sae.decode(z)
            rows += autoencoder_rows(stream[1], z, x_hat, probes, self.boards)
            rows += cosine_rows(found, dictionary.sae.W_dec, probes)
        return rows

    def _random_model(self, twin: Subject, games: Games, stream: Site, neurons: Site) -> Rows:
        """The same architecture with random weights: its stream probed, its neurons matched."""
        found = self._read(twin, games, [stream, neurons])
        probes = probe_rows(*found[stream], self.boards, self.ridge, self.passes)
        self.advance(1, f"layer {self.layer}, random model")
        x, y = (as_array(part) for part in found[neurons])
        rows = dictionary_rows(match(x, y, self.boards.asked), y, self.boards)
        self.advance(1, f"layer {self.layer}, random model's neurons")
        return [
            *self._tagged(probes.rows, "random model probe"),
            *self._tagged(rows, "random model neurons"),
        ]

    def _write(
        self,
        stream: Site,
        rows: Rows,
        found: list[tuple[Dictionary, Match]],
        rules: list[pd.DataFrame],
        probes: Probes,
    ) -> None:
        name = f"L{self.layer}"
        about = {"model": self.model, "from": "othello.compare"}
        folder = self.out.path / "directions"
        for kind, vectors in (("probe", probes.coef), ("means", probes.means)):
            class_directions(stream, vectors, probes.intercept, about).save(
                folder / f"{kind}-{name}"
            )
        maps: dict[str, Tensor] = {}
        for dictionary, matched in found:
            if dictionary.sae:
                tag = f"{dictionary.reader}-S{dictionary.seed}"
                _latent_directions(stream, dictionary.sae, matched, about).save(
                    folder / f"{dictionary.reader}-{name}-S{dictionary.seed}"
                )
                for what in ("auroc", "f1"):
                    maps[f"{what}.{tag}"] = torch.from_numpy(getattr(matched, what)).half()
        with self.out.part(f"maps/{name}.safetensors") as path:
            save_tensors(maps, path)
        with self.out.part(f"rules/{name}.parquet") as path:
            pd.concat([_NO_RULES, *rules]).assign(layer=self.layer).to_parquet(path)
        best = [m.best.assign(layer=self.layer, reader=d.reader, seed=d.seed) for d, m in found]
        with self.out.part(f"latents/{name}.parquet") as path:
            pd.concat(best, ignore_index=True).to_parquet(path)
        with self.out.part(f"scores/{name}.parquet") as path:
            pd.DataFrame(rows).to_parquet(path)


_NOTHING = np.zeros((0, 0), np.float32)
_NO_RULES = pd.DataFrame(
    {"reader": [], "seed": [], "latent": [], "kind": [], "tile": [], "threshold": []}
)


def _sparse(z: Tensor, k: int) -> Tensor:
    """The k largest of each row that are positive, as in a TopK autoencoder."""
    top = z.topk(k, dim=1)
    return torch.zeros_like(z).scatter_(1, top.indices, top.values.relu())


def _rules_table(rules: Values, reader: str, seed: int) -> pd.DataFrame:
    latent, column = np.nonzero(np.isfinite(rules))
    return pd.DataFrame(
        {
            "reader": reader,
            "seed": seed,
            "latent": latent,
            "kind": np.where(column < 64, "own", "enemy"),
            "tile": column % 64,
            "threshold": rules[latent, column],
        }
    )


def class_directions(
    site: Site, vectors: Tensor, intercept: Tensor, about: dict[str, Any]
) -> Directions:
    """Rows by state, then tile, as `facts.labels` orders its columns."""
    index = pd.DataFrame(
        [
            {"name": f"{state} {TILES[tile]}", "kind": state, "tile": tile}
            for state in STATES
            for tile in range(64)
        ]
    )
    index["intercept"] = intercept.T.flatten().tolist()
    return Directions(site, vectors.transpose(0, 1).flatten(0, 1), index, about)


def _latent_directions(site: Site, sae: Sae, found: Match, about: dict[str, Any]) -> Directions:
    columns = ["name", "kind", "tile", "latent_auroc", "auroc", "f1"]
    index = found.best[columns].rename(columns={"latent_auroc": "latent"})
    return Directions(site, sae.W_dec[index["latent"].tolist()].clone(), index, about)
