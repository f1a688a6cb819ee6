"""Contexts that contradict what a model may know: the shipped facts, Fakepedia, two generated sets.

Every item is a context, a query, and two answers: the one the context gives and the one it
contradicts. `data/knob/facts.json` holds `{"relations": {name: {"query": "The capital of {} is",
"facts": {subject: answer}}}}`; a context states another answer of the same relation, drawn by seed.

- facts: "The capital of France is Rome." / "The capital of France is" -> Rome, or Paris
- two hops: the context moves a city to another country, and says what holds there:
  "The country in which the city of Munich lies is Spain. The capital of Spain is Madrid." /
  "The capital of the country in which the city of Munich lies is" -> Madrid, or Berlin
- arithmetic: "2 + 3 = 7" / "(2 + 3) - 1 =" -> 6, or 4; both answers in 0..9 and different
"""

from __future__ import annotations

import hashlib
import itertools
import operator
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from interp.data import FOLDER

from ..errors import UserError
from ..plain_json import check, read_json

FACTS = FOLDER / "knob" / "facts.json"
Kind = Literal["facts", "two-hop", "arithmetic"]
Key = tuple[str, str]
"""A fact: relation, subject."""
HELD_RELATIONS = ("capital", "colour", "past", "young")
"""Relations of the shipped facts that no training sees."""
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.15
"""Shares of the other relations' subjects."""
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
    prior_answer: str
    """The true answer: right when the context is to be ignored. Column `prior` of the tables."""
    context_answer: str
    """The answer that the context gives. Column `told` of the tables."""

    @property
    def key(self) -> Key:
        """The fact that the item is about; items of one fact differ in their contexts."""
        return self.relation, self.subject


class Splits(NamedTuple):
    """Items to learn from, to choose settings on, and to report; field names are the tables'
    column `part`."""

    train: list[Item]
    validation: list[Item]
    """Relations of `train`, other subjects."""
    subjects: list[Item]
    """Relations of `train`, subjects held out from it and from `validation`."""
    relations: list[Item]
    """Relations that no other split has."""


def read_items(
    kind: Kind = "facts", source: Path | None = None, draws: int = 1, seed: int = 0
) -> list[Item]:
    """The items of a set.

    Args:
        source: your own fact table or a Fakepedia JSON; by default the shipped facts.
        draws: contexts for each fact (for arithmetic, for each expression), all different.

    Raises:
        UserError: no such set or file, or a file of another shape.
    """
    if kind not in get_args(Kind):
        raise UserError(f"there is no set '{kind}': choose one of {', '.join(get_args(Kind))}")
    if draws < 1:
        raise UserError(f"--draws is {draws}: each fact needs at least 1 context")
    if kind == "arithmetic":
        return arithmetic(draws, seed)
    source = source or FACTS
    stored = read_json(source, "give --facts a JSON file", object)
    if isinstance(stored, list):
        if kind != "facts":
            raise UserError(
                "a Fakepedia list has no two-hop set: use --kind facts or the shipped facts"
            )
        return _contradictions(
            [_fakepedia(each, f"record {i} of {source}") for i, each in enumerate(stored, 1)],
            source,
        )
    relations = _relations(stored, source)
    if kind == "two-hop":
        return _two_hop(relations, draws, seed)
    items = []
    for name, relation in relations.items():
        answers = list(dict.fromkeys(relation["facts"].values()))
        for subject, true in relation["facts"].items():
            query = relation["query"].format(subject)
            others = [answer for answer in answers if _distinguishable(answer, true)]
            for other in _drawn(others, draws, f"{seed}/{name}/{subject}"):
                items.append(Item(name, subject, f"{query} {other}.", query, true, other))
    return items


def split(items: Sequence[Item], held: Sequence[str] = HELD_RELATIONS) -> Splits:
    """Whole relations and whole subjects go to one split. The hash of a subject's name chooses it,
    so France is in the same split for its capital and for its currency, and `2 + 3` for every
    expression that contains it."""
    splits = Splits([], [], [], [])
    for item in items:
        inner = _INNER.fullmatch(item.subject)
        name = inner[1] if inner else item.subject
        share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
        if item.relation in held:
            splits.relations.append(item)
        elif share < TEST_SHARE:
            splits.subjects.append(item)
        elif share < TEST_SHARE + VALIDATION_SHARE:
            splits.validation.append(item)
        else:
            splits.train.append(item)
    return splits


