"""Shares of layers above chance: planted, recomputed from the tables, and through a lens."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.cli import parse
from interp.errors import UserError
from interp.lens.files import export
from interp.lens.lens import Lens
from interp.model.weights import open_weights
from interp.neurons import figures, search
from interp.neurons.atlas import AtlasConfig
from interp.neurons.effects import EffectsConfig
from interp.neurons.layers import above_chance
from interp.runs.store import Store
from interp.runs.study import plan, run_or_load


@pytest.fixture(scope="module")
def atlas(dog_model, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("runs"))
    return run_or_load(AtlasConfig(str(dog_model), k=4, random=400), store)


def test_shares_are_those_of_the_tables(atlas):
    rows = above_chance(atlas, 90)
    assert rows[["layer", "kind"]].to_numpy().tolist() == [
        [layer, kind] for layer in (0, 1) for kind in ("down", "gate", "up")
    ]
    for row in rows.to_dict("records"):
        of = (row["layer"], row["kind"])
        own, beside = (
            atlas.table(name).groupby(["layer", "kind"])["z"].get_group(of)
            for name in ("neurons", "random")
        )
        threshold = np.percentile(beside, 90)
        assert row["threshold"] == pytest.approx(threshold)
        assert row["share"] == pytest.approx((own > threshold).mean())
        assert (row["neurons"], row["random"]) == (48, 200)
        assert row["share_low"] <= row["share"] <= row["share_high"]
    # the weights are random themselves but for one neuron: a tenth
    assert rows["share"].mean() == pytest.approx(0.1, abs=0.04)
    assert ((rows["share_low"] < 0.1) & (rows["share_high"] > 0.1)).sum() >= 4
    assert len(figures.shares(rows).data) == 3


def test_too_few_random_directions_are_said(atlas, dog_model, tmp_path, capsys):
    few = run_or_load(AtlasConfig(str(dog_model), k=4, random=40), Store(tmp_path))
    with pytest.raises(UserError, match="--random 200"):
        above_chance(few)
    with pytest.raises(UserError, match="percentile"):
        above_chance(atlas, 100)
    parse(["neurons", "layers", "--atlas", str(atlas.path), "--percentile", "90"])()
    assert "share_high" in capsys.readouterr().out


def test_neurons_up_to_a_layer(atlas):
    assert search.find(atlas, "dog", limit=1)["layer"].tolist() == [1]
    assert set(search.find(atlas, "dog", limit=9, up_to=0)["layer"]) == {0}


def test_effects_take_a_lens_and_a_last_layer(dog_model, own_home, tmp_path):
    weights = open_weights(str(dog_model))
    width = weights.spec.d_model
    # a lens that takes every direction of layer 0 for its negative
    export(Lens(weights, "jacobian", {0: -torch.eye(width)}, 2), path := tmp_path / "lens.pt")
    plain = EffectsConfig(
        str(dog_model), words=("dog",), prompts=("w1",), values=(-5.0, 5.0), controls=2, up_to=0
    )
    seen = replace(plain, lens=str(path))
    keys = {plan(each)["key"] for each in (plain, seen, replace(plain, up_to=-1))}
    assert len(keys) == 3
    rows = [run_or_load(each).table("effects/neurons").iloc[0] for each in (plain, seen)]
    assert all(row["name"].startswith("0.") for row in rows)
    final = search.find(
        run_or_load(AtlasConfig(str(dog_model), lens="final")), "dog", limit=1, up_to=0
    ).iloc[0]
    assert rows[1]["name"] == final["name"]
    assert {rows[1]["side"], final["side"]} == {"top", "bottom"}
