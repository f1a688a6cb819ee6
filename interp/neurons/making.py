"""What workers make of an atlas: the tables of a slice of a layer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.site import Site
from ..runs.parts import file_of, write_table
from ..runs.study_task import Config, LendingTask, TaskInSteps
from .compiling import compile_apart
from .decode import Decoder, Found, random_like
from .indexing import write_rows
from .slices import VOCABULARY, Part, Piece, Slice

if TYPE_CHECKING:
    from ..lens.lens import Lens
    from ..model.weights import Weights
    from ..runs.workers_lent import Lent


class Settings(Config, Protocol):
    """What the parts need of an atlas's config."""

    @property
    def k(self) -> int: ...

    @property
    def all_ids(self) -> bool: ...

    @property
    def own_device(self) -> str: ...

    @property
    def norm(self) -> Literal["raw", "final", "mlp"]: ...

    @property
    def lens(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def stored_weights(self) -> Weights: ...

    @property
    def opened_lens(self) -> Lens: ...

    def slices(self, layer: int) -> list[Slice]: ...


class Slices(TaskInSteps[Settings], LendingTask[Settings]):
    """Makes the tables of an atlas's slices as the bytes of their files. The unembedding is opened
    once and lent to all workers."""

    def lend(self) -> Lent:
        return self.opened().lent()

    def opened(self, lent: Lent | None = None) -> Decoder:
        own = self.config
        if own.own_device == "cpu":
            compile_apart()
        return Decoder(own.stored_weights, own.k, own.all_ids, own.own_device, lent)

    def begun(self, opened: Decoder, part: Part) -> list[tuple[Found, int]]:
        """What the vectors of a slice score, with the number of its neurons', for a layer of
        experts expert by expert; nothing of VOCABULARY."""
        if part == VOCABULARY:
            return []
        own = self.config.slices(part.layer)[part.number]
        return [
            (self._piece(part.layer, piece, random, opened), piece.vectors)
            for piece, random in zip(own.pieces, own.random, strict=True)
        ]

    def finished(self, opened: Decoder, begun: list[tuple[Found, int]]) -> list[bytes]:
        """The files of a slice, as FOLDERS has them; of VOCABULARY the one table of the tokens."""
        if not begun:
            return [file_of(lambda file: write_table(opened.vocabulary, file))]
        pieces = [(opened.rows(found), count) for found, count in begun]
        random = [side.slice(count) for sides, count in pieces for side in sides]
        neurons = [side.slice(0, count) for sides, count in pieces for side in sides]
        tables = map(pa.concat_tables, (random, neurons))
        return [file_of(partial(write_rows, rows)) for rows in tables]

    def _piece(self, layer: int, piece: Piece, random: int, decoder: Decoder) -> Found:
        """What the neurons of a layer's MLP or of one of its experts score, and then random
        directions."""
        own, (every, index) = self.config, self._vectors(layer, piece, random)
        if own.lens:
            every = own.opened_lens.vectors(every, Site("mlp_out", layer))
        elif own.norm != "raw":
            every *= own.stored_weights.gain(own.norm, layer if own.norm == "mlp" else None)
        return decoder.find(every, index)

    def _vectors(
        self, layer: int, piece: Piece, random: int
    ) -> tuple[Float[Tensor, "n d_model"], pd.DataFrame]:
        """The vectors of a piece and then its random directions, and which each is."""
        weights, seeds = self.config.stored_weights, [self.config.seed, layer]
        vectors, numbers, randoms, drawn = [], [], [], []
        for kind in piece.kinds:
            rows = weights.in_stream(kind, layer, piece.expert, piece.some)
            seed = [*seeds, *f"{piece.expert}{kind}".encode()]
            seed += [piece.start] if piece.start else []
            places, directions = random_like(rows, random, seed)
            vectors.append(rows)
            numbers.append(np.arange(piece.start, piece.stop))
            randoms.append(directions)
            drawn.append(piece.start + places)
        of_kind = np.repeat(2 * piece.kinds, [len(places) for places in (*numbers, *drawn)])
        index = {"layer": np.full(len(of_kind), layer, np.int16), "kind": of_kind}
        if weights.spec.n_experts:
            index["expert"] = np.full(len(of_kind), piece.expert)
        index["neuron"] = np.concatenate([*numbers, *drawn]).astype(np.int32)
        return torch.cat([*vectors, *randoms]), pd.DataFrame(index)
