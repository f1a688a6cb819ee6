"""A latent is scored on the text as its SAE asks for it: on the page, in the study, and by the
commands that the page offers."""

import json
import shlex
import shutil

import pytest
import torch
from safetensors.torch import load_file
from streamlit.testing.v1 import AppTest
from transformers import AutoModelForCausalLM

from interp.cli import parse
from interp.directions import open_directions
from interp.directions.inspect import scores_on_text
from interp.latents.survey import SurveyConfig
from interp.microscope.look import LookConfig
from interp.model.subject import open_subject
from interp.runs.study import run_or_load

from ..latents.planted import write_sae
from .test_page import at, prompt_page, said

TEXT, IDS, BOS, LATENT = "w3 dog w5 w9", [3, 123, 5, 9], 0, 3


@pytest.fixture(scope="module")
def bos_model(dog_model, tmp_path_factory):
    """The dog model, with a BOS (w0) that its tokenizer does not put before a text."""
    folder = tmp_path_factory.mktemp("bos") / "model"
    shutil.copytree(dog_model, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": "w0"}))
    return folder


@pytest.fixture(scope="module")
def source(bos_model, tmp_path_factory):
    return write_sae(tmp_path_factory.mktemp("sae") / "sae", bos_model, prepend_bos=True)


def activations(bos_model, source, ids):
    """All latents of plain transformers' stream at each token."""
    model = AutoModelForCausalLM.from_pretrained(bos_model).double()
    with torch.no_grad():
        # of two layers, the last of which transformers gives normed: what goes into the norm
        seen = []
        model.model.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
        model(torch.tensor([ids]))
    sae = {name: x.double() for name, x in load_file(source / "sae_weights.safetensors").items()}
    return torch.relu((seen[0] - sae["b_dec"]) @ sae["W_enc"] + sae["b_enc"])


@pytest.fixture(scope="module")
def true(bos_model, source):
    found = activations(bos_model, source, [BOS, *IDS])
    assert not torch.allclose(found[1:], activations(bos_model, source, IDS), atol=1e-3)
    return found


@pytest.fixture
def shown(bos_model, own_home):
    page = AppTest.from_function(prompt_page, default_timeout=120)
    page.session_state["chosen model"] = str(bos_model)
    page.query_params["text"] = TEXT
    return page


def test_a_look_scores_a_latent_as_the_direction_page_does(bos_model, source, true, own_home):
    text = f"sae:{source}:{LATENT}"
    run = run_or_load(LookConfig(str(bos_model), TEXT, direction=text))
    scores = run.table("scores")["score"]
    assert scores.tolist() == pytest.approx(true[:, LATENT].tolist(), abs=1e-4)
    subject = open_subject(str(bos_model), bos="always")
    other = scores_on_text(subject, open_directions(text, str(bos_model)), TEXT)
    assert scores.tolist() == pytest.approx(other["score"].tolist(), abs=1e-5)
    assert run.table("tokens")["id"].tolist() == IDS  # the rest of the look has no BOS


def test_what_is_asked_for_stands(bos_model, source, own_home):
    text = f"sae:{source}:{LATENT}"
    asked, own = (
        LookConfig(str(bos_model), TEXT, direction=text, bos=bos) for bos in ("never", "auto")
    )
    assert asked.fingerprints() != own.fingerprints()
    expected = activations(bos_model, source, IDS)[:, LATENT].tolist()
    assert run_or_load(asked).table("scores")["score"].tolist() == pytest.approx(expected, abs=1e-4)
    neuron = LookConfig(str(bos_model), TEXT, direction="1.down.17")
    assert "before the scored text" not in neuron.fingerprints()


def test_the_page_scores_it_so_and_so_does_what_it_offers(shown, source, true):
    at(shown, "A direction", position=1, direction=f"sae:{source}:{LATENT}")
    assert "reads the text with w0 before it" in said(shown)
    assert "at position 2 there" in said(shown)
    chosen, sizes = float(true[2, LATENT]), true[1:, LATENT]
    assert f"The score of the chosen token is {chosen:.3g}." in said(shown)
    largest, number = float(sizes.max()), int(sizes.argmax())
    token = TEXT.split()[number]
    assert f"is {largest:.3g} at {token} (position {number + 1})." in said(shown)
    shell = next(block.value for block in shown.code if block.language == "bash")
    parse(shlex.split(shell)[1:])()
    call = next(block.value for block in shown.code if block.language == "python")
    given = {}
    exec(call, given)
    rows = given["run"].table("scores")["score"]
    assert rows.tolist() == pytest.approx(true[:, LATENT].tolist(), abs=1e-4)


def test_the_page_s_latents_are_those_of_the_survey(
    shown, bos_model, source, true, tmp_path, capsys
):
    (tmp_path / "text.txt").write_text("w1 w2 dog w4 " * 30)
    sizes = {"corpus": str(tmp_path / "text.txt"), "tokens": 60, "length": 10, "k": 3}
    run_or_load(SurveyConfig(model=str(bos_model), saes=str(source), **sizes))
    at(shown, "Latents", position=3)
    assert "reads the text with w0 before it" in said(shown)
    best = int(true[4].argmax())
    assert f"Latent {best} is the largest, {float(true[4, best]):.2f}" in said(shown)
    shell = next(block.value for block in shown.code if block.language == "bash")
    capsys.readouterr()
    parse([*shlex.split(shell)[1:], "--limit", "40", "--json"])()
    rows = {row["latent"]: row["value"] for row in json.loads(capsys.readouterr().out)["results"]}
    page = shown.dataframe[0].value.set_index("latent")["value"]
    at_its_best = [n for n in page.index if float(true[1:, n].argmax()) == 3]
    assert at_its_best
    for number in at_its_best:
        assert page[number] == pytest.approx(rows[number], abs=1e-4)
