"""One layer of the comparison: read it, probe it, match its dictionaries, write its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from interp.probes.metrics import as_array

from ..directions import Directions
from ..directions.encoder import Encoder
from ..directions.provenance import Provenance
from ..model.site import Site
from ..model.subject import Subject
from ..runs.writer import RunWriter, save_tensors
from ..saes import Sae, open_sae
from . import readers
from .board_labels import STATES, read_activations, tile_index
from .match import Match, match
from .readers import Boards, Probes, Rows
from .sae import directions_name
from .study import ProbedStudy

Values = npt.NDArray[np.float32]
Games = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""The choosing and the scoring games."""


@dataclass(frozen=True)
class LayerJob:
    """The comparison of one layer, and the settings that all its readers share."""

    layer: int
    boards: Boards
    config: ProbedStudy
    seed: int
    """Seed of the random directions."""
    k: int
    """Active random directions per token."""
    out: RunWriter
    advance: Callable[..., None]

    def run(
        self,
        subject: Subject,
        random_model: Subject,
        games: Games,
        saes: Sequence[tuple[str, int, Path]],
    ) -> None:
        """Score every reader of the layer and write its parts, the scores last."""
        stream, neurons = Site("resid_post", self.layer), Site("mlp_post", self.layer)
        own = self._read(subject, games, [stream, neurons])
        probes = self._probes(*own[stream])
        baselines = {"majority": readers.majority_rows(self.boards)}
        baselines |= readers.shortcut_rows(self.boards)
        rows = [row for name, part in baselines.items() for row in self._tagged(part, name)]
        rows += probes.rows
        folders = {(arch, seed): folder for arch, seed, folder in saes}
        matches: list[tuple[str, int, Path | None, Match]] = []
        dictionaries = self._dictionaries(own[stream], own[neurons], saes)
        for reader, seed, sae, choose, score in dictionaries:
            matched = match(choose, score, self.boards.targets)
            scored = readers.dictionary_rows(matched, score, self.boards)
            if sae:
                x, z = own[stream][1], torch.from_numpy(score)
                scored += readers.autoencoder_rows(x, z, sae.decode(z), probes, self.boards)
                scored += readers.cosine_rows(matched, sae.W_dec, probes)
            rows += self._tagged(scored, reader, seed)
            matches.append((reader, seed, folders.get((reader, seed)), matched))
            self.advance(1, f"layer {self.layer}, {reader}")
        rows += self._random_model(random_model, games, stream, neurons)
        self._write(stream, rows, matches, probes)

    def _read(
        self, subject: Subject, games: Games, sites: list[Site]
    ) -> dict[Site, tuple[Tensor, Tensor]]:
        kept = (self.boards.choose.kept, self.boards.score.kept)
        both = [read_activations(subject, g, sites, k) for g, k in zip(games, kept, strict=True)]
        return {site: (both[0][site], both[1][site]) for site in sites}

    def _tagged(self, rows: Rows, reader: str, seed: int = 0) -> Rows:
        return [{"layer": self.layer, "reader": reader, "seed": seed, **r} for r in rows]

    def _probes(self, x: Tensor, y: Tensor) -> Probes:
        settings = (self.boards, self.config.ridge, self.config.passes)
        probes = readers.probe_rows(x, y, *settings)
        self.advance(1, f"layer {self.layer}, probe of own and enemy")
        rows = [*probes.rows, *readers.colour_rows(x, y, *settings)]
        self.advance(1, f"layer {self.layer}, probe of black and white")
        rows += readers.stability_rows(x, y, *settings)
        self.advance(1, f"layer {self.layer}, probe of stable discs")
        return probes._replace(rows=self._tagged(rows, "probe"))

    def _dictionaries(
        self,
        stream: tuple[Tensor, Tensor],
        neurons: tuple[Tensor, Tensor],
        saes: Sequence[tuple[str, int, Path]],
    ) -> Iterator[tuple[str, int, Sae | None, Values, Values]]:
        """Each set of features: reader, seed, its SAE if it is one's latents, and its activations
        on the choosing and on the scoring games."""
        yield "neurons", 0, None, as_array(neurons[0]), as_array(neurons[1])
        for arch, seed, folder in saes:
            sae = open_sae(folder)
            choose, score = (as_array(sae.encode(part)) for part in stream)
            yield arch, seed, sae, choose, score
        generator = torch.Generator().manual_seed(self.seed)
        mean = stream[0].mean(0)
        # as many as the SAEs have latents
        vectors = torch.randn(len(mean), sae.d_sae, generator=generator)
        choose, score = (as_array(_sparse((part - mean) @ vectors, self.k)) for part in stream)
        yield "random directions", 0, None, choose, score

    def _random_model(self, model: Subject, games: Games, stream: Site, neurons: Site) -> Rows:
        """The same architecture with random weights: its stream probed, its neurons matched."""
        activations = self._read(model, games, [stream, neurons])
        x, y = activations[stream]
        probes = readers.probe_rows(x, y, self.boards, self.config.ridge, self.config.passes)
        self.advance(1, f"layer {self.layer}, random model")
        choose, score = (as_array(part) for part in activations[neurons])
        matched = match(choose, score, self.boards.targets)
        rows = readers.dictionary_rows(matched, score, self.boards)
        self.advance(1, f"layer {self.layer}, random model's neurons")
        return [
            *self._tagged(probes.rows, "random model probe"),
            *self._tagged(rows, "random model neurons"),
        ]

    def _write(
        self,
        stream: Site,
        rows: Rows,
        matches: list[tuple[str, int, Path | None, Match]],
        probes: Probes,
    ) -> None:
        made = Provenance.of("othello.compare", self.config.stored_weights)
        directions = {
            ("probe", 0): class_directions(stream, probes.coef, made, probes.intercept),
            ("means", 0): class_directions(stream, probes.means, made),
        }
        maps: dict[str, Tensor] = {}
        rules: list[pd.DataFrame] = []
        best: list[pd.DataFrame] = []
        for reader, seed, folder, matched in matches:
            best.append(matched.best.assign(reader=reader, seed=seed))
            if folder:
                directions[reader, seed] = _latent_directions(stream, folder, matched, made)
                maps[f"auroc.{reader}-S{seed}"] = torch.from_numpy(matched.auroc).half()
                maps[f"f1.{reader}-S{seed}"] = torch.from_numpy(matched.f1).half()
                rules.append(_rules_table(matched.rules).assign(reader=reader, seed=seed))
        for (reader, seed), vectors in directions.items():
            vectors.save_in(self.out, f"directions/{directions_name(reader, seed, self.layer)}")
        name = f"L{self.layer}"
        with self.out.part(f"maps/{name}.safetensors") as path:
            save_tensors(maps, path)
        for table, parts in (("rules", rules), ("latents", best)):
            whole = pd.concat(parts, ignore_index=True).assign(layer=self.layer)
            self.out.table(f"{table}/{name}", whole)
        self.out.table(f"scores/{name}", rows)


