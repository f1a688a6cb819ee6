"""Settings of the data that cannot work are refused before a model is opened."""

import json
from pathlib import Path

import pytest

from interp.errors import UserError
from interp.knob.data import DataConfig


@pytest.mark.parametrize("held", [("capitol",), ("capital", "capitol")])
def test_a_held_relation_that_is_not_there_is_named(held):
    with pytest.raises(UserError, match="no relation capitol in this set; it has capital, "):
        DataConfig(held=held).check()


def test_held_relations_that_are_there_and_the_default_pass(tmp_path):
    DataConfig(held=("language",)).check()
    DataConfig(held=()).check()
    DataConfig(kind="two-hop", held=("capital of a city",)).check()
    own = tmp_path / "own.json"
    own.write_text(
        json.dumps({"relations": {"a": {"query": "{} is", "facts": {"x": "1", "y": "2"}}}})
    )
    for config in (DataConfig(kind="two-hop"), DataConfig(kind="arithmetic")):
        config.check()
    DataConfig(facts=str(own)).check()


def test_a_table_that_is_not_there_is_an_error_for_the_user(monkeypatch, tmp_path):
    from interp.model import weights

    monkeypatch.setattr(weights, "open_weights", lambda model: Weights())
    with pytest.raises(UserError, match="cannot read /nope.json"):
        DataConfig(facts="/nope.json").fingerprints()
    with pytest.raises(UserError, match="cannot read"):
        DataConfig(facts=str(tmp_path)).fingerprints()
    made = DataConfig(facts="/nope.json", kind="arithmetic")
    made.check()
    assert made.fingerprints() == {"model": "hash", "tokenizer": "of a folder without one"}
    assert set(DataConfig().fingerprints()) == {"model", "tokenizer", "facts"}


class Weights:
    folder = Path()

    def fingerprints(self):
        return {"model": "hash", "tokenizer": "of a folder without one"}
