"""Contexts that contradict what a model may know: the shipped facts, Fakepedia, and two made sets.

Every item is a context, a query, and two answers: the one the context gives and the one it
contradicts. `data/knob/facts.json` holds `{"relations": {name: {"query": "The capital of {} is",
"facts": {subject: answer}}}}`; a context states another answer of the same relation, drawn by seed.

- facts: "The capital of France is Rome." / "The capital of France is" -> Rome, or Paris
- two hops: the context moves a city, a second sentence links its new country on:
  "The country in which the city of Munich lies is Spain. The capital of Spain is Madrid." /
  "The capital of the country in which the city of Munich lies is" -> Madrid, or Berlin
- arithmetic: "2 + 3 = 7" / "(2 + 3) - 1 =" -> 6, or 4; both answers in 0..9 and different
"""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from interp.data import FOLDER

from ..errors import UserError

FACTS = FOLDER / "knob" / "facts.json"
Kind = Literal["facts", "two-hop", "arithmetic"]
HELD_RELATIONS = ("capital", "colour", "past", "young")
"""Relations of the shipped facts that no training sees."""
_HOPS = ("capital", "language", "currency", "continent")
_INNER = re.compile(r"\((\d [-+*] \d)\) [-+*] \d")
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True)
class Item:
    """A context that contradicts a fact, and a query for it."""

    relation: str
    subject: str
    context: str
    query: str
    prior: str
    """What is so: the answer when the context is to be ignored."""
    told: str
    """What the context says."""

    @property
    def key(self) -> tuple[str, str]:
        """What the item is about, whatever its context says."""
        return self.relation, self.subject


class Splits(NamedTuple):
    """Items to learn from, to choose settings on, and to report."""

    train: list[Item]
    validation: list[Item]
    """Relations of `train`, other subjects."""
    subjects: list[Item]
    """Relations of `train`, subjects held out from it and from `validation`."""
    relations: list[Item]
    """Relations that occur nowhere else."""


def read_items(
    kind: Kind = "facts", source: Path | None = None, draws: int = 1, seed: int = 0
) -> list[Item]:
    """The items of a set.

    Args:
        source: a fact table of one's own, or a Fakepedia JSON; by default the shipped facts.
        draws: contexts for each fact (for arithmetic, for each expression), all different.

    Raises:
        UserError: no such set or file, or a file of another shape.
    """
    if kind not in get_args(Kind):
        raise UserError(f"no set '{kind}': choose one of {', '.join(get_args(Kind))}")
    if draws < 1:
        raise UserError(f"{draws} contexts for each fact: draw at least 1")
    if kind == "arithmetic":
        return arithmetic(draws, seed)
    found = _read(source or FACTS)
    if isinstance(found, list):
        if kind != "facts":
            raise UserError("Fakepedia has no two-hop set here: use facts, or the shipped table")
        return _contradictions([_fakepedia(record) for record in found], source or FACTS)
    relations = _relations(found, source or FACTS)
    if kind == "two-hop":
        return _two_hop(relations, draws, seed)
    made = []
    for name, relation in relations.items():
        answers = list(dict.fromkeys(relation["facts"].values()))
        for subject, prior in relation["facts"].items():
            query = relation["query"].format(subject)
            others = [a for a in answers if _apart(a, prior)]
            for told in _drawn(others, draws, f"{seed}/{name}/{subject}"):
                made.append(Item(name, subject, f"{query} {told}.", query, prior, told))
    return made


def fingerprint(kind: Kind, source: Path) -> dict[str, str]:
    """The hash of what a set is read from; nothing for arithmetic, which is made.

    Raises:
        UserError: no such file.
    """
    from ..model.catalog import sha256

    return {} if kind == "arithmetic" else {"facts": sha256(source)}


def statements(items: Iterable[Item]) -> dict[tuple[str, str], str]:
    """Each key's true statement, 'The capital of France is Paris'."""
    return {item.key: f"{item.query} {item.prior}" for item in items}


def split(
    items: Sequence[Item],
    held: Sequence[str] = HELD_RELATIONS,
    validation: float = 0.15,
    test: float = 0.25,
) -> Splits:
    """Whole relations and whole subjects apart; a subject has its place by its name's hash, so
    that France is in the same part for its capital and for its currency, and `2 + 3` for all
    that is reckoned with it."""
    parts = Splits([], [], [], [])
    for item in items:
        inner = _INNER.fullmatch(item.subject)
        name = inner[1] if inner else item.subject
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
        if item.relation in held:
            parts.relations.append(item)
        elif place < test:
            parts.subjects.append(item)
        elif place < test + validation:
            parts.validation.append(item)
        else:
            parts.train.append(item)
    return parts


def arithmetic(draws: int, seed: int) -> list[Item]:
    """Expressions over digits with one or two operators; the context gives a subexpression another
    value. `draws` contexts an expression; relation = the number of operators."""
    found = []
    for a, b in itertools.product(range(10), repeat=2):
        for sign in _OPERATORS:
            inner = f"{a} {sign} {b}"
            value = _OPERATORS[sign](a, b)
            if 0 <= value <= 9:
                found += _sums(inner, value, inner, lambda x: x, "one operator", draws, seed)
            for outer, c in itertools.product(_OPERATORS, range(1, 10)):
                apply = _OPERATORS[outer]
                whole = f"({inner}) {outer} {c}"

                def value_of(x: int, apply: Any = apply, c: int = c) -> int:
                    return int(apply(x, c))

                if 0 <= value_of(value) <= 9:
                    found += _sums(inner, value, whole, value_of, "two operators", draws, seed)
    random.Random(f"{seed}/arithmetic").shuffle(found)
    return found


