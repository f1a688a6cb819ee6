"""One observable on one model, step by step: what `study` writes down."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ..directions import Directions
from ..errors import UserError
from ..model.site import Site
from ..model.subject import open_subject
from . import checks, evaluate
from .observables import make_observable
from .parts import Parts
from .paths import Feature, Place, path_feature, show
from .propagate import direct_effects, head_vectors, readout, stream_vectors
from .scoring import as_directions, behind_norm, stream_scores
from .search import FoundPath, Pair, linearisation, search_paths
from .tasks import Example, Task, draw_pairs, examples, pair_reads
from .trace import trace_pair
from .writers import writers

if TYPE_CHECKING:
    from ..model.weights import Weights
    from .study import ObspropConfig

CHECKED = 30
"""Held-out examples of each class that the checks run on."""


class Scored(NamedTuple):
    """A found path with its feature and the feature's place among the Directions of its site."""

    found: FoundPath
    feature: Feature
    directions: Directions


class Session:
    """Opens the model, traces the pair; its methods are the study's steps, in their order."""

    def __init__(self, config: ObspropConfig, task: Task, weights: Weights) -> None:
        self.config, self.task = config, task
        self.observable = make_observable(task.name, task.observable, weights)
        self.subject = open_subject(config.model, attention="eager", device=config.device)
        self.split = examples(task, self.subject.tokenizer, config.seed, config.windows)
        self.texts = [self.subject.tokens(text).ids[0].tolist() for text in config.texts]
        for row in self.texts:
            self.subject.check_length(len(row))
        self.parts = Parts(weights)
        self.pair = Pair(*trace_pair(self.subject, self.parts, task.pair, task.name))
        self.told = self._told()
        self.scored: list[Scored] = []

    @cached_property
    def _effects(self) -> tuple[Any, Any]:
        one, other = (direct_effects(self.parts, self.observable, found) for found in self.pair)
        return one, other

    def heads(self) -> pd.DataFrame:
        m0 = self.observable.start(self.parts.W_U).to(self.parts.dtype)
        clean = self.pair.clean
        _, reads, _ = stream_vectors(self.parts, self.observable, clean, clean.last)
        plain = head_vectors(self.parts, m0[None]).vectors[0].norm(dim=-1)
        frozen = head_vectors(self.parts, reads[None]).vectors[0].norm(dim=-1)
        one, other = self._effects
        layers, heads = np.indices(tuple(plain.shape))
        columns = {"norm": plain, "norm_frozen": frozen, "effect": one.heads - other.heads}
        values = {name: x.flatten().tolist() for name, x in columns.items()}
        return pd.DataFrame({"layer": layers.ravel(), "head": heads.ravel(), **values})

    def mlps(self) -> pd.DataFrame:
        one, other = self._effects
        effect = (one.mlps - other.mlps).tolist()
        return pd.DataFrame({"layer": range(len(effect)), "effect": effect})

    def _told(self) -> set[int]:
        """Positions of the pair's prompt at which a feature of the task may be read: where examples
        are, else the last token that differs; in code every one."""
        clean, other = self.pair
        if self.task.sources:
            return set(range(1, len(clean.ids)))
        differ = (clean.ids != other.ids).nonzero()[:, 0].tolist()
        return set(pair_reads(self.task, self.subject.tokenizer)) or {max(differ)}

    def _searched(self, pair: Pair) -> list[FoundPath]:
        config = self.config
        beam = {"width": config.width, "depth": config.depth, "screen": config.screen}
        return search_paths(self.parts, self.observable, pair, **beam)

    def search(self) -> list[FoundPath]:
        """The paths to score, strongest first: half of them read where the label is told, if there
        are so many, and the task's own among them."""
        found, told, count = self._searched(self.pair), self.told, self.config.paths
        strongest = _strongest(found, told)
        if strongest is None:
            where = "" if self.task.sources else f" from token {max(told)}, where the word ends"
            raise UserError(
                f"no path carries the pair's difference{where}: change the pair or raise --width"
            )
        self.chosen = strongest
        here = [path for path in found if path.positions[0] in told and path != self.chosen]
        away = [path for path in found if path.positions[0] not in told]
        kept = [self.chosen, *here[: count - 1 - min(len(away), count // 2)], *away[: count // 2]]
        return sorted(kept[:count], key=lambda path: -abs(path.effect))

    def evaluate(self, found: list[FoundPath]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(paths table, methods table)"""
        self.scored = [self._score(path, self.pair) for path in found]
        self.best = next(each for each in self.scored if each.found == self.chosen)
        config, site = self.config, self.best.feature.site
        self.held_out = self._read(self.split.held_out, self._sites(), "held-out examples")
        paths = pd.DataFrame([self._path_row(each) for each in self.scored])
        train = self._read(self.split.train, [site], "training examples")
        methods = {
            ("ObsProp", 2): self._held_out_scores(self.best)[None],
            ("pair difference", 2): self._pair_difference(site)[None],
        }
        if not self.task.sources:
            methods["observable", 0] = self.held_out.observable[None]
        given = (config.labelled, config.draws, config.seed)
        methods |= evaluate.baseline_scores(train, self.held_out, site, *given)
        return paths, evaluate.table(methods, self.held_out, config.boots, config.seed)

    def _sites(self) -> list[Site]:
        """Where held-out examples are read: templates everywhere, as other pairs find others."""
        own = [each.feature.site for each in self.scored]
        layers = range(self.parts.spec.n_layers)
        every = [Site(kind, i) for i in layers for kind in ("resid_pre", "mlp_in")]
        return list(dict.fromkeys(own)) if self.task.sources else every

    def other_pairs(self) -> dict[str, pd.DataFrame]:
        """What the same rule finds from other pairs; nothing (null) from some, perhaps."""
        drawn = draw_pairs(self.split.train, self.config.pairs, self.config.seed)
        if self.task.sources or not drawn:
            return {}
        rows = []
        for pair in drawn:
            texts = [self.subject.text(torch.tensor(example.ids)) for example in pair]
            rows.append({"prompt": texts[0], "counterfactual": texts[1], **self._pair_row(*pair)})
        columns = ["prompt", "counterfactual", "path", "site", "effect", "auc", "r2"]
        return {"scores/pairs": pd.DataFrame(rows, columns=columns)}

    def _pair_row(self, one: Example, other: Example) -> dict[str, Any]:
        batches = (self.subject.pad([one.ids]), self.subject.pad([other.ids]))
        traces = trace_pair(self.subject, self.parts, batches, "pair")
        pair = Pair(*traces)
        found = _strongest(self._searched(pair), set(one.reads))
        if found is None:
            return {}
        best = self._score(found, pair)
        scores = self._held_out_scores(best)[None]
        made = evaluate.summary(scores, self.held_out, 10, self.config.seed)
        place = {"path": show(found.path), "site": str(best.feature.site), "effect": found.effect}
        return {**place, "auc": made["auc"], "r2": made["r2"]}

    def _score(self, found: FoundPath, pair: Pair) -> Scored:
        place = Place(pair.clean, found.positions, pair.other)
        feature = path_feature(self.parts, self.observable, found.path, "frozen", place)
        about = {"observable": self.task.name, "pair": list(self.task.pair)}
        return Scored(found, feature, as_directions(self.parts, [feature], about))

    def _read(self, chosen: list[Example], sites: list[Site], label: str) -> evaluate.Read:
        observable = None if self.task.sources else readout(self.parts, self.observable)
        behind = partial(behind_norm, spec=self.subject.spec)
        return evaluate.read_examples(self.subject, chosen, sites, observable, behind, label)

    def _held_out_scores(self, each: Scored) -> evaluate.Array:
        vector = each.directions.vectors[0].double().numpy()
        constant = float(each.directions.index["constant"].iloc[0])
        scores: evaluate.Array = self.held_out.activations[each.feature.site] @ vector + constant
        return scores

    def _pair_difference(self, site: Site) -> evaluate.Array:
        """Held-out scores by the bare difference of the pair's activations: no theory."""
        reads = sorted(self.told)
        both = [
            Example(found.ids.tolist(), reads, found is self.pair.clean, "pair")
            for found in self.pair
        ]
        one, other = self._read(both, [site], "the pair").activations[site]
        scores: evaluate.Array = self.held_out.activations[site] @ (one - other)
        return scores

    def _path_row(self, each: Scored) -> dict[str, Any]:
        found, feature = each.found, each.feature
        made = linearisation(self.parts, self.observable, self.pair, found)
        sign = 1.0 if found.effect >= 0 else -1.0
        scores = sign * self._held_out_scores(each)[None]
        ids = self.pair.clean.ids[list(found.positions)]
        row = {
            **{"path": show(found.path), "positions": list(found.positions)},
            **{"tokens": [self.subject.text(i[None]) for i in ids], "effect": found.effect},
            **{"predicted": made.predicted, "actual": made.actual, "error": made.error},
            **{"crossed": all(mlp.crossed for mlp in feature.mlps), "sign": sign},
            **{"read": found.positions[0] in self.told, "site": str(feature.site)},
        }
        return row | evaluate.summary(scores, self.held_out, self.config.boots, self.config.seed)

    def examples_table(self) -> pd.DataFrame:
        chosen = self.split.held_out
        return pd.DataFrame(
            {
                "text": [self.subject.text(torch.tensor(example.ids)) for example in chosen],
                "group": [_group(example) for example in chosen],
                "template": [example.template for example in chosen],
                "positive": self.held_out.positive,
                "observable": self.held_out.observable,
                "score": self._held_out_scores(self.best),
            }
        )

    def token_scores(self) -> pd.DataFrame:
        """Every token of the config's texts, scored by the best feature."""
        rows = self.texts
        made = [
            batch[0][:, 0].tolist()
            for row in rows
            for batch in stream_scores(self.subject, [row], [self.best.directions])
        ]
        return pd.DataFrame(
            [
                {
                    "text": n,
                    "position": at,
                    "token": self.subject.text(torch.tensor([i])),
                    "score": s,
                }
                for n, (row, scores) in enumerate(zip(rows, made, strict=True))
                for at, (i, s) in enumerate(zip(row, scores, strict=True))
            ],
            columns=["text", "position", "token", "score"],
        )

    def checks(self) -> dict[str, pd.DataFrame]:
        if self.task.sources:
            return {}
        sides = [[e for e in self.split.held_out if e.positive is s] for s in (True, False)]
        chosen = [*sides[0][:CHECKED], *sides[1][:CHECKED]]
        values = readout(self.parts, self.observable)
        given = (self.subject, values, chosen, self.best.directions)
        return {
            "checks/ablation": checks.ablation(*given, seed=self.config.seed),
            "checks/steering": checks.steering(*given, seed=self.config.seed),
        }

    def writers(self) -> dict[str, pd.DataFrame]:
        if self.best.feature.site.kind != "resid_pre" or self.best.feature.site.layer == 0:
            return {}
        return {"writers/neurons": writers(self.parts, self.best.directions)}

    def save_directions(self, folder: Path) -> None:
        for site in dict.fromkeys(each.feature.site for each in self.scored):
            here = [each for each in self.scored if each.feature.site == site]
            about = here[0].directions.provenance
            as_directions(self.parts, [each.feature for each in here], about).save(
                folder / str(site)
            )

    def facts(self) -> dict[str, Any]:
        value = [float(self.observable.value(found.logits)) for found in self.pair]
        return {
            "parity": self.subject.parity, "device": self.config.device,
            "about": self.task.about, "notes": list(self.observable.notes),
            "words": self.task.observable, "pair": list(self.task.pair), "pair_values": value,
            "best": show(self.best.found.path), "site": str(self.best.feature.site),
        }  # fmt: skip

    def metrics(self, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
        methods = tables["scores/methods"]
        own = methods[methods["method"] == "ObsProp"].iloc[0]
        trained = ["logistic", "least squares", "mean difference"]
        probes = methods[methods["method"].isin(trained)]
        figures = [name for name in ("auc", "r2") if name in methods]
        found: dict[str, Any] = {
            "path": show(self.best.found.path),
            "site": str(self.best.feature.site),
        }
        for name in figures:
            found[name] = float(own[name])
            strongest = probes.groupby("labelled")[name].max()
            beaten = strongest[(strongest < own[name]).cummin()]  # at that size and all smaller
            found[f"{name} beats every probe with"] = max(beaten.index.tolist(), default=0)
        if "checks/ablation" in tables:
            ablated = tables["checks/ablation"]
            found["gap kept without it"] = float(ablated[~ablated["control"]]["kept"].iloc[0])
            found["gap kept, random"] = float(ablated[ablated["control"]]["kept"].mean())
        return found


def _strongest(found: list[FoundPath], told: set[int]) -> FoundPath | None:
    """The strongest path that carries the difference forward from where the label is told."""
    forward = [path for path in found if path.positions[0] in told and path.effect > 0]
    return max(forward, key=lambda path: path.effect, default=None)


def _group(example: Example) -> str:
    return Path(example.group).name if example.template < 0 else example.group
