"""Clamp effects: a planted neuron beats its controls; the gains are those of the sweep."""

from dataclasses import replace

import pytest

from interp.errors import UserError
from interp.neurons.effects import EffectsConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load


@pytest.fixture
def config(dog_model):
    prompts, values = ("w1 w2 w3", "w4"), (-50.0, 50.0)
    return EffectsConfig(
        model=str(dog_model), words=("dog",), prompts=prompts, values=values, controls=4
    )


def test_planted_neuron_beats_its_controls(config, own_home):
    run = run_or_load(config)
    assert run.metrics["beats_every_control"] == 1
    row = run.table("effects/neurons").iloc[0]
    assert (row["name"], row["value"]) == ("1.down.17", 50.0)
    sweep = run.table("effects/sweep")
    assert sweep["name"].nunique() == 5
    own = sweep[~sweep["control"]].set_index("value")["logprob"]
    plain = sweep[sweep["value"].isna()]["logprob"]
    assert plain.nunique() == 1, "unclamped must not depend on the neuron"
    assert row["gain"] == pytest.approx(own.loc[50.0] - plain.iloc[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": ()}, "at least one word"),
        ({"words": ("dog", "Dogs")}, "are the same"),
        ({"words": ("zzz",)}, "no single token stands for 'zzz'"),
        ({"prompts": ("w1", " ")}, "a prompt is empty"),
        ({"values": (float("nan"),)}, "finite"),
        ({"controls": 48}, "only 47 neurons"),
    ],
)
def test_mistakes_come_before_the_atlas(config, own_home, change, says):
    with pytest.raises(UserError, match=says):
        run_or_load(replace(config, **change))
    assert not (own_home / "runs").exists()


def test_the_atlas_is_kept_in_the_same_store(config, own_home, tmp_path):
    run_or_load(config, Store(tmp_path / "elsewhere"))
    assert len(Store(tmp_path / "elsewhere").runs("neurons.atlas")) == 1
    assert not (own_home / "runs").exists()
