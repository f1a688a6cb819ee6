"""Does a model answer by the intent? Accuracy and PairAcc, with intervals, and what it knows.

Decoding is greedy, at most 10 tokens; an answer is right when the stripped text starts with it.
Models that were not tuned answer in sentences ("The capital of France is Rome."). For them there is
a second grade, never mixed with the first: `named`, when the text names the answer and not the
other one. PairAcc is the mean over (context, query) pairs of min(right under both intents): (T, T),
(T, F) gives accuracy .75 and PairAcc .5, and always following the context gives 0. Intervals
resample facts, keys (relation, subject), because the items of one fact depend on each other.

A model knows a fact if it completes the bare statement with the right answer behind each of three
draws of other true statements of the same relation, without context or instruction. There the
answer must end as a word: "Xenon" does not count as "Xe".
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..progress import progress
from ..runs.intervals import bootstrap
from .items import Item, Key
from .prompts import Prompter, Row

if TYPE_CHECKING:
    import pandas as pd

    from ..model.edits import Edit
    from ..model.subject import Subject
    from .last_token_cache import CachedPrompts

NEW_TOKENS = 10


def cached_batches(
    subject: Subject, prompts: Sequence[Sequence[int]], batch_size: int, label: str
) -> Iterator[tuple[list[int], CachedPrompts]]:
    """Batches of prompts of similar length, cached, with their indices in `prompts`."""
    from .last_token_cache import CachedPrompts

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with progress(label, len(prompts), "prompts") as advance:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            yield indices, CachedPrompts(subject, [prompts[i] for i in indices])
            advance(len(indices))


def answer_texts(subject: Subject, prompts: CachedPrompts, edits: Iterable[Edit] = ()) -> list[str]:
    """Greedy answers up to their end, stripped; edits apply from the prompt's last token on."""
    import torch

    ends = set(subject.ends)
    return [
        subject.text(torch.tensor([i for i in ids if i not in ends], dtype=torch.long)).strip()
        for ids in prompts.generate(NEW_TOKENS, edits).tolist()
    ]


def answer_rows(
    subject: Subject, prompter: Prompter, rows: Sequence[Row], batch_size: int = 16
) -> pd.DataFrame:
    """A line a row: relation, subject, context, told, intent, answer, text, right, named."""
    if not rows:
        raise UserError("there are no rows to answer: choose more facts")
    texts = [""] * len(rows)
    ids = [prompter.ids(row) for row in rows]
    for indices, prompts in cached_batches(subject, ids, batch_size, "answer"):
        for i, text in zip(indices, answer_texts(subject, prompts), strict=True):
            texts[i] = text
    return graded(rows, texts)


def graded(rows: Sequence[Row], texts: Sequence[str]) -> pd.DataFrame:
    """The table of `answer_rows`, from rows and the texts that a model gave for them."""
    import pandas as pd

    lines = [
        {
            "relation": row.item.relation,
            "subject": row.item.subject,
            "context": row.item.context,
            "told": row.item.context_answer,
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


def scores(answers: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """accuracy, pair_acc and named (PairAcc by the second grade), each with `_low` and `_high`
    (95 %); prior and context (share right under each intent); pairs, facts (their numbers); unit
    ("fact": what the intervals resample).

    Raises:
        UserError: an item without both of its intents, or with two answers under one.
    """
    both = _pairs(answers, "right")
    both["mean"] = (both["prior"].astype(float) + both["context"]) / 2
    both["named"] = _pairs(answers, "named")["pair"]
    facts = both.groupby(["relation", "subject"])
    values = {"prior": float(both["prior"].mean()), "context": float(both["context"].mean())}
    for name, column in (("accuracy", "mean"), ("pair_acc", "pair"), ("named", "named")):
        values |= bootstrap(facts[column].sum(), facts.size(), seed=seed).columns(name)
    return {**values, "pairs": float(len(both)), "facts": float(len(facts)), "unit": "fact"}


def _pairs(answers: pd.DataFrame, grade: str) -> pd.DataFrame:
    """A line an item: the grade under each intent, and `pair`: right under both."""
    # the intent "context" becomes a column
    answers = answers.rename(columns={"context": "given"})
    # two contexts of a fact can have one answer; tables of older versions have no context
    index = [name for name in ("relation", "subject", "told", "given") if name in answers]
    if answers.duplicated([*index, "intent"]).any():
        raise UserError(
            "an item has two answers under one intent: if an older version stored them without "
            "their contexts, run the command again with --fresh"
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
    asked: Sequence[Key] | None = None,
) -> set[Key]:
    """The keys whose bare statement the model completes correctly behind each of `times` draws of
    `shots` other statements of their relation: a guess from its neighbours is not knowledge.

    Args:
        asked: the keys in question; by default those of all items. The statements before them are
            drawn from all items either way.
    """
    by_key = {item.key: item for item in items}
    true = {key: f"{item.query} {item.prior_answer}" for key, item in by_key.items()}
    order = list(by_key) if asked is None else asked
    known = set(order)
    for time in range(times):
        keys = [key for key in order if key in known]
        texts = []
        for key in keys:
            others = [text for other, text in true.items() if other[0] == key[0] and other != key]
            drawn = random.Random(f"{seed}/{time}/{key}").sample(others, min(shots, len(others)))
            texts.append("".join(f"{text}.\n" for text in drawn) + by_key[key].query)
        ids = [subject.prompting.ids(text) for text in texts]
        known = {
            keys[i]
            for indices, prompts in cached_batches(subject, ids, batch_size, f"known, {time + 1}")
            for i, text in zip(indices, answer_texts(subject, prompts), strict=True)
            # the answer ends there as a word: "broke", not "broken"
            if re.match(rf"{re.escape(by_key[keys[i]].prior_answer)}(?!\w)", text)
        }
    return known
