"""The shipped adapter and knob work together; the code gives the shipped scores again."""

import pandas as pd

from interp.knob.adapter import SHIPPED, open_tuned
from interp.knob.evaluate import scores
from interp.knob.items import read_items, split
from interp.knob.prompts import Prompter
from interp.knob.steer import steered_answers
from interp.knob.steer_prompt import read_knob


def test_the_shipped_knob_steers_held_out_subjects():
    subject = open_tuned("smollm2-135m", "shipped")
    held = [x for x in split(read_items(draws=6)).subjects if x.relation == "continent"]
    items = list({item.key: item for item in held}.values())[:6]
    learned = read_knob("shipped").pick([0])
    bare = Prompter(subject.prompting, "none")
    table = steered_answers(subject, bare, items, learned)
    assert scores(table)["pair_acc"] >= 0.8
    assert not table["text"].str.contains("<|", regex=False).any()


def test_the_shipped_scores_are_those_of_the_shipped_answers():
    stored = pd.read_parquet(SHIPPED / "scores/scores.parquet")
    assert set(stored["unit"]) == {"fact"}
    for row in stored.to_dict("records"):
        answers = pd.read_parquet(SHIPPED / f"answers/{row.pop('setting')}.parquet")
        again = scores(answers[answers["part"] == row.pop("part")])
        assert again == row
