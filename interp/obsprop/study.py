"""The study of one observable: its paths, its features, and how they do against trained probes.

Source: Dunefsky & Cohan, 'Observable propagation'. From one prompt pair: the direct effect of
every part, the vector of every head, the paths that carry the difference (`search`), a feature
vector for each. The feature of the strongest path that is read where the label is told (at the
word of a template; anywhere in code) is *the* feature of the task, chosen by the pair alone; it is
scored on held-out examples beside probes that learn from labels, at its own site (`evaluate`).

Parts of the run:
`heads/heads.parquet`, one row a head: layer, head, norm (of y without norm handling: no data at
    all), norm_frozen (final norm's gain and scale in), effect (direct, prompt - counterfactual)
`heads/mlps.parquet`: layer, effect
`paths/paths.parquet`, strongest first: path, positions and tokens (where it runs), effect,
    predicted, actual, error (linearisation), crossed (whether every MLP had its boundary), read
    (told here), site, sign, auc, r2 (held out, each with _low and _high; null where not scored)
`scores/methods.parquet`: method, labelled (examples used), auc, r2, with _low and _high;
    "observable" is the model's own answer, the best any feature of it can do, and
    "pair difference" the bare difference of the pair's two activations
`scores/examples.parquet`: text, group, template (-1: code), positive, observable, score (held out,
    the feature's)
`scores/pairs.parquet`: one row a pair: prompt, counterfactual, path, site, effect, auc, r2: what
    the same rule finds from other pairs, drawn from the training examples (templates only); null
    where no path carries the difference from the word
`texts/tokens.parquet`: text, position, token, score (of the feature)
`checks/ablation.parquet`, `checks/steering.parquet`: as `checks`; only for templates
`writers/neurons.parquet`: as `writers`; only for features of the stream
`directions/<site>/`: the features of the paths table as Directions
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.store import RunWriter
from .tasks import Task, read_task

if TYPE_CHECKING:
    from ..model.weights import Weights

TEXTS = (
    "Mary gave John her book, and he thanked Susan before Peter and Anna left.",
    "The keys to the cabinet are on the table, but the old door is locked.",
    "static int add(int a, int b) { return a + b; }",
    "def add(a, b):\n    return a + b",
)


@dataclass(frozen=True)
class ObspropConfig:
    """An observable's paths, features and scores, from one pair of prompts."""

    STUDY: ClassVar[str] = "obsprop.run"
    VERSION: ClassVar[int] = 3

    model: str = "smollm2-135m"
    """A catalog name, hub id, folder or .gguf file."""
    observable: str = "subject-pronoun"
    """A shipped task's name, or the path of a .yaml file of one's own."""
    width: int = 8
    """How many paths each step of the search extends."""
    depth: int = 3
    """Most parts in a path."""
    screen: int = 400
    """How many candidates for extending a path are measured, after a first-order screening."""
    paths: int = 12
    """How many paths get a feature that is scored."""
    labelled: tuple[int, ...] = (2, 10, 50, 200)
    """Numbers of labelled examples the baselines learn from."""
    draws: int = 20
    """Random draws of those examples."""
    boots: int = 1000
    """Bootstrap repetitions behind the intervals."""
    pairs: int = 8
    """How many other pairs, drawn from the training examples, the search is repeated with."""
    windows: int = 100
    """For code: held-out windows of each language (and as many to train on)."""
    texts: tuple[str, ...] = TEXTS
    """Texts whose every token is scored, to look at."""
    seed: int = 0
    """Of the split, the draws and the controls."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    @cached_property
    def _weights(self) -> Weights:
        from ..model.weights import open_weights

        return open_weights(self.model)

    @cached_property
    def _task(self) -> Task:
        return read_task(self.observable)

    def fingerprints(self) -> dict[str, str]:
        import hashlib

        task = hashlib.sha256(repr(self._task).encode()).hexdigest()
        prints = {**self._weights.fingerprints(), "task": task}
        if self._task.sources:
            from .code import fingerprint

            prints |= {source: fingerprint(source) for source in self._task.sources}
        return prints

    def check(self) -> None:
        if (
            min(self.width, self.depth, self.screen, self.paths, self.draws, self.windows) < 1
            or self.boots < 10
        ):
            raise UserError(
                "width, depth, screen, paths, draws and windows are at least 1, boots 10"
            )
        if min(self.pairs, self.seed) < 0:
            raise UserError("--pairs is a number of pairs, --seed a number from 0 up")
        if any(size < 2 or size % 2 for size in self.labelled):
            raise UserError("--labelled needs even numbers, half of each class")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .session import Session

        session = Session(self, self._task, self._weights)
        tables = {"heads/heads": session.heads(), "heads/mlps": session.mlps()}
        found = session.search()
        tables["paths/paths"], tables["scores/methods"] = session.evaluate(found)
        tables["scores/examples"] = session.examples_table()
        tables |= session.other_pairs()
        tables["texts/tokens"] = session.token_scores()
        tables |= session.checks() | session.writers()
        for name, table in tables.items():
            with out.part(f"{name}.parquet") as path:
                table.to_parquet(path)
        session.save_directions(out.path / "directions")
        out.facts = session.facts()
        return session.metrics(tables)
