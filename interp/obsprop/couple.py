"""The study of coupling: predicted coefficients against measured slopes, over pairs of features.

The features are those of single heads, the same heads for every observable: the ones whose vectors
are long for all of them (the geometric mean of each observable's lengths, none of them zero; no
data is needed for it). For each head and each ordered pair of observables, C is predicted from the
two vectors, and the slope measured where both are scored on the same activations: at the words of
the held-out prompts of all the tasks, and on every token of a corpus.

Parts of the run:
`pairs/pairs.parquet`: a, b, head, site, coupling (predicted), cosine, prompts_slope, prompts_r2,
    corpus_slope, corpus_r2 (best fits of b's score by a's), inside (share of corpus tokens whose
    score lies in the theorem's interval: 1, or the theorem or the code is wrong)
`directions/<site>/`: the features as Directions, a row an observable
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .task_files import Task, read_task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CoupleConfig(TextStudy):
    """Coupling coefficients of observables' features, against measured slopes."""

    STUDY: ClassVar[str] = "obsprop.couple"
    VERSION: ClassVar[int] = 3

    observables: tuple[str, ...] = field(
        default=(
            "subject-pronoun",
            "object-pronoun",
            "possessive-pronoun",
            "occupational-gender",
        ),
        metadata={"positional": True},
    )
    """Two or more tasks with templates, such as subject-pronoun object-pronoun."""
    heads: int = 4
    """How many heads' features are compared."""
    corpus: str | None = None
    """A text file or folder to measure on too; by default the installed Python's text and code."""
    tokens: int = 4096
    """How many tokens of it are read."""
    seed: int = 0
    """Seed of the split of the prompts."""

    @cached_property
    def _tasks(self) -> tuple[Task, ...]:
        return tuple(read_task(name) for name in self.observables)

    def fingerprints(self) -> dict[str, str]:
        import hashlib

        tasks = hashlib.sha256(repr(self._tasks).encode()).hexdigest()
        return {**super().fingerprints(), "tasks": tasks}

    def check(self) -> None:
        from .scoring import ROW

        super().check()
        words = {tuple(sorted(task.observable.items())) for task in self._tasks}
        if len(self.observables) < 2 or len(words) < len(self.observables):
            raise UserError("coupling needs at least two observables, no two of them the same")
        if len({task.name for task in self._tasks}) < len(self.observables):
            raise UserError("two of the tasks have the same name: rename one's file")
        if any(task.sources for task in self._tasks):
            raise UserError("coupling is measured at words: choose tasks with templates")
        spec = self.stored_weights.spec
        if not 1 <= self.heads <= spec.n_layers * spec.n_heads:
            raise UserError(f"--heads must be 1 to {spec.n_layers * spec.n_heads}")
        if self.tokens < ROW:
            raise UserError(f"--tokens must be at least {ROW}")
        if self.seed < 0:
            raise UserError("--seed must be at least 0")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .coupling import features_by_head, pair_row, read_prompts_and_corpus
        from .scoring import corpus_rows
        from .tasks import examples

        subject = self.open(out, attention="eager")
        tasks = dict(zip(self.observables, self._tasks, strict=True))
        features = features_by_head(subject, self.stored_weights, tasks, self.heads)
        splits = (examples(task, subject.prompting, self.seed) for task in self._tasks)
        prompts = [example for split in splits for example in split.held_out]
        rows = corpus_rows(subject, self.corpus, self.tokens)
        sites = list(dict.fromkeys(each.site for each in features.values()))
        read = read_prompts_and_corpus(subject, sites, prompts, rows)
        pairs = []
        for head, directions in features.items():
            for i, j in itertools.permutations(range(len(self.observables)), 2):
                about = {"a": self.observables[i], "b": self.observables[j], "head": head}
                pairs.append(about | pair_row(directions, i, j, *read[directions.site]))
            directions.save_in(out, f"directions/{head}")
        return agreement(out.table("pairs/pairs", pairs))


def agreement(table: pd.DataFrame) -> dict[str, Any]:
    """How well the coefficients predict the slopes of a pairs table: the run's metrics.

    r^2 here is of the line slope = coupling itself, not of a fitted one: it can be negative.

    "alike" are the pairs with a cosine above one half. Where two features have little in common
    the slope depends on whatever else moves both in the data, which the coefficient cannot know.
    """
    made: dict[str, Any] = {"inside the interval": float(table["inside"].min())}
    for kind, rows in (("all", table), ("alike", table[table["cosine"] > 0.5])):
        made[f"pairs, {kind}"] = len(rows)
        for name in ("prompts", "corpus") if len(rows) > 1 else ():
            slope, predicted = rows[f"{name}_slope"], rows["coupling"]
            gap = slope - predicted
            residual = (gap**2).sum() / ((slope - slope.mean()) ** 2).sum()
            made[f"r2 of slope = coupling, {name}, {kind}"] = float(1 - residual)
            made[f"squared correlation, {name}, {kind}"] = float(slope.corr(predicted) ** 2)
            made[f"mean |slope - coupling|, {name}, {kind}"] = float(gap.abs().mean())
    return made
