"""What the direction is, and which items choose its settings."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from interp.directions import Directions
from interp.errors import UserError
from interp.knob import figures
from interp.knob.effects import nearest_neurons, split_knob
from interp.knob.finetune import FinetuneConfig
from interp.knob.items import Item, Splits
from interp.knob.learn import LearnConfig, learn_knob
from interp.knob.stages import validation_halves
from interp.model.site import Site
from interp.model.weights import open_weights
from interp.runs.writer import RunWriter

from .planted import KNOB, WIDTH, items


def test_the_nearest_neuron_is_the_one_the_knob_was_made_of(model_folder):
    folder = model_folder("llama", num_hidden_layers=3)
    weights = open_weights(str(folder))
    own = weights.neurons("down", 2).float()[5]
    index = pd.DataFrame({"name": ["own", "against"]})
    knob = Directions(Site("resid_post", 1), torch.stack([own, -own]) * 3, index)
    nearest = nearest_neurons(knob, weights)
    first = nearest.groupby("direction").first()
    assert set(first["neuron"]) == {"2.down.5"}
    assert first.loc["own", "cosine"] == pytest.approx(1, abs=1e-5)
    assert first.loc["against", "cosine"] == pytest.approx(-1, abs=1e-5)
    # naive: one neuron at a time
    for row in nearest[nearest["direction"] == "own"].to_dict("records"):
        layer, _, neuron = row["neuron"].split(".")
        vector = weights.neurons("down", int(layer)).float()[int(neuron)]
        wanted = torch.cosine_similarity(vector, own, dim=0)
        assert row["cosine"] == pytest.approx(float(wanted), abs=1e-5)
    sizes = nearest[nearest["direction"] == "own"]["cosine"].abs()
    assert sizes.tolist() == sorted(sizes, reverse=True)


def test_a_neuron_is_near_by_what_it_adds(model_folder):
    weights = open_weights(str(model_folder("gemma2")))
    added = weights.neurons("down", 1) * weights.norm("mlp_post", 1).gain.float()
    knob = Directions(Site("resid_post", 1), added[[5]], pd.DataFrame({"name": ["own"]}))
    first = nearest_neurons(knob, weights).iloc[0]
    assert (first["neuron"], first["cosine"]) == ("1.down.5", pytest.approx(1, abs=1e-5))


def test_no_fact_chooses_both_the_layer_and_c():
    made = [Item("r", f"s{n // 3}", "c", "q", "a", f"b{n}") for n in range(30)]
    layer, c = validation_halves(LearnConfig(validate=8), Splits([], made, [], []))
    assert not {x.key for x in layer} & {x.key for x in c}
    assert len(layer) == len(c) == 8
    alone = validation_halves(LearnConfig(), Splits([], made[:3], [], []))
    assert [len(half) for half in alone] == [3, 3]  # one fact has to do for both


def test_other_sets_are_asked_beside_the_shipped_facts_only():
    def asked(**changes):
        return [setting.name for setting in FinetuneConfig(**changes).scored_settings()]

    assert {"tuned", "10-shot", "tuned, two-hop", "tuned, arithmetic"} <= set(asked())
    assert asked(facts="own.json") == ["tuned", "tuned, float", "0-shot", "10-shot"]
    assert asked(parts=("validation",)) == ["tuned"]
    assert asked(settings=("tuned",)) == ["tuned"]
    with pytest.raises(UserError, match="--settings must be among: tuned; tuned, float"):
        FinetuneConfig(settings=("nine-shot",)).check()
    with pytest.raises(UserError, match="--parts needs at least one"):
        FinetuneConfig(parts=()).check()


def test_the_cost_is_weighed_by_tokens_and_the_positions_by_what_is_added():
    effects = pd.DataFrame(
        {
            "model": "tuned", "c": [float("nan")] * 2 + [4.0] * 2, "position": [0, 16] * 2,
            "tokens": [3, 1] * 2, "nats": [1.0, 5.0, 2.0, 5.0],
        }
    )  # fmt: skip
    cost = figures.knob_text_cost(effects)
    assert list(cost.data[0].y) == [(3 * 2 + 5) / 4]
    assert cost.layout.shapes[0].y0 == 2
    assert list(figures.knob_positions(effects, "tuned").data[0].y) == [1, 0]


def no_model(*asked):
    raise UserError("none here")


def test_an_sae_of_another_model_is_refused_before_any_work(tmp_path, monkeypatch):
    import sae_lens

    sae = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(d_in=WIDTH, d_sae=2))
    sae.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    sae.cfg.metadata.model_name = "HuggingFaceTB/SmolLM2-135M"  # the shipped one is its instruct
    sae.save_model(tmp_path / "base")
    monkeypatch.setattr("interp.knob.learn.open_for", no_model)
    config = LearnConfig(template="plain", sae=str(tmp_path / "base"))
    with pytest.raises(UserError, match="base is an SAE of HuggingFaceTB/SmolLM2-135M, not of"):
        learn_knob(config, "none", RunWriter(tmp_path, {}))
    out = RunWriter(tmp_path, {})
    with pytest.raises(UserError, match="none here"):
        learn_knob(replace(config, anyway=True), "none", out)
    assert out.facts["anyway"] == [
        "base is an SAE of HuggingFaceTB/SmolLM2-135M, not of smollm2-135m"
    ]


def test_an_sae_that_sees_all_of_the_knob_and_one_that_sees_none(subject, tmp_path):
    """The knob's coordinate through two latents, one a sign; and an SAE that is silent."""
    import sae_lens

    site = Site("resid_post", 1)
    knob = Directions(site, torch.eye(WIDTH)[[KNOB]], pd.DataFrame({"name": ["learned"]}))
    splits = Splits(items()[:16], items()[16:24], [], [])
    seen = {}
    for name, size in (("all", 1.0), ("none", 0.0)):
        sae = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(d_in=WIDTH, d_sae=2))
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.zero_()
            sae.W_enc[KNOB] = torch.tensor([1.0, -1.0])
            sae.W_dec[:, KNOB] = size * torch.tensor([1.0, -1.0])
        sae.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
        sae.save_model(tmp_path / name)
        config = LearnConfig(template="plain", sae=str(tmp_path / name))
        seen[name] = split_knob(config, subject, splits, knob).iloc[0]
    assert seen["all"]["reconstruction"] == pytest.approx(1, abs=1e-4)
    assert seen["none"]["reconstruction"] == pytest.approx(0, abs=1e-4)
    assert seen["none"]["linear"] == pytest.approx(1, abs=1e-4)
    assert abs(seen["all"]["latent_cosine"]) == pytest.approx(1, abs=1e-5)
    assert seen["none"]["latent_cosine"] == 0