def arithmetic(draws: int, seed: int) -> list[Item]:
    """Expressions over digits with one or two operators; the context gives a subexpression another
    value. `draws` contexts an expression; relation = the number of operators."""
    items = []
    for a, b, sign in itertools.product(range(10), range(10), _OPERATORS):
        inner, value = f"{a} {sign} {b}", _OPERATORS[sign](a, b)
        expressions = [("one operator", inner, "+", 0)] + [
            ("two operators", f"({inner}) {outer} {c}", outer, c)
            for outer, c in itertools.product(_OPERATORS, range(1, 10))
        ]
        for relation, whole, outer, c in expressions:
            results = {x: _OPERATORS[outer](x, c) for x in (*range(10), value)}
            true = results[value]
            digits = [x for x in range(10) if x != value and 0 <= results[x] <= 9]
            others = [str(x) for x in digits if results[x] != true]
            for x in _drawn(others, draws, f"{seed}/{whole}") if 0 <= true <= 9 else ():
                answers = str(true), str(results[int(x)])
                items.append(Item(relation, whole, f"{inner} = {x}.", f"{whole} =", *answers))
    random.Random(f"{seed}/arithmetic").shuffle(items)
    return items


def _two_hop(relations: dict[str, Any], draws: int, seed: int) -> list[Item]:
    missing = [name for name in ("country", *_HOPS) if name not in relations]
    if missing:
        raise UserError(f"the two-hop set needs the relations {', '.join(missing)} in the table")
    first = relations["country"]
    items = []
    for city, country in first["facts"].items():
        for name in _HOPS:
            query, facts = relations[name]["query"], relations[name]["facts"]
            if country not in facts:
                continue
            true = facts[country]
            others = [c for c in dict.fromkeys(first["facts"].values()) if c in facts]
            others = [c for c in others if _distinguishable(facts[c], true)]
            for other in _drawn(others, draws, f"{seed}/{name}/{city}"):
                hop = first["query"].format(city)
                context = f"{hop} {other}. {query.format(other)} {facts[other]}."
                inner = hop.removesuffix(" is").replace("The country", "the country", 1)
                asked = query.format(inner)
                items.append(Item(f"{name} of a city", city, context, asked, true, facts[other]))
    return items


def _distinguishable(a: str, b: str) -> bool:
    """Whether neither answer begins the other: then a text can start with only one of them."""
    return not (a.startswith(b) or b.startswith(a))


def _drawn(answers: list[str], draws: int, seed: str) -> list[str]:
    return random.Random(seed).sample(answers, min(draws, len(answers)))


def _fakepedia(record: Any, where: str) -> Item:
    """One item of BaseFakepedia: `query`, `object` (the contradiction), `fact_paragraph`, and its
    `fact_parent` with the true object; the context is the plain contradiction."""
    fix = "a Fakepedia record has query, object and fact_parent (rel_p_id, subject, object)"
    check(record, dict[str, Any], where, fix)
    parent = record.get("fact_parent")
    check(parent, dict[str, Any], f"'fact_parent' of {where}", fix)
    texts = {name: record.get(name) for name in ("query", "object")}
    texts |= {f"fact_parent.{name}": parent.get(name) for name in ("rel_p_id", "subject", "object")}
    check(texts, dict[str, str], where, fix)
    query, answer, relation, subject, true = texts.values()
    query = query.strip()
    return Item(relation, subject, f"{query} {answer}.", query, true, answer)


def _contradictions(items: list[Item], path: Path) -> list[Item]:
    """The items whose answers are distinguishable, each context of a key once: Fakepedia also
    contradicts "New York" by "New York City"."""
    kept: dict[tuple[str, ...], Item] = {}
    for item in items:
        if _distinguishable(item.context_answer, item.prior_answer):
            kept.setdefault((*item.key, item.context), item)
    if not kept:
        raise UserError(
            f"{path} has no record with an object that contradicts its true object: "
            "give another list"
        )
    return list(kept.values())


def _relations(stored: Any, path: Path) -> dict[str, Any]:
    relations = stored.get("relations") if isinstance(stored, dict) else None
    good = isinstance(relations, dict) and all(
        isinstance(r, dict) and isinstance(r.get("query"), str) and isinstance(r.get("facts"), dict)
        for r in relations.values()
    )
    if not relations or not good:
        raise UserError(
            f'{path} is not a fact table: {{"relations": {{name: {{"query": "… {{}} …", "facts": '
            "{subject: answer}}}}"
        )
    for name, relation in relations.items():
        _check_relation(name, relation, path)
    return dict(relations)


def _check_relation(name: str, relation: dict[str, Any], path: Path) -> None:
    """Raise UserError for a relation that gives no items."""
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
                'write it in quotes, such as "4"'
            )
    if not any(_distinguishable(a, b) for a, b in itertools.combinations(set(facts.values()), 2)):
        raise UserError(
            f"{path}: '{name}' needs two answers of which neither begins the other; without them "
            "no context contradicts a fact: add facts or leave the relation out"
        )