def _sums(
    inner: str, value: int, whole: str, value_of: Any, name: str, draws: int, seed: int
) -> list[Item]:
    """Items of one expression: the context says `inner` is something that keeps `whole` a digit."""
    prior = value_of(value)
    told = [x for x in range(10) if x != value and 0 <= value_of(x) <= 9 and value_of(x) != prior]
    chosen = _drawn([str(x) for x in told], draws, f"{seed}/{whole}")
    return [
        Item(name, whole, f"{inner} = {x}.", f"{whole} =", str(prior), str(value_of(int(x))))
        for x in chosen
    ]


def _two_hop(relations: dict[str, Any], draws: int, seed: int) -> list[Item]:
    missing = [name for name in ("country", *_HOPS) if name not in relations]
    if missing:
        raise UserError(f"the two-hop set needs the relations {', '.join(missing)} in the table")
    first = relations["country"]
    made = []
    for city, country in first["facts"].items():
        for name in _HOPS:
            query, facts = relations[name]["query"], relations[name]["facts"]
            if country not in facts:
                continue
            prior = facts[country]
            others = [c for c in dict.fromkeys(first["facts"].values()) if c in facts]
            others = [c for c in others if _apart(facts[c], prior)]
            for told in _drawn(others, draws, f"{seed}/{name}/{city}"):
                place = first["query"].format(city)
                context = f"{place} {told}. {query.format(told)} {facts[told]}."
                inner = place.removesuffix(" is").replace("The country", "the country", 1)
                asked = query.format(inner)
                made.append(Item(f"{name} of a city", city, context, asked, prior, facts[told]))
    return made


def _apart(a: str, b: str) -> bool:
    """Neither answer begins the other, so that a text can start with one of them only."""
    return not (a.startswith(b) or b.startswith(a))


def _drawn(answers: list[str], draws: int, seed: str) -> list[str]:
    return random.Random(seed).sample(answers, min(draws, len(answers)))


def _fakepedia(record: Any) -> Item:
    """One item of BaseFakepedia: `query`, `object` (the contradiction), `fact_paragraph`, and its
    `fact_parent` with the true object; the context is the plain contradiction."""
    try:
        parent = record["fact_parent"]
        query, told = str(record["query"]).strip(), str(record["object"])
        relation, subject = str(parent["rel_p_id"]), str(parent["subject"])
        return Item(relation, subject, f"{query} {told}.", query, str(parent["object"]), told)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"a record of this JSON list has no proper {error}: Fakepedia's have query, object and "
            "fact_parent (rel_p_id, subject, object)"
        ) from error


def _contradictions(items: list[Item], path: Path) -> list[Item]:
    """The items whose answers can be told apart, each context of a key once: Fakepedia also tells
    "New York City" where "New York" is so."""
    kept: dict[tuple[str, ...], Item] = {}
    for item in items:
        if _apart(item.told, item.prior):
            kept.setdefault((*item.key, item.context), item)
    if not kept:
        raise UserError(
            f"{path} has no record with an object that contradicts its true object: "
            "give another list"
        )
    return list(kept.values())


def _unreadable(path: Path, error: Exception) -> str:
    return f"cannot read facts from {path} ({error}): give --facts a JSON file"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(_unreadable(path, error)) from error


def _relations(found: Any, path: Path) -> dict[str, Any]:
    relations = found.get("relations") if isinstance(found, dict) else None
    good = isinstance(relations, dict) and all(
        isinstance(r, dict) and isinstance(r.get("query"), str) and isinstance(r.get("facts"), dict)
        for r in relations.values()
    )
    if not relations or not good:
        raise UserError(
            f'{path} is no fact table: {{"relations": {{name: {{"query": "… {{}} …", "facts": '
            "{subject: answer}}}}"
        )
    for name, relation in relations.items():
        _check_relation(name, relation, path)
    return dict(relations)


def _check_relation(name: str, relation: dict[str, Any], path: Path) -> None:
    """Raise UserError for what could not be made into items, or into none."""
    query, facts = relation["query"], relation["facts"]
    rest = query.replace("{}", "", 1)
    if rest == query or "{" in rest or "}" in rest:
        raise UserError(
            f"{path}: the query of '{name}' needs one {{}} and no other braces: {query!r}"
        )
    for subject, answer in facts.items():
        if not isinstance(answer, str) or not answer.strip():
            raise UserError(
                f"{path}: the answer for '{subject}' in '{name}' is {answer!r}; "
                'write it as a text in quotes, such as "4"'
            )
    if not any(_apart(a, b) for a, b in itertools.combinations(set(facts.values()), 2)):
        raise UserError(
            f"{path}: '{name}' has no two different answers of which neither begins the other, so "
            "no context can contradict a fact: add facts or leave it out"
        )
