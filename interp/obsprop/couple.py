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
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from ..errors import UserError
from ..runs.store import RunWriter
from .tasks import Task, read_task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ..directions import Directions
    from ..model.subject import Subject
    from ..model.weights import Weights
    from .paths import Node


ROW = 128
"""Tokens of a row of the corpus, where the model's context allows."""


@dataclass(frozen=True)
class CoupleConfig:
    """Coupling coefficients of observables' features, against measured slopes."""

    STUDY: ClassVar[str] = "obsprop.couple"
    VERSION: ClassVar[int] = 3

    model: str = "smollm2-135m"
    """A catalog name, hub id, folder or .gguf file."""
    observables: Annotated[tuple[str, ...], tyro.conf.Positional] = (
        "subject-pronoun",
        "object-pronoun",
        "possessive-pronoun",
        "occupational-gender",
    )
    """Two or more tasks with templates, such as subject-pronoun object-pronoun."""
    heads: int = 4
    """How many heads' features are compared."""
    corpus: str | None = None
    """Text to measure on as well; by default the installed Python's own."""
    tokens: int = 4096
    """Tokens of it."""
    seed: int = 0
    """Of the split of the prompts."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    @cached_property
    def _weights(self) -> Weights:
        from ..model.weights import open_weights

        return open_weights(self.model)

    @cached_property
    def _tasks(self) -> tuple[Task, ...]:
        return tuple(read_task(name) for name in self.observables)

    def fingerprints(self) -> dict[str, str]:
        import hashlib

        from ..text.corpus import fingerprint

        tasks = hashlib.sha256(repr(self._tasks).encode()).hexdigest()
        prints = {**self._weights.fingerprints(), "tasks": tasks}
        return prints | {"corpus": fingerprint(self.corpus)}

    def check(self) -> None:
        words = {tuple(sorted(task.observable.items())) for task in self._tasks}
        if len(self.observables) < 2 or len(words) < len(self.observables):
            raise UserError("coupling needs at least two observables, no two of them the same")
        if len({task.name for task in self._tasks}) < len(self.observables):
            raise UserError("two of the tasks have the same name: rename one's file")
        if any(task.sources for task in self._tasks):
            raise UserError("coupling is measured at words: choose tasks with templates")
        spec = self._weights.spec
        if not 1 <= self.heads <= spec.n_layers * spec.n_heads or self.tokens < ROW:
            raise UserError(
                f"give 1 to {spec.n_layers * spec.n_heads} heads, and at least {ROW} tokens"
            )
        if self.seed < 0:
            raise UserError("--seed is a number from 0 up")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..model.subject import open_subject

        subject = open_subject(self.model, attention="eager", device=self.device)
        features = self._features(subject)
        scored = _measured(self, subject, features)
        rows = []
        for head, directions in features.items():
            for i, j in itertools.permutations(range(len(self.observables)), 2):
                about = {"a": self.observables[i], "b": self.observables[j], "head": str(head)}
                rows.append(about | _row(directions, i, j, *scored[head]))
            directions.save(out.path / "directions" / f"{head}")
        table = pd.DataFrame(rows)
        with out.part("pairs/pairs.parquet") as path:
            table.to_parquet(path)
        out.facts = {"parity": subject.parity, "device": self.device}
        return agreement(table)

    def _features(self, subject: Subject) -> dict[Node, Directions]:
        """head -> the features of all the observables there."""
        import torch

        from .observables import make_observable
        from .parts import Parts
        from .paths import Node, Place, path_feature
        from .propagate import head_vectors
        from .scoring import as_directions
        from .trace import trace

        parts = Parts(self._weights)
        made = [make_observable(task.name, task.observable, self._weights) for task in self._tasks]
        starts = torch.stack([each.start(parts.W_U).to(parts.dtype) for each in made])
        lengths = head_vectors(parts, starts).vectors.norm(dim=-1)
        ranked = lengths.clamp_min(1e-30).log().mean(0).flatten().argsort(descending=True)
        traces = [trace(subject, parts, task.pair[0]) for task in self._tasks]
        found: dict[Node, Directions] = {}
        for place in ranked[: self.heads].tolist():
            head = Node(*divmod(place, parts.spec.n_heads))
            features = [
                path_feature(parts, each, (head,), "frozen", Place(one, (one.last, one.last)))
                for each, one in zip(made, traces, strict=True)
            ]
            found[head] = as_directions(parts, features, {}, self.observables)
        return found


def _measured(
    config: CoupleConfig, subject: Subject, features: dict[Node, Directions]
) -> dict[Node, tuple[np.ndarray, np.ndarray]]:
    """head -> what its features read (behind the norm) at the prompts' words and in the corpus."""
    from functools import partial

    from ..text.corpus import read_corpus, token_rows
    from ..text.stream import stream
    from .evaluate import read_examples
    from .scoring import behind_norm
    from .tasks import examples

    sites = list(dict.fromkeys(each.site for each in features.values()))
    behind = partial(behind_norm, spec=subject.spec)
    prompts = [
        example
        for task in config._tasks
        for example in examples(task, subject.tokenizer, config.seed).held_out
    ]
    read = read_examples(subject, prompts, sites, None, behind, "prompts").activations
    texts = read_corpus(config.corpus)

    def encode(text: str) -> list[int]:
        return list(subject.tokenizer.encode(text, add_special_tokens=False))

    length = min(ROW, subject.context or ROW)
    rows = list(token_rows(texts, encode, length, None, config.tokens))
    pieces: dict[Any, list[Any]] = {site: [] for site in sites}
    for found in stream(subject, rows, sites):
        for site in sites:
            # not the first token of a row, which draws attention whatever it is
            read_x = behind(found[site], site)
            whole = read_x.view(-1, length, read_x.shape[1])[:, 1:].flatten(0, 1)
            pieces[site].append(whole.double().cpu().numpy())
    import numpy as np

    return {
        head: (read[each.site], np.concatenate(pieces[each.site]))
        for head, each in features.items()
    }


