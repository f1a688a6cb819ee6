"""Clamp effects: a planted neuron beats its controls; the gains are those of the sweep."""

import logging
from dataclasses import replace

import pandas as pd
import pytest
import torch

from interp.directions.sweep import Sweep
from interp.errors import UserError
from interp.model.edits import clamp
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.neurons.atlas import AtlasConfig
from interp.neurons.effects import EffectsConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..workers import assert_same_by_two


@pytest.fixture
def config(dog_model):
    prompts, values = ("w1 w2 w3", "w4"), (-50.0, 50.0)
    return EffectsConfig(
        model=str(dog_model), words=("Dogs",), prompts=prompts, values=values, controls=4
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


def test_a_sweep_is_that_of_whole_passes(config, own_home):
    """To the bit, of a neuron of each layer."""
    subject, ids = open_subject(config.model), [123, 7]
    sweep = Sweep(subject, config.prompts, config.values)
    batch = subject.tokens(config.prompts * 3)
    each, where = torch.tensor([0.0, -50.0, 50.0]).repeat_interleave(2), torch.ones_like(batch.mask)
    where[:2] = False
    for site in (Site("mlp_post", 1), Site("mlp_up", 0), Site("mlp_gate", 1)):
        with subject.edited(clamp(site, 17, each, where)):
            logprobs = subject.logits(batch)[:, -1].double().log_softmax(-1)[:, ids].logsumexp(-1)
        found = sweep.logprobs(ids, lambda v, w, site=site: clamp(site, 17, v, w))
        assert found == logprobs.view(3, 2).mean(1).tolist()


def test_two_workers_make_the_same_to_the_byte(config, own_home):
    words = replace(config, words=("Dogs", "w7", "w9"))
    assert_same_by_two(words, run_or_load(words), own_home / "others", Store())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": ()}, "at least one word"),
        ({"words": ("dog", "Dogs")}, "are the same"),
        ({"words": ("zzz",)}, "no single token stands for 'zzz'"),
        ({"prompts": ("w1", " ")}, "a prompt is empty"),
        ({"values": (float("nan"),)}, "finite"),
        ({"controls": 48}, "only 47 neurons"),
        ({"weights": ("sideways",)}, "has no 'sideways' neurons, only up, gate, down"),
    ],
)
def test_mistakes_come_before_the_atlas(config, own_home, change, says):
    with pytest.raises(UserError, match=says):
        run_or_load(replace(config, **change))
    assert not (own_home / "runs").exists()


def test_a_stored_atlas_that_has_the_kind_is_used(config, own_home, tmp_path, caplog):
    """And gives what an atlas of that kind alone gives; without one, a line says what is made."""
    caplog.set_level(logging.INFO, "interp")
    other = run_or_load(AtlasConfig(model=config.model, weights=("up", "down"), seed=3))
    run_or_load(AtlasConfig(model=config.model, weights=("down",), norm="final"))
    wanted = replace(config, weights=("down",))
    reused = run_or_load(wanted)
    assert len(Store().runs("neurons.atlas")) == 2
    assert reused.manifest["atlas"] == str(other.path)
    assert f"clamp effects: the atlas in {other.path} has what is needed" in caplog.messages
    caplog.clear()
    alone = run_or_load(wanted, Store(tmp_path / "elsewhere"))
    pd.testing.assert_frame_equal(
        reused.table("effects/neurons"), alone.table("effects/neurons"), check_exact=True
    )
    assert f"needs an atlas of {config.model} with down, and makes it" in caplog.text
    assert "288 vectors" not in caplog.text, "no other kind was decoded"
    assert "atlas of" in caplog.messages[1]
    assert "96 vectors through 211 tokens; about 1 s on" in caplog.messages[1]


def test_a_stored_atlas_without_the_kind_is_named(config, own_home, caplog):
    caplog.set_level(logging.INFO, "interp")
    run_or_load(AtlasConfig(model=config.model, weights=("up",)))
    run_or_load(config)
    assert "one has up only: --weights takes those" in caplog.text


def test_the_atlas_is_kept_in_the_same_store(config, own_home, tmp_path):
    run_or_load(config, Store(tmp_path / "elsewhere"))
    assert len(Store(tmp_path / "elsewhere").runs("neurons.atlas")) == 1
    assert not (own_home / "runs").exists()
