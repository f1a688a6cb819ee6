"""The layer search on a model, in the paper's four settings: `interp knob search`.

Every setting has pairs of a source and a target prompt with different answers:

    context -> prior, prior -> context   the same context and query, the other intent
    context -> context                   the same query, another context
    prior -> prior                       another fact of the same relation

Tables: `search/ranges`, a line a setting: setting, layers (list of int), probes, passes (forward
passes), pairs; source and target: the final curves' values at the last layer.
`search/curves`, a line a probe and layer: setting, probe, patched (list of int), layer; source and
target: probability of the source's and of the target's answer. A setting's last probe patches the
layers of `search/ranges`. And `data/items` (see data.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.writer import RunWriter
from .adapter import TunedModelStudy, open_for
from .data import AskedData, sample
from .items import Item
from .prompts import Intent, Row

if TYPE_CHECKING:
    from ..model.subject import Subject

INTENT_PAIRS: tuple[tuple[Intent, Intent], ...] = (
    ("context", "prior"),
    ("prior", "context"),
    ("context", "context"),
    ("prior", "prior"),
)


@dataclass(frozen=True)
class SearchSettings(AskedData):
    """How layers are searched."""

    pairs: int = 16
    """Pairs of prompts to average over."""
    t: float = 0.9
    """Share of the source's maximum probability, all layers patched, that a range must exceed."""
    phi: float = 0.05
    """Fall of the source's probability at a layer, above which that layer is added."""
    eps: float = 0.3
    """By how much the source's probability must exceed the target's at the last layer."""

    def search(self, subject: Subject, out: RunWriter) -> dict[str, Any]:
        """Search in every setting, unless `out` has the tables; return the ranges as metrics."""
        if not out.has("search/ranges.parquet"):
            splits = self.splits(out)
            items = splits.validation + splits.subjects

            def searched(some: Sequence[tuple[Intent, Intent]]) -> Iterator[dict[str, Any]]:
                for source, target in some:
                    pairs = self._pairs(subject, items, source, target)
                    line, probes = self._search_pairs(subject, pairs)
                    yield {"setting": f"{source} → {target}", **line, "probes": probes}

            name = "search/ranges"
            found = out.in_pieces(name, INTENT_PAIRS, searched, 1, "search", "settings")
            curves = [
                {"setting": setting, **probe}
                for setting, probes in zip(found["setting"], found["probes"], strict=True)
                for probe in probes
            ]
            out.table("search/curves", curves)
            out.table(name, found.drop(columns="probes"))
        rows = out.read_table("search/ranges").to_dict("records")
        return {f"layers {row['setting']}": _range_text(row) for row in rows}

    def _pairs(
        self, subject: Subject, items: Sequence[Item], source: Intent, target: Intent
    ) -> list[tuple[Row, Row]]:
        prompter = self.prompter(subject)
        pairs = []
        for item in sample(items, len(items), self.seed):
            to = Row(item, target)
            for other in _partners(item, items, source, target):
                given = Row(other, source)
                if prompter.first_token(given.answer) != prompter.first_token(to.answer):
                    pairs.append((given, to))
                    break
            if len(pairs) == self.pairs:
                return pairs
        raise UserError(
            f"there are only {len(pairs)} pairs {source} → {target}: lower --pairs or raise --draws"
        )

    def _search_pairs(
        self, subject: Subject, pairs: Sequence[tuple[Row, Row]]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A line of `search/ranges` and the lines of `search/curves`, without their setting."""
        import torch

        from .last_token_cache import CachedPrompts
        from .layer_search import IDENTITY, Patching, find_layers

        prompter = self.prompter(subject)
        sides = list(zip(*pairs, strict=True))
        source, target = (CachedPrompts(subject, [prompter.ids(x) for x in side]) for side in sides)
        ids = [[prompter.first_token(row.answer) for row in side] for side in sides]
        answers = torch.tensor(ids, device=subject.device)
        identity = subject.prompting.ids(IDENTITY)
        reader = CachedPrompts(subject, [identity])
        probe = Patching(subject, source, target, answers, reader)
        result = find_layers(probe, subject.spec.n_layers, self.t, self.phi, self.eps)
        line = {
            "layers": list(result.layers),
            "probes": len(result.history),
            "passes": probe.passes,
            "pairs": len(pairs),
            "source": float(result.curves.source[-1]),
            "target": float(result.curves.target[-1]),
        }
        probes = [
            {"probe": number, "patched": list(layers), "layer": layer, "source": p, "target": q}
            for number, (layers, curves) in enumerate(result.history)
            for layer, (p, q) in enumerate(torch.stack(curves, 1).tolist())
        ]
        return line, probes


@dataclass(frozen=True)
class SearchConfig(TunedModelStudy, SearchSettings):
    """Find the layers whose attention brings the answer to the last token, in four settings."""

    STUDY: ClassVar[str] = "knob.search"

    def run(self, out: RunWriter) -> dict[str, Any]:
        self.splits(out)
        return self.search(open_for(self, self.adapter, out), out)


def _partners(item: Item, items: Sequence[Item], source: Intent, target: Intent) -> list[Item]:
    """Items that can be the source of this target, in order."""
    if source != target:
        return [item]
    if source == "context":
        same_fact = (x for x in items if x.key == item.key)
        return [x for x in same_fact if x.context_answer != item.context_answer]
    same_relation = (x for x in items if x.relation == item.relation)
    return [x for x in same_relation if x.prior_answer != item.prior_answer]


def _range_text(row: dict[Hashable, Any]) -> str:
    """A setting's layers, with the probabilities at the last layer."""
    layers = layer_ranges([int(x) for x in row["layers"]]) or "none"
    return f"{layers} (source's answer {row['source']:.3f}, target's {row['target']:.3f})"


def layer_ranges(layers: Sequence[int]) -> str:
    """Rising layers, [15, 16, 17, 30], as '15-17, 30'."""
    firsts = [layer for layer in layers if layer - 1 not in layers]
    lasts = [layer for layer in layers if layer + 1 not in layers]
    ends = zip(firsts, lasts, strict=True)
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in ends)