def _row(
    directions: Directions, i: int, j: int, prompts: np.ndarray, corpus: np.ndarray
) -> dict[str, Any]:
    import torch

    from .coupling import best_fit, coupling_interval

    y1, y2 = (directions.vectors[row].double() for row in (i, j))
    row: dict[str, Any] = {
        "site": str(directions.site),
        "coupling": float(directions.coupling(directions)[i, j]),
        "cosine": float(directions.cosine(directions)[i, j]),
    }
    for name, x in (("prompts", prompts), ("corpus", corpus)):
        fit = best_fit(x @ y1.numpy(), x @ y2.numpy())
        row |= {f"{name}_slope": fit.slope, f"{name}_r2": fit.r2}
    tokens = torch.from_numpy(corpus)
    k, other = tokens @ y1, tokens @ y2
    _, low, high = coupling_interval(y1, y2, k, tokens.norm(dim=1))
    slack = 1e-9 * float(other.abs().max())
    row["inside"] = float(((other >= low - slack) & (other <= high + slack)).double().mean())
    return row


def agreement(table: pd.DataFrame) -> dict[str, Any]:
    """How well the coefficients foretell the slopes of a pairs table: the run's metrics.

    r^2 here is of the line slope = coupling itself, not of a fitted one: it can be negative.

    "alike" are the pairs with a cosine above one half. Where two features have little in common
    the slope is ruled by whatever else moves both in the data, which the coefficient cannot know.
    """
    made: dict[str, Any] = {"inside the interval": float(table["inside"].min())}
    for kind, rows in (("all", table), ("alike", table[table["cosine"] > 0.5])):
        made[f"pairs, {kind}"] = len(rows)
        for name in ("prompts", "corpus") if len(rows) > 1 else ():
            slope, predicted = rows[f"{name}_slope"], rows["coupling"]
            residual = ((slope - predicted) ** 2).sum() / ((slope - slope.mean()) ** 2).sum()
            made[f"r2 of slope = coupling, {name}, {kind}"] = float(1 - residual)
            made[f"squared correlation, {name}, {kind}"] = float(slope.corr(predicted) ** 2)
            made[f"mean |slope - coupling|, {name}, {kind}"] = float(
                (slope - predicted).abs().mean()
            )
    return made
