"""What the model is run for in an observable's run, part by part, by any worker: batches of
examples that are read, passes of the checks, and other pairs that are searched.

What is found on the task's own pair is known before: the parts get it as `Found`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..model.site import Site
from ..runs.parted_tables import Made, kept_parts
from ..runs.study_task import Config, StudyTask
from ..runs.writer import RunWriter
from . import checks
from .evaluate import ReadBatch, ReadExamples, batches, joined
from .opened import FoundFeature, OpenedTask, strongest
from .paths import show
from .search import FoundPath, Pair
from .tasks import Example, draw_pairs
from .trace import trace_pair

if TYPE_CHECKING:
    from ..model.subject import Subject
    from ..runs.workers_task import Workers

Kind = Literal["held-out", "training", "ablation", "steering", "pair"]


class Settings(Config, Protocol):
    """What the parts need of a study's config."""

    @property
    def pairs(self) -> int: ...

    @property
    def spread(self) -> Workers: ...

    def open_here(self, *, attention: str) -> Subject: ...

    def opened(self, subject: Subject) -> OpenedTask: ...

    def searched(self, opened: OpenedTask, pair: Pair) -> list[FoundPath]: ...


class Part(NamedTuple):
    """The batch of examples, the pass or the pair of a number."""

    kind: Kind
    number: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.number}"


class Found(NamedTuple):
    """What the parts need to know of the task's own pair."""

    sites: tuple[str, ...]
    """Where held-out examples are read."""
    site: str
    """Of the task's own feature."""
    vector: bytes
    """It, in float32."""
    length: float
    """How far apart the classes are along it; 0 for code, which is not steered."""

    @classmethod
    def of(cls, opened: OpenedTask, features: Sequence[FoundFeature], best: FoundFeature) -> Found:
        sites = list(dict.fromkeys(each.site for each in features))
        apart = 0.0
        if not opened.task.sources:  # at every site of a feature, as other pairs have other ones
            layers = range(opened.weights.spec.n_layers)
            sites = [Site(kind, i) for i in layers for kind in ("resid_pre", "mlp_in")]
            apart = checks.apart(opened, best.directions)
        vector = best.directions.vectors[0].float().numpy().tobytes()
        return cls(tuple(map(str, sites)), str(best.site), vector, apart)

    @property
    def direction(self) -> Tensor:
        return torch.frombuffer(bytearray(self.vector), dtype=torch.float32)


@dataclass(frozen=True)
class _Parts(StudyTask[Settings]):
    """Makes a table of each part."""

    found: Found

    def opened(self) -> OpenedTask:
        return self.config.opened(self.config.open_here(attention="eager"))

    def made(self, opened: OpenedTask, part: Part) -> Made:
        (kind, number), found = part, self.found
        if kind == "pair":
            drawn = draw_pairs(opened.split.train, self.config.pairs, opened.seed)
            return Made.of({}, [pair_found(self.config, opened, drawn[number])])
        if kind == "ablation" or kind == "steering":
            change = checks.changes(kind, found.direction, opened.seed)[number]
            values = checks.changed(opened, kind, change, Site.parse(found.site), found.length)
            return Made.of({}, pd.DataFrame({"observable": values.tolist()}))
        held_out = kind == "held-out"
        chosen = opened.split.held_out if held_out else opened.split.train
        sites = list(map(Site.parse, found.sites if held_out else (found.site,)))
        read = opened.read_batch([chosen[i] for i in batches(chosen)[number]], sites)
        columns = {str(site): list(x) for site, x in read.activations.items()}
        return Made.of({}, pd.DataFrame({"observable": read.observable, **columns}))


@dataclass(frozen=True)
class MadeParts:
    """The tables of a run's parts."""

    opened: OpenedTask
    tables: dict[Part, pd.DataFrame]

    @cached_property
    def held_out(self) -> ReadExamples:
        """The held-out examples where the features read; of templates at every site of one."""
        return self._read("held-out", self.opened.split.held_out)

    @cached_property
    def training(self) -> ReadExamples:
        """The training examples where the task's own feature reads."""
        return self._read("training", self.opened.split.train)

    def _read(self, kind: Kind, chosen: Sequence[Example]) -> ReadExamples:
        read = [
            ReadBatch(
                {Site.parse(c): np.stack(list(table[c])) for c in table.columns[1:]},
                table["observable"].to_numpy(),
            )
            for table in self._of(kind)
        ]
        return joined(chosen, read)

    def values(self, kind: checks.Kind) -> list[Tensor]:
        """The observable at each example, after every change."""
        return [
            torch.from_numpy(table["observable"].to_numpy(copy=True)) for table in self._of(kind)
        ]

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """What `pair_found` gives of each pair."""
        rows = (table.to_dict("records")[0] for table in self._of("pair"))
        return [{str(name): value for name, value in row.items()} for row in rows]

    def _of(self, kind: Kind) -> list[pd.DataFrame]:
        return [table for part, table in self.tables.items() if part.kind == kind]


def made_parts(
    config: Settings,
    out: RunWriter,
    opened: OpenedTask,
    features: Sequence[FoundFeature],
    best: FoundFeature,
) -> MadeParts:
    """Run the model for all that the tables need, but for the task's own pair.

    Args:
        opened: what this process has opened; it makes the parts where it is alone.
    """
    counts: dict[Kind, int] = {
        "held-out": len(batches(opened.split.held_out)),
        "training": len(batches(opened.split.train)),
    }
    if not opened.task.sources:
        for kind in checks.KINDS:
            counts[kind] = len(checks.changes(kind, best.directions.vectors[0], opened.seed))
        counts["pair"] = len(draw_pairs(opened.split.train, config.pairs, opened.seed))
    parts = [Part(kind, i) for kind, count in counts.items() for i in range(count)]
    task = _Parts.of(config, found=Found.of(opened, features, best))
    how = (config.spread, "read, check and search", "parts")
    pieces = kept_parts(out, ("parts",), task.held(opened, config.spread), parts, *how)
    return MadeParts(opened, {part: out.read_table(piece) for part, (piece,) in pieces.items()})


def pair_found(
    config: Settings, opened: OpenedTask, examples: tuple[Example, Example]
) -> dict[str, Any]:
    """What the search finds on a pair of training examples: prompt, counterfactual; where a path
    carries the difference also path, site, effect, and its feature as vector and constant."""
    one, other = (opened.subject.pad([example.ids]) for example in examples)
    pair = Pair(*trace_pair(opened.subject, opened.weights, (one, other), "pair"))
    prompt, counterfactual = map(opened.words, examples)
    row: dict[str, Any] = {"prompt": prompt, "counterfactual": counterfactual}
    found = strongest(config.searched(opened, pair), examples[0].reads)
    if found is None:
        return row
    best = opened.feature(found, pair)
    row |= {"path": show(found.path), "site": str(best.site), "effect": found.effect}
    return {**row, "vector": best.vector, "constant": best.constant}
