"""A task opened on a model, and the features of the paths found there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..directions import Directions
from ..errors import UserError
from ..model.site import Site
from ..model.subject import Subject
from ..model.weights import Weights
from .evaluate import Array, ReadBatch, ReadExamples, read_batch, read_examples
from .model_weights import StackedWeights
from .observables import Observable, make_observable
from .paths import Feature, PathInPrompt, path_feature
from .propagate import readout
from .scoring import as_directions
from .search import FoundPath, Pair
from .task_files import Task
from .tasks import Example, Split, examples, pair_reads
from .trace import trace_pair


class FoundFeature(NamedTuple):
    """A path, its feature, and the feature as a direction at its site."""

    found: FoundPath
    feature: Feature
    directions: Directions

    @property
    def site(self) -> Site:
        return self.feature.site

    def scores(self, read: ReadExamples) -> Array:
        """Scores [examples] of what was read at its site."""
        return scores_of(read, self.site, self.vector, self.constant)

    @property
    def vector(self) -> Array:
        """The direction."""
        vector: Array = self.directions.vectors[0].double().numpy()
        return vector

    @property
    def constant(self) -> float:
        """What is added to its scores."""
        return float(self.directions.index["constant"].iloc[0])


def scores_of(read: ReadExamples, site: Site, vector: Array, constant: float) -> Array:
    """Scores [examples] of a direction at a site, of what was read there."""
    scores: Array = read.activations[site] @ vector + constant
    return scores


@dataclass(frozen=True)
class OpenedTask:
    """What every step of the study works on; none of them changes it."""

    task: Task
    observable: Observable
    subject: Subject
    weights: StackedWeights
    split: Split
    pair: Pair
    """The task's own."""
    label_positions: frozenset[int]
    """Of the pair's prompt, where a feature of the task may be read: in code every position but the
    first; else where an example with its word is read, or the last token that differs."""
    seed: int

    def feature(self, found: FoundPath, pair: Pair) -> FoundFeature:
        """The feature of a path that was found on a pair of prompts, norms frozen there."""
        prompt = PathInPrompt(pair.clean, found.positions, pair.other)
        feature = path_feature(self.weights, self.observable, found.path, "frozen", prompt)
        return FoundFeature(found, feature, self.directions([feature]))

    def directions(self, features: Sequence[Feature]) -> Directions:
        """Features of one site."""
        about = {"observable": self.task.name, "pair": list(self.task.pair)}
        return as_directions(self.weights, features, "obsprop.run", **about)

    def words(self, example: Example) -> str:
        """An example's text, without what goes before it."""
        return self.subject.prompting.text(example.ids[len(self.subject.prompting.start) :])

    def read(self, chosen: Sequence[Example], sites: Sequence[Site], label: str) -> ReadExamples:
        """Examples at some sites, with the observable where it has a meaning."""
        return read_examples(self.subject, chosen, sites, self._readout, label)

    def read_batch(self, chosen: Sequence[Example], sites: Sequence[Site]) -> ReadBatch:
        """As `read`, of one of the examples' `batches`."""
        return read_batch(self.subject, chosen, sites, self._readout)

    @property
    def _readout(self) -> Callable[[Tensor], Tensor] | None:
        return None if self.task.sources else readout(self.weights, self.observable)


def open_task(task: Task, stored: Weights, subject: Subject, seed: int, windows: int) -> OpenedTask:
    """Fills and splits the examples, and traces the pair.

    Args:
        subject: opened with attention patterns.

    Raises:
        UserError: words, examples or prompts that the model cannot take.
    """
    observable = make_observable(task.name, task.observable, stored)
    split = examples(task, subject.prompting, seed, windows)
    weights = StackedWeights(stored)
    pair = Pair(*trace_pair(subject, weights, task.pair, task.name))
    if task.sources:
        positions = frozenset(range(1, len(pair.clean.ids)))
    else:
        differ = (pair.clean.ids != pair.other.ids).nonzero()[:, 0].tolist()
        positions = frozenset(pair_reads(task, subject.prompting) or [max(differ)])
    return OpenedTask(task, observable, subject, weights, split, pair, positions, seed)


def strongest(paths: Sequence[FoundPath], label_positions: Collection[int]) -> FoundPath | None:
    """The strongest path that carries the difference forward from where the label can be read."""
    forward = [path for path in paths if path.positions[0] in label_positions and path.effect > 0]
    return max(forward, key=lambda path: path.effect, default=None)


def choose(
    paths: Sequence[FoundPath], opened: OpenedTask, count: int
) -> tuple[list[FoundPath], FoundPath]:
    """(the paths to score, strongest first; the task's own among them). Half of them are read where
    the label can be read, if there are so many.

    Raises:
        UserError: no path carries the difference from there.
    """
    positions = opened.label_positions
    own = strongest(paths, positions)
    if own is None:
        where = "" if opened.task.sources else f" from token {max(positions)}, where the word ends"
        raise UserError(
            f"no path carries the pair's difference{where}: change the pair or raise --width"
        )
    here = [path for path in paths if path.positions[0] in positions and path != own]
    away = [path for path in paths if path.positions[0] not in positions]
    kept = [own, *here[: count - 1 - min(len(away), count // 2)], *away[: count // 2]]
    return sorted(kept[:count], key=lambda path: -abs(path.effect)), own
