"""The study of one observable: its paths, its features, and how they do against trained probes.

Source: Dunefsky & Cohan, 'Observable propagation'. From one prompt pair: the direct effect of
every head and MLP, the vector of every head, the paths that carry the difference (`search`), a
feature vector for each. The feature of the strongest path that is read where the label can be read
(at the word of a template; anywhere in code) is *the* feature of the task, chosen by the pair
alone; it is scored on held-out examples beside probes that learn from labels, at its own site
(`evaluate`).

Parts of the run:
`heads/heads.parquet`, one row a head: layer, head, norm (of y without norm handling: no text is
    run), norm_frozen (final norm's gain and scale in), effect (direct, prompt - counterfactual)
`heads/mlps.parquet`: layer, effect
`paths/paths.parquet`, strongest first: path, positions and tokens (where it runs), effect,
    predicted, actual, error (linearisation), crossed (whether every MLP had its boundary), read
    (whether it is read where the label can be), site, sign, auc, r2 (held out, each with _low and
    _high), unit (what their bootstrap draws)
`scores/methods.parquet`: method, labelled (examples used), auc, r2, with _low and _high, unit;
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

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.study import PartedStudy, TextStudy
from ..runs.writer import RunWriter
from .task_files import Task, read_task

if TYPE_CHECKING:
    import pandas as pd

    from ..model.subject import Subject
    from .opened import FoundFeature, OpenedTask
    from .parts import MadeParts
    from .search import FoundPath, Pair

TEXTS = (
    "Mary gave John her book, and he thanked Susan before Peter and Anna left.",
    "The keys to the cabinet are on the table, but the old door is locked.",
    "static int add(int a, int b) { return a + b; }",
    "def add(a, b):\n    return a + b",
)


@dataclass(frozen=True)
class ObspropConfig(TextStudy, PartedStudy):
    """An observable's paths, features and scores, from one pair of prompts."""

    STUDY: ClassVar[str] = "obsprop.run"
    VERSION: ClassVar[int] = 3
    FACTS: ClassVar[dict[str, Any]] = {
        **{"about": str, "best": str, "notes": list[str], "pair": list[str]},
    }

    observable: str = "subject-pronoun"
    """The name of a task that comes with the workbench, or the path of your own .yaml file."""
    width: int = 8
    """How many paths each step of the search extends."""
    depth: int = 3
    """How many heads and MLPs a path has at most."""
    screen: int = 400
    """How many candidates for extending a path are measured: the best by first-order effect."""
    paths: int = 12
    """How many paths get a feature that is scored."""
    labelled: tuple[int, ...] = (2, 10, 50, 200)
    """Numbers of labelled examples that the probes learn from."""
    draws: int = 20
    """How often those examples are drawn at random."""
    boots: int = 1000
    """Bootstrap resamples behind the intervals."""
    pairs: int = 8
    """How many other pairs, drawn from the training examples, the search is repeated with."""
    windows: int = 100
    """For code: how many windows of each language are held out (as many are trained on)."""
    texts: tuple[str, ...] = TEXTS
    """Texts to look at: the feature scores every token."""
    seed: int = 0
    """Seed of the split, the draws, the bootstrap and the random controls."""

    @cached_property
    def _task(self) -> Task:
        return read_task(self.observable)

    def fingerprints(self) -> dict[str, str]:
        import hashlib

        from .code import fingerprint

        prints = {source: fingerprint(source) for source in self._task.sources or ()}
        task = hashlib.sha256(repr(self._task).encode()).hexdigest()
        return {**super().fingerprints(), "task": task, **prints}

    def check(self) -> None:
        super().check()
        assert self.spread
        self.stored_weights.check_dense("observable propagation")
        counts = (self.width, self.depth, self.screen, self.paths, self.draws, self.windows)
        if min(counts) < 1 or self.boots < 10:
            raise UserError(
                "--width, --depth, --screen, --paths, --draws and --windows must be at least 1, "
                "--boots at least 10"
            )
        if min(self.pairs, self.seed) < 0:
            raise UserError("--pairs and --seed must be at least 0")
        if any(size < 2 or size % 2 for size in self.labelled):
            raise UserError("--labelled takes even numbers: half of the examples of each class")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from . import tables
        from .opened import choose
        from .parts import made_parts

        opened = self.opened(self.open(out, attention="eager"))
        texts = [opened.subject.prompting.ids(text) for text in self.texts]
        for ids in texts:
            opened.subject.check_length(len(ids))
        paths, own = choose(self.searched(opened, opened.pair), opened, self.paths)
        features = [opened.feature(path, opened.pair) for path in paths]
        best = features[paths.index(own)]
        parts = made_parts(self, out, opened, features, best)
        held_out = parts.held_out
        makers: tables.Makers = {
            **tables.head_and_mlp_tables(opened),
            "paths/paths": partial(tables.path_table, opened, features, held_out, self.boots),
            "scores/methods": partial(self._methods, opened, best, parts),
            "scores/examples": partial(tables.example_table, opened, best, held_out),
            "texts/tokens": partial(tables.token_table, opened, best, texts),
            **tables.use_tables(opened, best, parts),
        }
        made = {name: out.table_once(name, make) for name, make in makers.items()}
        tables.save_directions(opened, features, out)
        out.facts |= tables.facts(opened, best)
        return tables.metrics(best, made)

    def opened(self, subject: Subject) -> OpenedTask:
        """The task, on a model with attention patterns."""
        from .opened import open_task

        return open_task(self._task, self.stored_weights, subject, self.seed, self.windows)

    def searched(self, opened: OpenedTask, pair: Pair) -> list[FoundPath]:
        """The paths that carry a pair's difference."""
        from .search import search_paths

        sizes = {"width": self.width, "depth": self.depth, "screen": self.screen}
        return search_paths(opened.weights, opened.observable, pair, **sizes)

    def _methods(self, opened: OpenedTask, best: FoundFeature, parts: MadeParts) -> pd.DataFrame:
        """`scores/methods`."""
        import pandas as pd

        from . import evaluate, tables

        held_out, train = parts.held_out, parts.training
        methods = {("ObsProp", 2): best.scores(held_out)[None]} | tables.baselines(
            opened, best.site, train, held_out, self.labelled, self.draws
        )
        return pd.DataFrame(
            {"method": method, "labelled": size}
            | evaluate.summary(scores, held_out, self.boots, self.seed)
            for (method, size), scores in methods.items()
        )
