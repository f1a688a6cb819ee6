"""Direct contributions against the logits of plain transformers, in float64."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.microscope.direct import Asked, Direct
from interp.microscope.passed import Opened, seen_of
from interp.microscope.tables import (
    every_head,
    every_neuron,
    head_table,
    neuron_table,
    part_table,
    parts,
    sum_errors,
)
from interp.model.subject import open_subject

from .conftest import FAMILIES, IDS

WANTED = (Asked(11), Asked(11, against=12), Asked(11, mean=True))
"""A logit, a difference of two, and a logit less the mean."""


def direct(opened, position, asked):
    batch = opened.subject.pad(IDS)
    return Direct.one(seen_of(opened, batch), position, asked)


@lru_cache
def plain(folder):
    """A model's logits [pos, d_vocab] without the workbench, before any soft cap."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    model.config.final_logit_softcapping = None
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits[0].numpy()


def of_plain(logits, asked):
    other = logits[asked.against] if asked.against is not None else 0.0
    return logits[asked.token] - other - (logits.mean() if asked.mean else 0.0)


@pytest.mark.parametrize("asked", WANTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_add_up_to_the_logit_of_plain_transformers(
    family, asked, open_here, model_folder
):
    for position in (2, 5):
        # transformers computes norms in float32 even where the model is in float64
        expected = of_plain(plain(model_folder(family))[position], asked)
        for dtype, within in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            found = direct(open_here(family, dtype), position, asked)
            total = sum(float(part.contribution) for part in parts(found))
            assert total == pytest.approx(float(found.values), abs=within)
            assert total == pytest.approx(expected, abs=1e-4)
            assert float(sum_errors(found)) < within


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_neurons_add_up_to_their_layer(family, open_here):
    found = direct(open_here(family, torch.float64), 4, WANTED[1])
    heads, neurons = every_head(found), every_neuron(found)
    rows = part_table(found)
    for kind, every in (("attention", heads), ("MLP", neurons)):
        for layer in (0, 1):
            own = rows[(rows["kind"] == kind) & (rows["layer"] == layer)]["contribution"]
            inside = np.array(every.layers) == layer
            assert float(every.contributions[0][inside].sum()) == pytest.approx(
                own.item(), abs=1e-9
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_s_sources_add_up_to_it(family, open_here):
    found = direct(open_here(family, torch.float64), 4, WANTED[0])
    for layer in (0, 1):
        sources = found.sources(layer)
        assert torch.allclose(sources.sum(2), found.heads(layer), atol=1e-9, rtol=0)
        assert not sources[:, :, 5:].any()


def test_neurons_are_those_of_plain_transformers(open_here, model_folder):
    """a_i W_U . (gain * w_i) / rms, from the weights and activations that transformers has."""
    model = AutoModelForCausalLM.from_pretrained(model_folder("llama"), dtype=torch.float64)
    kept = {}
    for layer, block in enumerate(model.model.layers):
        block.mlp.down_proj.register_forward_pre_hook(
            lambda _, given, layer=layer: kept.update({layer: given[0][0]})
        )
    model.model.norm.register_forward_pre_hook(lambda _, given: kept.update(end=given[0][0]))
    with torch.no_grad():
        model(torch.tensor(IDS))
    rms = (kept["end"][3].square().mean() + model.config.rms_norm_eps).sqrt()
    row = model.lm_head.weight[11] * model.model.norm.weight / rms
    expected = [
        kept[layer][3] * (row @ block.mlp.down_proj.weight)
        for layer, block in enumerate(model.model.layers)
    ]
    found = every_neuron(direct(open_here("llama", torch.float64), 3, Asked(11)))
    torch.testing.assert_close(found.contributions[0], torch.cat(expected), atol=1e-6, rtol=1e-5)


def test_what_layer_norm_centres_is_left_out(open_here, model_folder):
    """GPT-2: the same by hand, with the mean of what is written taken away."""
    model = AutoModelForCausalLM.from_pretrained(model_folder("gpt2"), dtype=torch.float64)
    kept = {}
    model.transformer.ln_f.register_forward_pre_hook(lambda _, given: kept.update(x=given[0][0]))
    model.transformer.h[1].attn.register_forward_hook(
        lambda *given: kept.update(attn=given[2][0][0])
    )
    with torch.no_grad():
        model(torch.tensor(IDS))
    norm, x, written = model.transformer.ln_f, kept["x"][4], kept["attn"][4]
    scale = (x.var(correction=0) + norm.eps).sqrt()
    expected = model.lm_head.weight[11] @ ((written - written.mean()) / scale * norm.weight)
    found = direct(open_here("gpt2", torch.float64), 4, Asked(11))
    rows = part_table(found).query("layer == 1")
    whole = rows[rows["kind"] == "attention"]["contribution"].item()
    bias = float(found.bias("attn_post", 1))
    assert whole + bias == pytest.approx(expected.item(), abs=1e-6)


@pytest.fixture(scope="module")
def dog(dog_model):
    return Opened(open_subject(str(dog_model), attention="eager"))


def test_a_planted_neuron_says_its_word(dog):
    """1.down.17 writes 'dog' (token 123): its row is 10 W_U[123] / |W_U[123]|."""
    found = direct(dog, 5, Asked(123))
    rows = neuron_table(found, keep=5)
    own = rows[rows["name"] == "1.down.17"].iloc[0]
    assert own["by_contribution"] == 1
    assert abs(own["per_unit"]) > 10 * rows.query("name != '1.down.17'")["per_unit"].abs().max()
    assert own["contribution"] == pytest.approx(own["activation"] * own["per_unit"])


def test_tables_keep_the_largest(dog):
    found = direct(dog, 5, Asked(123))
    heads, every = head_table(found, keep=3), every_head(found)
    largest = every.contributions[0].abs().sort(descending=True).values[:3]
    assert heads["contribution"].abs().tolist() == pytest.approx(largest.tolist())
    assert (heads["source"] <= 5).all()
    neurons, active = neuron_table(found, keep=4), every_neuron(found).activations[0]
    most = neurons[neurons["by_activation"] > 0].sort_values("by_activation")["activation"].abs()
    expected = active.abs().sort(descending=True).values[:4]
    assert most.tolist() == pytest.approx(expected.tolist())
