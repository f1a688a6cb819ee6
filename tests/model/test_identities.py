"""What opening a model finds wrong with an entry of the table: sites that fail are not offered."""

from dataclasses import replace

import pytest

from interp.errors import UserError
from interp.model import edits
from interp.model.conformance import tiny_model
from interp.model.families import FAMILIES, Part, read_spec
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights

MISTAKES = {
    "a factor that is not known": (
        "granite", {"residual_scale": ""}, {"attn_out", "resid_mid", "mlp_out"},
    ),
    "a parallel layer taken for a sequential one": (
        "cohere", {"parallel": False}, {"attn_out", "resid_mid"},
    ),
    "a sequential layer taken for a parallel one": ("llama", {"parallel": True}, {"mlp_in"}),
    "a norm behind attention that is not known": (
        "glm4", {"attn_post_norm": ""}, {"attn_out", "resid_mid", "mlp_out"},
    ),
    "halves the wrong way round": (
        "phi3",
        {"gate": Part("mlp.gate_up_proj", 1, 2), "up": Part("mlp.gate_up_proj", 0, 2)},
        {"mlp_post"},
    ),
    "another activation": ("qwen2", {"fixed": {"hidden_act": "relu"}}, {"mlp_post"}),
    "gains that lack 1": ("gemma", {"gain_offset": 0.0}, {"head_v", "final_norm_in", "logits"}),
    "values in other rows": ("gpt2", {"value_rows": "by head"}, {"head_v", "attn_pattern"}),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_site_that_fails_is_not_offered(mistake, monkeypatch):
    family, changes, wrong = MISTAKES[mistake]
    model = tiny_model(family)
    monkeypatch.setitem(FAMILIES, family, replace(FAMILIES[family], **changes))
    subject = open_subject(model, attention="eager")
    refused = {site.kind for site in subject.refused}
    assert refused >= wrong
    assert "resid_post" not in refused
    assert not refused & {site.kind for site in subject.sites}
    assert subject.site_error < 1e-5, "that of the sites it offers"
    assert max(subject.site_errors.values()) > 1e-3
    site, batch = next(iter(subject.refused)), subject.pad([[1, 2]])
    for ask in (str(site), f"*.{site.kind}", site):
        with pytest.raises(UserError, match=f"does not offer '.*{site.kind}': on a probe .* wrong"):
            subject.capture(batch, [ask])
    with (
        pytest.raises(UserError, match="does not offer"),
        subject.edited(edits.clamp(site, 0, 1.0)),
    ):
        pass


def test_a_backend_with_other_logits_is_refused(monkeypatch):
    """Its parity is over a padded row too."""
    from interp.model.backends.native import NativeBackend

    run = NativeBackend.run

    def blind_to_padding(self, inputs, taps, stop):
        return run(self, {k: v for k, v in inputs.items() if k == "input_ids"}, taps, stop)

    monkeypatch.setattr(NativeBackend, "run", blind_to_padding)
    with pytest.raises(UserError, match="native backend gives other logits for this llama model"):
        open_subject(tiny_model("llama"))


def test_a_right_entry_offers_all(model_folder):
    subject = open_subject(model_folder("granite"))
    assert subject.checks == {"parity": subject.parity, "site_error": subject.site_error}
    assert 0 < subject.site_error < 1e-6
    assert not subject.refused
    assert Site("resid_mid", 1) in subject.sites


def test_a_model_whose_own_logits_are_not_finite_is_refused():
    """As Gemma's are in float16: no difference can be told."""
    model = tiny_model("gemma").half()
    model.model.norm.weight.data.fill_(6e4)
    with pytest.raises(UserError, match="own logits are not finite in float16: open it in float32"):
        open_subject(model)


BOTH_WAYS = {
    "gemma": {"use_bidirectional_attention": True},
    "gemma2": {"use_bidirectional_attention": True},
    "gemma3_text": {"use_bidirectional_attention": True},
    "gemma4_text": {"use_bidirectional_attention": "all", "sliding_window": 8},
    "llama": {"is_causal": False},
}


@pytest.mark.parametrize("family", BOTH_WAYS)
def test_a_model_that_reads_both_ways_is_no_subject(family):
    """EmbeddingGemma's kind: its config says so. Its vectors can be read all the same."""
    model = tiny_model(family, **BOTH_WAYS[family])
    with pytest.raises(UserError, match=f"^{family} cannot be opened: .* in both directions"):
        open_subject(model)
    assert read_spec(model.config.to_dict()).d_model == 32


def test_a_model_that_reads_both_ways_is_found_by_its_logits():
    """Whatever its config says."""
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(UserError, match="one more token moves the logits before it by up to"):
        open_subject(model)


def test_a_projection_between_embeddings_and_stream_is_one_line(model_folder, own_home):
    """OPT 350M's: for who reads the weights and for who runs the model alike."""
    folder = model_folder("opt", word_embed_proj_dim=16)
    for opening in (open_subject, Weights):
        with pytest.raises(UserError, match="its embeddings, of 16 numbers, and its stream, of 32"):
            opening(folder)


def test_an_unembedding_of_another_width_is_one_line(monkeypatch):
    """Of a family whose entry does not know of the projection."""
    monkeypatch.setitem(FAMILIES, "opt", replace(FAMILIES["opt"], embed_width=""))
    with pytest.raises(UserError, match=r"is \[211, 16\] where its config implies \[211, 32\]"):
        open_subject(tiny_model("opt", word_embed_proj_dim=16))
