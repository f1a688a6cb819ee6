"""Models with a text model inside: its weights and sites, with the whole model's logits on text."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.model import edits
from interp.model.conformance import tiny_model
from interp.model.families import WRAPPERS, read_spec
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights

from ..conftest import make_model

OPENED = [name for name in WRAPPERS if not WRAPPERS[name].no_sites]


@pytest.mark.parametrize("name", OPENED)
def test_the_text_model_inside_is_opened_from_files_and_in_memory(name, model_folder, own_home):
    whole = make_model(name)
    folder = model_folder(name)
    weights, batch = Weights(folder), [[5, 6, 7, 8], [1, 2]]
    embedding, head = whole.get_input_embeddings().weight, whole.get_output_embeddings().weight
    assert torch.equal(weights.W_E(), embedding)
    assert torch.equal(weights.W_U(), head)
    assert weights.spec.tied is (embedding is head)
    for source in (whole, folder):
        subject = open_subject(source)
        assert subject.parity < 2e-6
        assert subject.site_error < 2e-6
        assert not subject.refused
        got = subject.logits(subject.pad(batch))
        with torch.no_grad():
            inside = whole.language_model if name == "llama4" else whole
            want = inside(input_ids=torch.tensor(batch[:1])).logits[0]
        torch.testing.assert_close(got[0], want, atol=2e-6, rtol=1e-4)


def test_an_untied_head_is_read_though_the_text_model_says_tied(own_home, tmp_path):
    """The tie flag stands on the outer level; a stored `language_model.lm_head.weight` counts."""
    whole = tiny_model("llava", tie_word_embeddings=False)
    whole.save_pretrained(tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert "language_model.lm_head.weight" in stored
    head = whole.get_output_embeddings().weight
    assert torch.equal(Weights(tmp_path / "model").W_U(), head)
    tied = {**whole.config.to_dict(), "model_type": "gemma3"}
    tied.pop("tie_word_embeddings")
    tied["text_config"] |= {"model_type": "gemma3_text", "tie_word_embeddings": False}
    assert read_spec(tied).tied, "what the text model's level says does not count"
    assert not read_spec({**tied, "tie_word_embeddings": False}).tied


def test_a_config_on_one_level_is_taken(model_folder, own_home, tmp_path):
    """As Qwen2-VL's first releases have it; and without the sizes that are the class's own."""
    folder = tmp_path / "flat"
    shutil.copytree(model_folder("qwen2_vl"), folder)
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    flat = {**text, **config, "model_type": "qwen2_vl"}
    assert read_spec(flat) == Weights(folder).spec
    silent = {"model_type": "llava", "text_config": {"vocab_size": 32064}}
    spec = read_spec(silent)
    assert (spec.model_type, spec.d_model, spec.d_mlp, spec.n_heads) == ("llama", 4096, 11008, 32)


def test_steering_reaches_the_whole_model(model_folder):
    subject = open_subject(model_folder("gemma3"))
    batch = subject.pad([[5, 6, 7]])
    plain = subject.logits(batch)
    with subject.edited(edits.add(Site("resid_post", 0), torch.ones(32))):
        assert (subject.logits(batch) - plain).abs().max() > 1e-3


def test_one_that_reads_both_ways_is_decoded_but_not_opened(model_folder, own_home):
    folder = model_folder("paligemma")
    assert Weights(folder).neurons("up", 1).shape == (48, 32)
    with pytest.raises(UserError, match="cannot be opened: it reads a prompt in both directions"):
        open_subject(folder)


def test_a_head_is_not_taken_from_elsewhere(model_folder, own_home, tmp_path):
    """Of two that could be meant, none is guessed."""
    folder = tmp_path / "two"
    shutil.copytree(model_folder("llava"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["draft.lm_head.weight"] = torch.zeros(211, 32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"no tensor 'lm_head.weight'"):
        Weights(folder).W_U()
