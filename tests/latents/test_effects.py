"""Effects of latents: a planted one beats its controls; gains are those of plain transformers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.directions.sweep import Sweep
from interp.errors import UserError
from interp.latents.chosen import Rows
from interp.latents.effects import LatentEffectsConfig
from interp.latents.survey import SurveyConfig
from interp.runs.store import Store
from interp.runs.study import plan, run_or_load
from interp.saes import open_sae

from ..workers import assert_same_by_two
from .planted import DOG, write_sae

PROMPTS, VALUES = ("w1 w2 w3", "w4 w5"), (0.5, 2.0)
IDS = ([1, 2, 3], [4, 5])


@pytest.fixture
def config(dog_model, tmp_path, own_home):
    source = write_sae(tmp_path / "sae", dog_model)
    asked = {"latents": (7, 12), "k": 1, "prompts": PROMPTS, "values": VALUES, "controls": 4}
    return LatentEffectsConfig(model=str(dog_model), saes=str(source), **asked)


def by_hand(model, sae, latent, strength, plain, word):
    """Mean log probability of a word, by a hook on transformers' last layer."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    inner, seen, found = sae.inner, [], []
    row = inner.W_dec[latent].double()

    def keep(_, __, out):
        seen.append(out[0, 1:] if out.ndim == 3 else out[1:])

    with torch.no_grad():
        hook = network.model.layers[1].register_forward_hook(keep)
        for ids in IDS:
            network(torch.tensor([ids]))
        hook.remove()
        value = strength * float(torch.cat(seen).norm(dim=1).mean()) / float(row.norm())

        def write(_, __, out):
            x = out[..., 1:, :]
            z = (x - inner.b_dec.double()) @ inner.W_enc.double() + inner.b_enc.double()
            own = 0 if plain else z.relu()[..., latent, None]
            new = out.clone()
            new[..., 1:, :] = x + (value - own) * row
            return new

        if strength:
            network.model.layers[1].register_forward_hook(write)
        for ids in IDS:
            logits = network(torch.tensor([ids])).logits[0, -1]
            found.append(float(logits.log_softmax(-1)[word]))
    return np.mean(found)


def test_planted_latent_beats_its_controls_by_what_transformers_gives(config):
    run = run_or_load(config)
    table = run.table("effects/latents").set_index("latent")
    assert table.loc[7, "words"].tolist() == ["dog"]
    assert table.loc[7, "ids"].tolist() == [DOG]
    assert table.loc[7, "beats"]
    sae = open_sae(config.saes)
    sweep = run.table("effects/sweep").fillna({"value": 0.0})
    assert sweep.groupby("latent")["name"].nunique().tolist() == [5, 5]
    for latent in (7, 12):
        word = table.loc[latent, "ids"][0]
        for row in sweep[sweep["latent"] == latent].itertuples():
            of = int(row.name.split()[1])
            want = by_hand(config.model, sae, of, row.value, row.direction, word)
            assert row.logprob == pytest.approx(want, abs=2e-5)
        rows = sweep[sweep["latent"] == latent]
        own = rows[~rows["control"] & ~rows["direction"]].set_index("value")["logprob"]
        assert table.loc[latent, "gain"] == pytest.approx(own.drop(0.0).max() - own[0.0])
        plain = rows[rows["direction"]].set_index("value")["logprob"]
        assert table.loc[latent, "direction"] == pytest.approx(plain.drop(0.0).max() - own[0.0])
    # latent 7 is active, so that setting it is not adding to it
    half = sweep[(sweep["name"] == "latent 7") & (sweep["value"] == 0.5)]["logprob"]
    assert abs(half.iloc[0] - half.iloc[1]) > 0.1
    assert run.manifest["matched_in"] == "length"


