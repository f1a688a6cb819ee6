"""Scores of directions on rows of a corpus, a batch a part, by one worker or by several.

A part carries its rows, so a worker needs the model and the directions and no corpus. Parts are
joined in their order: the scores are those of one process to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, save

from interp.kernels import Scores, Statistics

from ..errors import UserError
from ..model.prompting import Bos
from ..runs.store import Store
from ..runs.workers import HERE, map_parts
from ..runs.workers_task import Task, Workers
from ..text.stream import advancing, batch_scores

if TYPE_CHECKING:
    from ..model.subject import Subject
    from .directions import Directions

BATCH = 8
"""Rows in a pass."""
_COLUMNS = ("smallest", "largest", "top", "rows", "positions")


@dataclass(frozen=True)
class Part:
    """Rows of token ids that go through the model together."""

    first: int
    """The number of the first one in the corpus."""
    ids: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return f"rows {self.first} to {self.first + len(self.ids) - 1}"


@dataclass(frozen=True, eq=False)
class Opened:
    """Scores parts with what this process has opened."""

    subject: Subject
    directions: Directions
    keep: int
    special: bool

    def open(self) -> Opened:
        return self

    def make(self, opened: Opened, part: Part) -> bytes:
        """A part's scores, as `_read` reads them; b"" where none of its tokens counts."""
        return opened.scores(part)

    def scores(self, part: Part) -> bytes:
        site, pieces = self.directions.read_at, self.directions.scorer.pieces
        ((_, found),) = batch_scores(
            self.subject, part.ids, {site: pieces}, self.keep, BATCH, self.special, part.first
        )
        return _written(found[site]) if found else b""


@dataclass(frozen=True)
class Named:
    """Scores parts with what a worker opens by its names."""

    source: str
    """The directions, as `open_directions` takes them."""
    model: str
    runs: str
    """The folder of stored runs."""
    bos: Bos
    keep: int
    special: bool
    prints: tuple[str, ...]
    """Of the model, its tokenizer and the directions."""

    def open(self) -> Opened:
        from ..model.subject import open_subject
        from .sources import open_directions

        directions = open_directions(self.source, self.model, Store(Path(self.runs)))
        subject = open_subject(self.model, bos=self.bos)
        if prints_of(subject, directions) != self.prints:
            raise UserError(
                f"{self.model} or {self.source} is another here than where the command was "
                "started: copy the same files to this machine"
            )
        return Opened(subject, directions, self.keep, self.special)

    def make(self, opened: Opened, part: Part) -> bytes:
        return opened.scores(part)


@dataclass(frozen=True)
class Others:
    """Workers beside this process, and the names by which they open what it has opened."""

    workers: Workers
    source: str
    model: str
    runs: Path


def prints_of(subject: Subject, directions: Directions) -> tuple[str, ...]:
    """What the scores depend on, but for the rows."""
    prints = subject.weights.fingerprints().values() if subject.weights else ()
    return *prints, directions.identity


def scored(
    subject: Subject,
    rows: Sequence[Sequence[int]],
    directions: Directions,
    keep: int,
    special: bool = False,
    others: Others | None = None,
) -> Scores:
    """The scores of directions on rows: `text.stream.project_scores`, part by part.

    Raises:
        UserError: as that; a worker finds another model or other directions.
    """
    task: Task[Part] = Opened(subject, directions, keep, special)
    if others:
        root, prints = str(others.runs.absolute()), prints_of(subject, directions)
        bos = subject.prompting.bos
        task = Named(others.source, others.model, root, bos, keep, special, prints)
    parts = [
        Part(at, tuple(tuple(map(int, row)) for row in rows[at : at + BATCH]))
        for at in range(0, len(rows), BATCH)
    ]
    if not parts:
        raise UserError("there are no rows of tokens: give a corpus with text")

    def each() -> Iterator[Scores]:
        workers = others.workers if others else HERE
        with advancing("score", rows) as advance:
            for part, made in map_parts(task, parts, workers, advance, ordered=True):
                if made:
                    yield _read(made)
                advance(sum(map(len, part.ids)))

    found = each()
    if (first := next(found, None)) is None:
        raise UserError("no token of the rows counts: give longer rows, or --special")
    return reduce(lambda before, new: before.join(new, keep), found, first)


def _written(scores: Scores) -> bytes:
    moments = scores.statistics
    tensors = {
        "count": torch.tensor(moments.count),
        "mean": moments.mean,
        "squares": moments.squares,
    }
    tensors |= {name: getattr(scores, name) for name in _COLUMNS}
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def _read(made: bytes) -> Scores:
    held = load(made)
    moments = Statistics(int(held["count"]), held["mean"], held["squares"])
    return Scores(moments, *(held[name] for name in _COLUMNS))
