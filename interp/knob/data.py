"""The data of every knob study: items, their split, and which of them the model knows.

Table `data/items.parquet`: relation, subject, context, query, prior, told (strings: the item), part
(train, validation, subjects, relations), known (bool: see evaluate.known_keys; asked of the model
as it comes, without its adapter).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.store import RunWriter
from .items import FACTS, HELD_RELATIONS, Item, Kind, Splits, fingerprint, read_items, split
from .prompts import Template

if TYPE_CHECKING:
    import pandas as pd

    from ..model.subject import Subject

PART = "data/items.parquet"


@dataclass(frozen=True)
class DataConfig:
    """Items whose context contradicts what the model may know, and which of them it knows."""

    STUDY: ClassVar[str] = "knob.data"
    VERSION: ClassVar[int] = 2

    model: str = "smollm2-135m"
    """A catalog name, hub id or folder."""
    kind: Kind = "facts"
    """The set of items."""
    facts: str = ""
    """A fact table of one's own or a Fakepedia JSON; by default the shipped facts. Arithmetic
    reads none."""
    draws: int = 10
    """Contexts for each fact, all different."""
    held: tuple[str, ...] = HELD_RELATIONS
    """Relations kept from all training."""
    template: Template = "chat"
    """Prompts in the model's chat template, or in plain blocks."""
    only_known: bool = True
    """Leave out facts that the model does not know."""
    seed: int = 0
    """Of every draw."""
    batch_size: int = field(default=16, metadata={"key": False})
    """Prompts in one forward pass."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    def fingerprints(self) -> dict[str, str]:
        from ..model.weights import open_weights

        facts = fingerprint(self.kind, self._source())  # first, as a wrong path shows at once
        return {**open_weights(self.model).fingerprints(), **facts}

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        items = self._items()
        if not items:
            raise UserError("there are no items: choose another set or table")
        known = dict.fromkeys(item.relation for item in items)
        unknown = [name for name in self.held if name not in known]
        # the default names are those of the shipped facts; other sets and tables have none of them
        if unknown and set(self.held) != set(HELD_RELATIONS):
            raise UserError(
                f"--held: no relation {', '.join(unknown)} in this set; it has {', '.join(known)}"
            )

    def run(self, out: RunWriter) -> dict[str, Any]:
        table = self.table(out)
        counts = table.drop_duplicates(["relation", "subject"])
        known = counts["known"].sum()
        parts = counts[counts["known"]]["part"].value_counts()
        return {
            "items": len(table),
            "facts": len(counts),
            "known": int(known),
            **{f"known, {part}": int(parts.get(part, 0)) for part in Splits._fields},
        }

    def table(self, out: RunWriter) -> pd.DataFrame:
        """`data/items.parquet`, made if this run does not have it yet."""
        import pandas as pd

        if not out.has(PART):
            from ..model.subject import open_subject
            from .evaluate import known_keys

            subject = open_subject(self.model, device=self.device)
            out.facts["parity"] = subject.parity
            items = self._items()
            known = known_keys(subject, items, seed=self.seed, batch_size=self.batch_size)
            table = pd.DataFrame(
                {**asdict(item), "part": part, "known": item.key in known}
                for part, inside in split(items, self.held)._asdict().items()
                for item in inside
            )
            with out.part(PART) as path:
                table.to_parquet(path)
        return pd.read_parquet(out.path / PART)

    def splits(self, out: RunWriter) -> Splits:
        """The items to work with; with `only_known`, those the model knows."""
        return splits_of(self.table(out), self.only_known)

    def _source(self) -> Path:
        return Path(self.facts).expanduser() if self.facts else FACTS

    def _items(self) -> list[Item]:
        return read_items(self.kind, self._source(), self.draws, self.seed)


def splits_of(table: pd.DataFrame, only_known: bool = True) -> Splits:
    """Items back from `data/items.parquet`."""
    used = table[table["known"]] if only_known else table
    columns = list(Item.__dataclass_fields__)
    found = {
        part: [Item(*map(str, line)) for line in rows[columns].itertuples(index=False)]
        for part, rows in used.groupby("part")
    }
    return Splits(*(found.get(part, []) for part in Splits._fields))


def some(items: list[Item], count: int, seed: int = 0) -> list[Item]:
    """`count` items, every fact once before any is drawn twice; all of them if there are fewer."""
    import random

    shuffled = random.Random(f"{seed}/some").sample(items, len(items))
    seen: dict[tuple[str, str], int] = {}
    ranked = []
    for place, item in enumerate(shuffled):
        seen[item.key] = seen.get(item.key, 0) + 1
        ranked.append((seen[item.key], place, item))
    return [item for _, _, item in sorted(ranked, key=lambda r: r[:2])[:count]]


def open_tuned(config: DataConfig, adapter: str) -> Subject:
    """The config's model with an adapter merged into it; without one ("none"), as it comes."""
    from ..model.subject import open_subject
    from .adapter import merged

    if adapter == "none":
        return open_subject(config.model, device=config.device)
    return merged(config.model, adapter, config.device)
