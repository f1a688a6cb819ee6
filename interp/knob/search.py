"""The layer search on a model, in the paper's four settings: `interp knob search`.

Pairs of a source and a target prompt, with different answers, for each setting:

    context -> prior, prior -> context   the same context and query, the other intent
    context -> context                   the same query, another context
    prior -> prior                       another fact of the same relation

Tables: `search/ranges.parquet`, a line a setting: setting, layers (list of int), probes, passes
(forward passes), pairs; source and target: the final curves' values at the last layer.
`search/curves.parquet`, a line a probe and layer: setting, probe, patched (list of int), layer,
source, target: probability of the source's and of the target's answer; the last probe of a setting
is that of the layers found. And `data/items.parquet` (see data.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..progress import progress
from ..runs.store import RunWriter
from .adapter import adapter_fingerprint
from .data import DataConfig, open_tuned, some
from .items import Item
from .prompts import INTENTS, Intent, Prompter, Row

if TYPE_CHECKING:
    from ..model.subject import Subject
    from .layers import Found

SETTINGS: tuple[tuple[Intent, Intent], ...] = (
    ("context", "prior"),
    ("prior", "context"),
    ("context", "context"),
    ("prior", "prior"),
)


@dataclass(frozen=True)
class SearchSettings(DataConfig):
    """How layers are searched."""

    pairs: int = 16
    """Pairs of prompts that are averaged over."""
    t: float = 0.9
    """Share of what patching all layers gives that the found ones must exceed."""
    phi: float = 0.05
    """A fall of the source's answer between layers that is repaired."""
    eps: float = 0.3
    """By how much the source's answer must win at the end."""

    def search(self, subject: Subject, out: RunWriter) -> dict[str, Any]:
        """Search in every setting, unless `out` has the tables; the ranges as metrics."""
        import pandas as pd

        if not out.has("search/ranges.parquet"):
            ranges, curves = [], []
            splits = self.splits(out)
            with progress("search", len(SETTINGS), "settings") as advance:
                for source, target in SETTINGS:
                    name = f"{source} → {target}"
                    pairs = self._pairs(
                        subject, splits.validation + splits.subjects, source, target
                    )
                    line, lines = self._searched(subject, pairs)
                    ranges.append({"setting": name, **line})
                    curves += [{"setting": name, **x} for x in lines]
                    advance(1, f"{name}: {line['layers']}")
            with out.part("search/curves.parquet") as path:
                pd.DataFrame(curves).to_parquet(path)
            with out.part("search/ranges.parquet") as path:
                pd.DataFrame(ranges).to_parquet(path)
        found = pd.read_parquet(out.path / "search/ranges.parquet")
        return {f"layers {row['setting']}": _said(row) for row in found.to_dict("records")}

    def _pairs(
        self, subject: Subject, items: Sequence[Item], source: Intent, target: Intent
    ) -> list[tuple[Row, Row]]:
        prompter = Prompter(subject.tokenizer, template=self.template)

        def token(row: Row) -> int:
            return prompter.answer_ids(row.answer)[0]

        found = []
        for item in some(list(items), len(items), self.seed):
            goal = Row(item, target)
            for other in _partners(item, items, source, target):
                given = Row(other, source)
                if token(given) != token(goal):
                    found.append((given, goal))
                    break
            if len(found) == self.pairs:
                return found
        raise UserError(
            f"only {len(found)} pairs {source} → {target}: lower --pairs or raise --draws"
        )

    def _searched(
        self, subject: Subject, pairs: Sequence[tuple[Row, Row]]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        import torch

        from .last import LastToken
        from .layers import IDENTITY, Patching, find_layers

        prompter = Prompter(subject.tokenizer, template=self.template)
        sides = [
            LastToken(subject, [prompter.ids(row) for row in side])
            for side in zip(*pairs, strict=True)
        ]
        answers = [
            torch.tensor([prompter.answer_ids(row.answer)[0] for row in side]).to(subject.device)
            for side in zip(*pairs, strict=True)
        ]
        identity = subject.tokenizer.encode(IDENTITY, add_special_tokens=False)
        probe = Patching(
            subject, sides[0], sides[1], answers[0], answers[1], LastToken(subject, [identity])
        )
        found = find_layers(probe, subject.spec.n_layers, self.t, self.phi, self.eps)
        line = {
            "layers": list(found.layers),
            "probes": len(found.history),
            "passes": probe.passes,
            "pairs": len(pairs),
            "source": float(found.curves.source[-1]),
            "target": float(found.curves.target[-1]),
        }
        return line, _lines(found)


@dataclass(frozen=True)
class SearchConfig(SearchSettings):
    """Find the layers whose attention brings the answer to the last token, in four settings."""

    STUDY: ClassVar[str] = "knob.search"

    adapter: str = "shipped"
    """The adapter's folder; "shipped", or "none" for the model as it comes."""

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), "adapter": adapter_fingerprint(self.adapter)}

    def run(self, out: RunWriter) -> dict[str, Any]:
        self.splits(out)
        return self.search(open_tuned(self, self.adapter), out)


def _partners(item: Item, items: Sequence[Item], source: Intent, target: Intent) -> list[Item]:
    """Items that can be the source of this target, in order."""
    if source != target:
        return [item]
    if source == INTENTS[1]:
        return [x for x in items if x.key == item.key and x.told != item.told]
    return [x for x in items if x.relation == item.relation and x.prior != item.prior]


def _lines(found: Found) -> list[dict[str, Any]]:
    return [
        {
            "probe": number,
            "patched": list(layers),
            "layer": layer,
            "source": float(curves.source[layer]),
            "target": float(curves.target[layer]),
        }
        for number, (layers, curves) in enumerate(found.history)
        for layer in range(len(curves.source))
    ]


def _said(row: dict[Hashable, Any]) -> str:
    """What was found in a setting, with the probabilities that are read at the last layer."""
    layers = ranged([int(x) for x in row["layers"]]) or "none"
    return f"{layers} (source's answer {row['source']:.3f}, target's {row['target']:.3f})"


def ranged(layers: Sequence[int]) -> str:
    """[15, 16, 17, 30] as '15-17, 30'."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
