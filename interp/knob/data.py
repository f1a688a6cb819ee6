"""The data of every knob study: items, their split, and which of them the model knows.

Table `data/items`: relation, subject, context, query, prior, told (string: prior and told are the
item's prior_answer and context_answer), part (string: the split, a field of `items.Splits`), known
(bool: whether the model without an adapter knows the fact, see evaluate.known_keys).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.vocabulary import check_chat_template
from ..plain_path import plain_path
from ..runs.study import TextStudy, run_or_load
from ..runs.writer import RunWriter
from .items import FACTS, HELD_RELATIONS, Item, Key, Kind, Splits, read_items, split
from .prompts import Format, Prompter, Template, demonstrations

if TYPE_CHECKING:
    import pandas as pd

    from ..model.subject import Subject

ITEM_COLUMNS = ("relation", "subject", "context", "query", "prior", "told")
"""Columns of an Item's fields, in their order."""
PIECE = 32
"""Facts or items whose answers are kept together (RunWriter.in_pieces): what a stop can cost."""


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
        table = out.table_once("data/items", lambda: self._known_items(out))
        facts = table.drop_duplicates(["relation", "subject"])
        known = facts[facts["known"]]["part"].value_counts()
        return {
            "items": len(table),
            "facts": len(facts),
            "known": int(facts["known"].sum()),
            **{f"known, {name}": int(known.get(name, 0)) for name in Splits._fields},
        }

    def _known_items(self, out: RunWriter) -> Iterator[Mapping[str, Any]]:
        from .evaluate import known_keys

        subject = self.open(out)
        items = self._items()

        def asked(keys: Sequence[Key]) -> Iterator[Mapping[str, Any]]:
            seed, size = self.seed, self.batch_size
            right = known_keys(subject, items, seed=seed, batch_size=size, asked=keys)
            for key in keys:
                yield {"relation": key[0], "subject": key[1], "known": key in right}

        keys = list(dict.fromkeys(item.key for item in items))
        table = out.in_pieces("data/items", keys, asked, PIECE, "what the model knows", "facts")
        known = set(
            table[table["known"]][["relation", "subject"]].itertuples(index=False, name=None)
        )
        for name, members in split(items, self.held)._asdict().items():
            for item in members:
                columns = zip(ITEM_COLUMNS, vars(item).values(), strict=True)
                yield {**dict(columns), "part": name, "known": item.key in known}

    def _source(self) -> Path:
        return plain_path(self.facts) if self.facts else FACTS

    def _items(self) -> list[Item]:
        return read_items(self.kind, self._source(), self.draws, self.seed)


@dataclass(frozen=True)
class AskedData(DataConfig):
    """What the studies share that ask a model the items.

    Which facts it knows depends on none of this: that is a run of `knob.data`, made once.
    """

    template: Template = "chat"
    """Prompts in the model's chat template, or in plain blocks."""
    only_known: bool = True
    """Leave out facts that the model does not know."""

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        super().check()
        if self.template == "chat":
            check_chat_template(self.stored_weights.folder, self.model, "--template plain")

    def table(self, out: RunWriter) -> pd.DataFrame:
        """`data/items`, of the run of `knob.data` with the same settings."""

        def stored() -> pd.DataFrame:
            shared = {f.name: getattr(self, f.name) for f in fields(DataConfig)}
            run = run_or_load(DataConfig(**shared))
            out.facts |= {"parity": run.manifest["parity"], "data": str(run.path)}
            return run.table("data/items")

        return out.table_once("data/items", stored)

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
