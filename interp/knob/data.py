"""The data of every knob study: items, their split, and which of them the model knows.

Table `data/items`: relation, subject, context, query, prior, told (string: prior and told are the
item's prior_answer and context_answer), part (string: the split, a field of `items.Splits`), known
(bool: whether the model without an adapter knows the fact, see evaluate.known_keys).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .items import FACTS, HELD_RELATIONS, Item, Kind, Splits, read_items, split
from .prompts import Format, Prompter, Template, demonstrations

if TYPE_CHECKING:
    import pandas as pd

    from ..model.subject import Subject

ITEM_COLUMNS = ("relation", "subject", "context", "query", "prior", "told")
"""Columns of an Item's fields, in their order."""


@dataclass(frozen=True)
class DataConfig(TextStudy):
    """Items whose context contradicts what the model may know, and which of them it knows."""

    STUDY: ClassVar[str] = "knob.data"
    VERSION: ClassVar[int] = 2

    kind: Kind = "facts"
    """The set of items."""
    facts: str = ""
    """Your own fact table or a Fakepedia JSON; by default the shipped facts. Arithmetic needs
    none."""
    draws: int = 10
    """Contexts for each fact, all different."""
    held: tuple[str, ...] = HELD_RELATIONS
    """Relations that no training sees."""
    template: Template = "chat"
    """Prompts in the model's chat template, or in plain blocks."""
    only_known: bool = True
    """Leave out facts that the model does not know."""
    seed: int = 0
    """Seed of every draw."""
    batch_size: int = field(default=16, metadata={"key": False})
    """Prompts in one forward pass."""

    def fingerprints(self) -> dict[str, str]:
        from ..model.files import sha256

        # first: a wrong path shows at once
        facts = {} if self.kind == "arithmetic" else {"facts": sha256(self._source())}
        return {**super().fingerprints(), **facts}

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        super().check()
        items = self._items()
        if not items:
            raise UserError("there are no items: choose another set or table")
        relations = dict.fromkeys(item.relation for item in items)
        unknown = [name for name in self.held if name not in relations]
        # the default names are relations of the shipped facts; other sets need not have them
        if unknown and set(self.held) != set(HELD_RELATIONS):
            raise UserError(
                f"--held: there is no relation {', '.join(unknown)} in this set; it has "
                + ", ".join(relations)
            )

    def run(self, out: RunWriter) -> dict[str, Any]:
        table = self.table(out)
        facts = table.drop_duplicates(["relation", "subject"])
        known = facts[facts["known"]]["part"].value_counts()
        return {
            "items": len(table),
            "facts": len(facts),
            "known": int(facts["known"].sum()),
            **{f"known, {name}": int(known.get(name, 0)) for name in Splits._fields},
        }

    def table(self, out: RunWriter) -> pd.DataFrame:
        """`data/items`, computed if this run does not have it yet."""
        return out.table_once("data/items", lambda: self._known_items(out))

    def splits(self, out: RunWriter) -> Splits:
        """The items to work with; with `only_known`, those the model knows."""
        return splits_of(self.table(out), self.only_known)

    def prompter(
        self,
        subject: Subject,
        form: Format = "instruction",
        train: Sequence[Item] = (),
        shots: int = 0,
    ) -> Prompter:
        """Prompts in this study's template, behind `shots` demonstrations from `train`."""
        before = demonstrations(train, shots, self.seed)
        return Prompter(subject.prompting, form, before, self.template)

    def _known_items(self, out: RunWriter) -> Iterator[Mapping[str, Any]]:
        from .evaluate import known_keys

        subject = self.open(out)
        items = self._items()
        known = known_keys(subject, items, seed=self.seed, batch_size=self.batch_size)
        for name, members in split(items, self.held)._asdict().items():
            for item in members:
                columns = zip(ITEM_COLUMNS, vars(item).values(), strict=True)
                yield {**dict(columns), "part": name, "known": item.key in known}

    def _source(self) -> Path:
        return Path(self.facts).expanduser() if self.facts else FACTS

    def _items(self) -> list[Item]:
        return read_items(self.kind, self._source(), self.draws, self.seed)


def splits_of(table: pd.DataFrame, only_known: bool = True) -> Splits:
    """The items that the table `data/items` holds."""
    used = table[table["known"]] if only_known else table
    splits = (used.loc[used["part"] == name, [*ITEM_COLUMNS]] for name in Splits._fields)
    return Splits(*([Item(*row) for row in rows.itertuples(index=False)] for rows in splits))


def sample(items: Sequence[Item], count: int, seed: int = 0) -> list[Item]:
    """`count` items, every fact once before any is drawn twice; all of them if there are fewer."""
    draws: Counter[tuple[str, str]] = Counter()
    ranked = []
    for item in random.Random(f"{seed}/some").sample(items, len(items)):
        draws[item.key] += 1
        ranked.append((draws[item.key], item))
    return [item for _, item in sorted(ranked, key=itemgetter(0))[:count]]
