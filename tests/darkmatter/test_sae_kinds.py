"""The pass over SAEs of heads, of centred streams and of some positions, against plain numpy."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from transformers import AutoModelForCausalLM

from interp.darkmatter import ladder
from interp.darkmatter.error_saes import ErrorSaesConfig
from interp.darkmatter.measure import DarkMatterConfig
from interp.errors import UserError
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.runs.study import plan, run_or_load
from interp.runs.writer import RunWriter
from interp.saes import open_sae
from interp.saes.feed import TextFeed
from interp.saes.plan import SaePlan, Schedule
from interp.saes.train import train_saes
from interp.text.contexts import ContextStream

from .planted import ids, value

ROWS, LENGTH, MEASURED = 60, 24, 18
D_HEAD, D = 8, 32


@pytest.fixture(scope="module")
def given(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(1, 211, (ROWS, LENGTH), generator=generator).tolist()
    settings = {"model": str(model_folder("gpt2")), "corpus": ids(folder / "ids.safetensors", rows)}
    sizes = {"length": LENGTH, "tokens": ROWS * LENGTH, "longest": 0.0, "downstream": 2}
    return settings | sizes, torch.tensor(rows)


def stored(folder, hook, d_in=D, reshape="none", **metadata):
    torch.manual_seed(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=48, reshape_activations=reshape))
    with torch.no_grad():
        inner.W_dec.mul_(0.8)
        inner.b_enc.fill_(0.02)
    inner.cfg.metadata.hook_name = hook
    for name, said in metadata.items():
        inner.cfg.metadata[name] = said
    inner.save_model(folder / "saes" / "one")
    return str(folder / "saes")


def losses(model, rows):
    """Of the last rows in plain transformers, evenly spread as `downstream` chooses them."""
    plain = AutoModelForCausalLM.from_pretrained(model)
    chosen = [n for n in range(MEASURED) if (n + 1) * 2 // MEASURED > n * 2 // MEASURED]
    asked = rows[-MEASURED:][chosen]
    with torch.no_grad():
        logits = plain(asked).logits[:, :-1]
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), asked[:, 1:].flatten()))


def check(run, x, settings, rows):
    """FVU, L0 and the model's own loss of a run against numpy and plain transformers.

    Args:
        x: what the SAE reads of the measured contexts [tokens, d_in].
    """
    sae, x = open_sae(run.config["saes"]).inner, x.double().numpy()
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    w_enc, w_dec, b_enc, b_dec = (getattr(sae, n).detach().double().numpy() for n in names)
    z = np.maximum((x - b_dec) @ w_enc + b_enc, 0)
    error = x - z @ w_dec - b_dec
    fvu = (error**2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert value(run, "one", "fvu") == pytest.approx(fvu, rel=1e-4)
    assert 0 < value(run, "one", "r2_vector_weighted") < 1
    costs = run.table("downstream").set_index("setting")["ce"]
    assert costs["original"] == pytest.approx(losses(settings["model"], rows), abs=1e-5)
    assert costs["sae"] != costs["original"]


def measured(settings, rows, site):
    """Activations of the measured contexts but for their first positions, heads side by side."""
    subject = open_subject(settings["model"])
    x = subject.capture(rows[-MEASURED:], [site])[Site.parse(site)][:, 1:]
    return x.flatten(0, 1).flatten(1)


@pytest.mark.parametrize("reshape", ["hook_z", "none"])
def test_all_heads(given, reshape, own_home):
    settings, rows = given
    source = stored(own_home, "blocks.0.attn.hook_z", reshape=reshape)
    run = run_or_load(DarkMatterConfig(**settings, saes=source))
    check(run, measured(settings, rows, "0.head_z"), settings, rows)


def test_one_head(given, own_home):
    settings, rows = given
    source = stored(own_home, "blocks.1.attn.hook_z", D_HEAD, hook_head_index=2)
    run = run_or_load(DarkMatterConfig(**settings, saes=source))
    assert run.manifest["site"] == "1.head_z.2"
    check(run, measured(settings, rows, "1.head_z.2"), settings, rows)


def test_a_centred_stream(given, own_home):
    settings, rows = given
    kwargs = {"center_writing_weights": True}
    source = stored(own_home, "blocks.0.hook_resid_post", model_from_pretrained_kwargs=kwargs)
    run = run_or_load(DarkMatterConfig(**settings, saes=source))
    x = measured(settings, rows, "0.resid_post")
    check(run, x - x.mean(1, keepdim=True), settings, rows)


def test_positions_of_the_training_alone_count(given, own_home):
    settings, rows = given
    source = stored(own_home, "blocks.0.hook_resid_post", seqpos_slice=(3, -2))
    run = run_or_load(DarkMatterConfig(**settings, saes=source))
    positions = run.table("tokens")["position"]
    assert (positions.min(), positions.max()) == (3, LENGTH - 3)


def test_another_model_needs_a_word_and_the_manifest_keeps_it(given, own_home):
    settings, _ = given
    source = stored(own_home, "blocks.0.hook_resid_post", model_name="gemma-2-2b")
    config = DarkMatterConfig(**settings, saes=source)
    with pytest.raises(UserError, match="one is an SAE of gemma-2-2b, not of .*: give .*--anyway"):
        run_or_load(config)
    anyway = dataclasses.replace(config, anyway=True)
    assert plan(anyway)["key"] == plan(config)["key"]
    run = run_or_load(anyway)
    assert run.manifest["sae_models"] == {"one": "gemma-2-2b"}
    assert run.manifest["anyway"] == [f"one is an SAE of gemma-2-2b, not of {settings['model']}"]
    with pytest.raises(UserError, match="--anyway"):
        ErrorSaesConfig(model=settings["model"], saes=source).opened()


def stream(subject, settings, site):
    return ContextStream(subject, [Site.parse(site)], settings["corpus"], LENGTH, longest=0.0)


def test_a_ladder_on_heads(given, tmp_path):
    settings, rows = given
    subject = open_subject(settings["model"])

    def read(site):
        whole = stream(subject, settings, site)
        return whole.activations(whole.rows(3), 3)

    captured = subject.capture(rows[:3], ["0.head_z"])[Site("head_z", 0)]
    x = read("0.head_z")
    assert x.shape == (3 * (LENGTH - 1), D), "not the number of heads"
    torch.testing.assert_close(x, captured[:, 1:].reshape(-1, D))
    with pytest.raises(UserError, match="sae-lens has no hook for the site '0.mlp_gate'"):
        ladder.LadderConfig(site="0.mlp_gate").check()
    out, site = RunWriter(tmp_path, {}), Site("head_z", 0, 2)
    parts = torch.split(read(str(site)), 16)
    schedule = Schedule(steps=3, batch=16, lr=1e-3, model="x")
    plans = [SaePlan("one", site, "topk", 16, 4)]
    train_saes(plans, lambda n: iter([{site: p} for p in parts[n:]]), schedule, out, "heads")
    trained = open_sae(tmp_path / "saes" / "one")
    assert (trained.site, trained.d_in) == ("0.head_z.2", D_HEAD)


def test_the_rows_that_are_held_out_are_said(given):
    settings, _ = given
    subject, site = open_subject(settings["model"]), Site("resid_post", 0)
    short = TextFeed(subject, [site], settings["corpus"], LENGTH)
    with pytest.raises(UserError, match="past the first 512 rows of 24 tokens, which are held out"):
        list(short.batches(1024, 800_000, 0))
