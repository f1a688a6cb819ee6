"""The shipped adapter and knob work together on SmolLM2."""

from interp.knob.adapter import merged
from interp.knob.evaluate import scores
from interp.knob.items import read_items, split
from interp.knob.learn import knobs_of
from interp.knob.live import read_knob
from interp.knob.prompts import Prompter
from interp.knob.steer import steered


def test_the_shipped_knob_steers_held_out_subjects():
    subject = merged("smollm2-135m", "shipped")
    held = [x for x in split(read_items(draws=6)).subjects if x.relation == "continent"]
    items = list({item.key: item for item in held}.values())[:6]
    knob = read_knob("shipped")
    learned = knobs_of(knob)[0]
    bare = Prompter(subject.tokenizer, "none")
    values = {"learned": tuple(float(knob.index[f"{x}_c"].iloc[0]) for x in ("context", "prior"))}
    table = steered(subject, bare, items, [learned], values)
    assert scores(table)["pair_acc"] >= 0.8
    assert not table["text"].str.contains("<|", regex=False).any()
