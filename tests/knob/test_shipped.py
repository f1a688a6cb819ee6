"""The shipped adapter and knob work together on SmolLM2."""

from interp.edits import set_coordinate
from interp.knob.adapter import merged
from interp.knob.evaluate import answer_rows, scores
from interp.knob.items import read_items, split
from interp.knob.learn import knobs_of
from interp.knob.live import read_knob
from interp.knob.prompts import Prompter, Row


def test_the_shipped_knob_steers_held_out_subjects():
    import pandas as pd

    subject = merged("smollm2-135m", "shipped")
    held = [x for x in split(read_items(draws=6)).subjects if x.relation == "continent"]
    items = list({item.key: item for item in held}.values())[:6]
    knob = read_knob("shipped")
    learned = knobs_of(knob)[0]
    bare = Prompter(subject.tokenizer, "none")
    tables = []
    for intent in ("context", "prior"):
        c = float(knob.index[f"{intent}_c"].iloc[0])
        with subject.edited(set_coordinate(learned.site, learned.vector, c, "last")):
            tables.append(answer_rows(subject, bare, [Row(item, intent) for item in items]))
    assert scores(pd.concat(tables))["pair_acc"] >= 0.8