def _sparse(z: Tensor, k: int) -> Tensor:
    """The k largest of each row that are positive, as in a TopK autoencoder."""
    top = z.topk(k, dim=1)
    return torch.zeros_like(z).scatter_(1, top.indices, top.values.relu())


def _rules_table(rules: Values) -> pd.DataFrame:
    latent, column = np.nonzero(np.isfinite(rules))
    return pd.DataFrame(
        {
            "latent": latent,
            "kind": np.where(column < 64, "own", "enemy"),
            "tile": column % 64,
            "threshold": rules[latent, column],
        }
    )


def class_directions(
    site: Site, vectors: Tensor, made: Provenance, intercept: Tensor | None = None
) -> Directions:
    """Class vectors [64, 3, d] with a probe's intercepts [64, 3]: rows by state, then by tile."""
    index = tile_index(STATES)
    if intercept is not None:
        index["constant"] = intercept.T.flatten().tolist()
    return Directions(site, vectors.transpose(0, 1).flatten(0, 1), index, made)


def _latent_directions(site: Site, folder: Path, matched: Match, made: Provenance) -> Directions:
    columns = ["name", "kind", "tile", "latent_auroc", "auroc", "f1"]
    index = matched.best[columns].rename(columns={"latent_auroc": "latent"})
    reading, sae = Encoder.of(str(folder))
    vectors = sae.W_dec[index["latent"].tolist()]
    return Directions(site, vectors, index, made, reading)
