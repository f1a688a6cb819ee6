"""Does a model answer by the intent? Accuracy and PairAcc, with intervals, and what it knows.

Greedy decoding of at most 10 tokens; right when the stripped text starts with the answer. As models
that were not tuned answer in sentences ("The capital of France is Rome."), there is a second grade,
never mixed with the first: `named`, when the text names the answer and not the other one.
PairAcc, over (context, query) pairs, is the mean of min(right under both intents): (T, T), (T, F)
gives accuracy .75 and PairAcc .5, and always following the context gives 0. Intervals are
bootstrapped over keys (relation, subject), as the items of one key are no independent draws.

What the model knows: it completes the bare statement with the right answer behind each of three
draws of other true statements of the same relation. No context, no instruction. There the answer
must end as a word: a model that echoes "Xenon" has not said "Xe".
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..progress import progress
from .items import Item, statements
from .prompts import Prompter, Row

if TYPE_CHECKING:
    import pandas as pd

    from ..model.edits import Edit
    from ..model.subject import Subject
    from .last import LastToken

NEW_TOKENS = 10
BOOTSTRAPS = 1000


def batched(
    subject: Subject, prompts: Sequence[Sequence[int]], batch_size: int, label: str
) -> Iterator[tuple[list[int], LastToken]]:
    """Prompts ready to answer, with their places; those of like length run together."""
    from .last import LastToken

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with progress(label, len(prompts), "prompts") as advance:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            yield places, LastToken(subject, [prompts[i] for i in places])
            advance(len(places))


def answered(subject: Subject, last: LastToken, edits: Iterable[Edit] = ()) -> list[str]:
    """Greedy answers up to their end, stripped; edits apply from the prompt's last token on."""
    import torch

    ends = set(subject._end_tokens())
    return [
        subject.text(torch.tensor([i for i in ids if i not in ends], dtype=torch.long)).strip()
        for ids in last.generate(NEW_TOKENS, edits).tolist()
    ]


def answer_rows(
    subject: Subject, prompter: Prompter, rows: Sequence[Row], batch_size: int = 16
) -> pd.DataFrame:
    """A line a row: relation, subject, context, told, intent, answer, text, right, named."""
    if not rows:
        raise UserError("there are no rows to answer: choose more facts")
    texts = [""] * len(rows)
    for places, last in batched(subject, [prompter.ids(row) for row in rows], batch_size, "answer"):
        for place, text in zip(places, answered(subject, last), strict=True):
            texts[place] = text
    return graded(rows, texts)


def graded(rows: Sequence[Row], texts: Sequence[str]) -> pd.DataFrame:
    """Rows and the texts a model gave for them, as `answer_rows` returns them."""
    import pandas as pd

    lines = [
        {
            "relation": row.item.relation,
            "subject": row.item.subject,
            "context": row.item.context,
            "told": row.item.told,
            "intent": row.intent,
            "answer": row.answer,
            "text": text,
            "right": text.startswith(row.answer),
            "named": names(text, row.answer) and not names(text, row.other),
        }
        for row, text in zip(rows, texts, strict=True)
    ]
    return pd.DataFrame(lines)


def names(text: str, answer: str) -> bool:
    """Whether an answer occurs in a text, as whole words and in any case."""
    words = rf"(?<!\w){re.escape(answer.casefold())}(?!\w)"
    return re.search(words, text.casefold()) is not None


def scores(answers: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """accuracy, pair_acc and named (PairAcc by the second grade), each with `_low` and `_high`
    (95 %), right under each intent, n pairs.

    Raises:
        UserError: an item without both of its intents, or with two answers under one.
    """
    both = _pairs(answers, "right")
    both["mean"] = (both["prior"].astype(float) + both["context"]) / 2
    both["named"] = _pairs(answers, "named")["pair"]
    found = {"prior": float(both["prior"].mean()), "context": float(both["context"].mean())}
    keys = both.groupby(["relation", "subject"])
    count = keys.size().to_numpy()
    drawn = np.random.default_rng(seed).integers(0, len(count), (BOOTSTRAPS, len(count)))
    for name, column in (("accuracy", "mean"), ("pair_acc", "pair"), ("named", "named")):
        total = keys[column].sum().to_numpy().astype(float)
        resampled = total[drawn].sum(1) / count[drawn].sum(1)
        found[name] = float(both[column].mean())
        found[f"{name}_low"], found[f"{name}_high"] = map(
            float, np.quantile(resampled, [0.025, 0.975])
        )
    return {**found, "pairs": float(len(both)), "facts": float(len(count))}


def _pairs(answers: pd.DataFrame, grade: str) -> pd.DataFrame:
    """A line an item: the grade under each intent, and `pair`: under both."""
    # "context" is an intent's name too, and becomes a column
    answers = answers.rename(columns={"context": "given"})
    # of two contexts of a fact, both can lead to one told answer; older tables have no context
    index = [name for name in ("relation", "subject", "told", "given") if name in answers]
    if answers.duplicated([*index, "intent"]).any():
        raise UserError(
            "an item has two answers under one intent: if they were stored without their contexts, "
            "answer again with --fresh"
        )
    wide = answers.pivot(index=index, columns="intent", values=grade)
    if set(wide.columns) != {"prior", "context"} or wide.isna().to_numpy().any():
        raise UserError("every item needs an answer under both intents")
    wide = wide.astype(bool).reset_index()
    wide["pair"] = wide["prior"] & wide["context"]
    return wide


def known_keys(
    subject: Subject,
    items: Sequence[Item],
    shots: int = 3,
    times: int = 3,
    seed: int = 0,
    batch_size: int = 16,
) -> set[tuple[str, str]]:
    """The keys whose bare statement the model completes rightly each time, after `times` draws of
    `shots` other statements of their relation: a guess from its neighbours is not knowledge."""
    true = statements(items)
    answers = {item.key: item for item in items}
    known = set(answers)
    for time in range(times):
        keys = [key for key in answers if key in known]
        prompts = []
        for key in keys:
            others = [text for other, text in true.items() if other[0] == key[0] and other != key]
            drawn = random.Random(f"{seed}/{time}/{key}").sample(others, min(shots, len(others)))
            prompts.append("".join(f"{text}.\n" for text in drawn) + answers[key].query)
        ids = [subject.tokenizer.encode(text, add_special_tokens=False) for text in prompts]
        known = {
            keys[place]
            for places, last in batched(subject, ids, batch_size, f"known, draw {time + 1}")
            for place, text in zip(places, answered(subject, last), strict=True)
            if _said(text, answers[keys[place]].prior)
        }
    return known


def _said(text: str, answer: str) -> bool:
    """Whether a text starts with an answer that ends there as a word ("broke", not "broken")."""
    return re.match(rf"{re.escape(answer)}(?!\w)", text) is not None


def demonstrations(items: Sequence[Item], count: int, seed: int = 0) -> list[Row]:
    """`count` rows of different keys and alternating intents, to put in front of a prompt."""
    by_key = {item.key: item for item in items}
    if len(by_key) < count:
        raise UserError(f"{count} demonstrations need as many facts; there are {len(by_key)}")
    chosen = random.Random(f"{seed}/shots").sample(sorted(by_key), count)
    first: list[Row] = []
    for place, key in enumerate(chosen):
        first.append(Row(by_key[key], "prior" if place % 2 else "context"))
    return first