def test_means_have_intervals_over_latents(config):
    run = run_or_load(replace(config, latents=(), sample=9))
    each, means = run.table("effects/latents"), run.table("effects/means").set_index("measure")
    assert set(means["n"]) == {9}
    assert set(means["unit"]) == {"latent"}
    wanted = each["gain"] - each["control_mean"]
    row = means.loc["gain - control_mean"]
    assert row["mean"] == pytest.approx(wanted.mean())
    drawn = np.random.default_rng(5).choice(wanted.to_numpy(), (4000, 9)).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (row["mean_low"], row["mean_high"]) == pytest.approx((low, high), rel=0.1)
    assert 39 not in set(each["latent"]), "its row is 0"


def test_controls_are_like_their_latent(config, dog_model, tmp_path):
    """Of those that a stored survey gives the nearest densities; it is part of the key."""
    before = plan(replace(config))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(" ".join(f"w{i % 211}" for i in range(3000)))
    asked = {"tokens": 2000, "length": 40, "neurons": 0, "corpus": str(corpus)}
    survey = run_or_load(SurveyConfig(model=str(dog_model), saes=config.saes, **asked))
    few = replace(config, controls=2, latents=(7,))
    assert plan(replace(config))["key"] != before["key"]
    run = run_or_load(few)
    assert run.manifest["survey"] == str(survey.path)
    assert run.manifest["matched_in"] == "density"
    two = replace(config, controls=2)
    assert_same_by_two(two, run_or_load(two), tmp_path / "others", Store())
    density = survey.table("latents")["density"].to_numpy()
    rows = Rows(few, open_sae(config.saes))
    live = np.flatnonzero((density > 0) & (np.arange(40) != 39))
    apart = {int(j): abs(np.log(density[j] / density[7])) for j in live if j != 7}
    nearest = sorted(apart.values())[:20]
    assert all(apart[j] <= nearest[-1] for j in rows.controls(0))
    table = run.table("effects/latents")
    assert table["density"].tolist() == [density[7]]
    by_word = run_or_load(replace(few, latents=(), words=("dog",)))
    assert by_word.table("effects/latents")["latent"].tolist() == [7]
    assert by_word.table("effects/latents")["word"].tolist() == ["dog"]
    with pytest.raises(UserError, match="have the same latent"):
        run_or_load(replace(few, latents=(), words=("dog", "Dogs")))


def test_a_stopped_run_goes_on(config, monkeypatch, tmp_path):
    whole = run_or_load(config, Store(tmp_path / "whole"))
    calls, once = [], Sweep.logprobs

    def stops(self, *args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return once(self, *args)

    monkeypatch.setattr(Sweep, "logprobs", stops)
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config)
    run = run_or_load(config)
    assert len(calls) == 8 + 6, "the second latent alone is read again"
    for name in ("effects/latents", "effects/sweep", "effects/means"):
        pd.testing.assert_frame_equal(run.table(name), whole.table(name), check_exact=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"latents": (40,)}, "no latent 40: it has 0..39"),
        ({"latents": (7, 7)}, "the same"),
        ({"latents": (39,)}, "latent 39 writes nothing"),
        ({"words": ("dog",)}, "not both"),
        ({"words": ("dog",), "latents": ()}, "needs a survey"),
        ({"values": (0.0,)}, "other than 0"),
        ({"values": ()}, "at least one prompt, value"),
        ({"controls": 39}, "only 39 latents are live"),
        ({"k": 500}, "the vocabulary has 211 tokens, not 500"),
        ({"prompts": ("w1", " ")}, "a prompt is empty"),
        ({"prompts": ("w1",)}, "one token each"),
    ],
)
def test_mistakes(config, change, says):
    with pytest.raises(UserError, match=says):
        run_or_load(replace(config, **change))


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"hook": "blocks.1.mlp.hook_post", "d_in": 48}, "rows promote no words"),
        ({"seqpos_slice": (1, 5)}, "seqpos_slice"),
        ({"model_name": "gpt2"}, "gpt2"),
    ],
)
def test_saes_without_effects(config, dog_model, tmp_path, about, says):
    other = write_sae(tmp_path / "other", dog_model, **about)
    with pytest.raises(UserError, match=says):
        run_or_load(replace(config, saes=str(other)))
