"""Scores by hand, and what is known."""

import pandas as pd
import pytest
import torch

from interp.errors import UserError
from interp.knob import evaluate
from interp.knob.evaluate import answer_rows, graded, known_keys, scores
from interp.knob.items import Item, read_items
from interp.knob.prompts import Prompter, Row, demonstrations, rows_of

from .planted import items, planted


def answers(right: list[tuple[bool, bool]]) -> pd.DataFrame:
    """A line an answer: pairs of (right under prior, right under context)."""
    return pd.DataFrame(
        {"relation": "r", "subject": str(i), "told": "x", "intent": intent, "right": value}
        | {"named": True}
        for i, pair in enumerate(right)
        for intent, value in zip(("prior", "context"), pair, strict=True)
    )


def test_pair_accuracy_by_hand():
    half = scores(answers([(True, True), (True, False)]))
    assert half["accuracy"] == 0.75
    assert half["pair_acc"] == 0.5
    assert half["named"] == 1  # the other grade is scored by itself
    assert (half["facts"], half["unit"]) == (2, "fact")
    always_the_context = scores(answers([(False, True)] * 5))
    assert always_the_context["pair_acc"] == 0
    assert always_the_context["accuracy"] == 0.5


def test_a_sentence_names_its_answer_and_begins_with_none():
    item = Item("capital", "France", "", "", "Paris", "Rome")
    texts = {
        "The capital of France is Rome.": (False, True),
        "Rome": (True, True),
        "rome": (False, True),
        "Romeo": (True, False),  # as the paper's score has it
        "Rome, not Paris": (True, False),
        "Parisian": (False, False),
        "": (False, False),
    }
    table = graded([Row(item, "context")] * len(texts), list(texts))
    assert list(zip(table["right"], table["named"], strict=True)) == list(texts.values())
    prior = graded([Row(item, "prior")], ["It is Paris!"])
    assert prior["named"].tolist() == [True]
    assert prior["answer"].tolist() == ["Paris"]


def test_intervals_hold_the_score_and_shrink():
    few = scores(answers([(True, True), (True, False)] * 5))
    many = scores(answers([(True, True), (True, False)] * 500))
    assert few["pair_acc_low"] < 0.5 < few["pair_acc_high"]
    assert many["pair_acc_low"] < 0.5 < many["pair_acc_high"]
    narrow, wide = (x["pair_acc_high"] - x["pair_acc_low"] for x in (many, few))
    assert narrow < wide / 5
    # of 1000 pairs at one half, the standard error is .0158
    assert narrow == pytest.approx(2 * 1.96 * 0.0158, rel=0.15)


def test_items_of_one_fact_are_no_independent_draws():
    """Ten contexts of each fact, right together or wrong together: as uncertain as the facts."""
    pairs = answers([(True, True), (True, False)] * 20)
    repeated = pd.concat([pairs.assign(told=str(n)) for n in range(10)])
    one, ten = scores(pairs), scores(repeated)
    assert ten["pair_acc_low"] == pytest.approx(one["pair_acc_low"])


def test_half_a_pair_is_refused():
    with pytest.raises(UserError, match="both intents"):
        scores(answers([(True, True)]).head(1))


def by_context(some):
    rows = rows_of(some)
    return graded(rows, [row.item.context_answer for row in rows])


def test_contexts_that_lead_to_one_answer_are_items_of_their_own():
    hops = read_items("two-hop", draws=10)
    by_item = scores(by_context(hops))
    assert by_item["pairs"] == len(hops) > len({(*item.key, item.context_answer) for item in hops})
    assert (by_item["context"], by_item["prior"], by_item["pair_acc"]) == (1, 0, 0)
    towns = [Item("P159", "A", f"{query} Dubai.", query, "Rome", "Dubai") for query in "xy"]
    assert scores(by_context(towns))["pairs"] == 2


def test_tables_without_contexts_are_scored_as_before():
    table = by_context(items())
    assert scores(table.drop(columns="context")) == scores(table)
    with pytest.raises(UserError, match="two answers under one intent"):
        scores(by_context(read_items("two-hop", draws=10)).drop(columns="context"))


def test_the_planted_model_answers_by_the_intent_and_only_then(subject, prompter):
    rows = rows_of(items()[::2])
    asked = scores(answer_rows(subject, prompter, rows, 64))
    assert asked["pair_acc"] == 1
    assert asked["pairs"] == len(rows) / 2
    bare = Prompter(subject.prompting, "none", template="plain")
    assert scores(answer_rows(subject, bare, rows, 64))["pair_acc"] == 0


def test_what_a_model_cannot_complete_it_does_not_know():
    subject = planted(2, range(1), 40)
    assert known_keys(subject, items()) == set()  # without an intent it says nothing


def test_known_is_what_is_right_after_every_draw(monkeypatch):
    """A model that knows a town unless one certain statement comes before it."""
    true = {item.key: item for item in items()}
    keys, answers_of = list(true), {item.query: item.prior_answer for item in true.values()}
    bad = f"{true[keys[3]].query} {true[keys[3]].prior_answer}."
    subject = planted(2, range(1), 40)
    asked = []

    def answering(subject, prompts, batch_size, label):
        asked.append(len(prompts))
        yield list(range(len(prompts))), [subject.text(torch.tensor(ids)) for ids in prompts]

    def answer(subject, texts):
        spaced = [text.replace(" ", "") for text in texts]
        return [
            "" if bad.replace(" ", "") in text else
            next(a for q, a in answers_of.items() if text.endswith(q.replace(" ", "")))
            for text in spaced
        ]  # fmt: skip

    monkeypatch.setattr(evaluate, "cached_batches", answering)
    monkeypatch.setattr(evaluate, "answer_texts", answer)
    always = known_keys(subject, items(), shots=7, times=1)
    assert always == {keys[3]}  # all others stand behind the bad statement
    once = known_keys(subject, items(), shots=2, times=1)
    thrice = known_keys(subject, items(), shots=2, times=3)
    assert {keys[3]} < thrice < once
    assert asked[-3:] == sorted(asked[-3:], reverse=True)


@pytest.mark.parametrize(
    ("text", "is_known"),
    [("broke", True), ("broke.", True), ("broke it", True), ("broken", False), ("broke2", False)],
)
def test_an_echo_that_begins_with_the_answer_is_not_known(monkeypatch, text, is_known):
    item = Item("past", "break", "", "The past tense of break is", "broke", "saw")
    monkeypatch.setattr(evaluate, "cached_batches", lambda *_: [([0], None)])
    monkeypatch.setattr(evaluate, "answer_texts", lambda *_: [text])
    known = known_keys(planted(2, range(1), 40), [item], times=1)
    assert known == ({item.key} if is_known else set())
    assert graded([Row(item, "prior")], [text])["right"].all()  # the published grade stays


def test_demonstrations_differ_and_alternate():
    shots = demonstrations(items(), 4)
    assert len({row.item.key for row in shots}) == 4
    assert [row.intent for row in shots] == ["context", "prior"] * 2
    with pytest.raises(UserError, match="need as many facts"):
        demonstrations(items(), 9)
