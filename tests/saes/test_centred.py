"""SAEs of activations that TransformerLens centred, against a model that is centred here."""

import copy

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from transformers import AutoModelForCausalLM

from interp.errors import UserError
from interp.model.subject import open_subject
from interp.saes import SaeSplit, open_sae, wrap
from interp.saes.open import open_saes

D = 32
HOOKS = {
    "0.resid_post": "blocks.0.hook_resid_post",
    "1.resid_mid": "blocks.1.hook_resid_mid",
    "1.attn_out": "blocks.1.hook_attn_out",
    "1.mlp_out": "blocks.1.hook_mlp_out",
}
UNCHANGED = {"1.head_z": "blocks.1.attn.hook_z", "1.mlp_post": "blocks.1.mlp.hook_post"}


def made(hook, d_in=D, **kwargs):
    torch.manual_seed(1)
    inner = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=2 * d_in, dtype="float64"))
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    inner.cfg.metadata.hook_name = hook
    inner.cfg.metadata.model_from_pretrained_kwargs = kwargs
    return inner


def streams(model, ids, sites):
    subject = open_subject(model)
    return {site: subject.capture(ids, [site]).popitem()[1] for site in sites}


@pytest.fixture(scope="module")
def both(model_folder):
    """Activations of a GPT-2 in float64, and of the same one with what writes to its stream
    centred, as `center_writing_weights` is defined."""
    own = AutoModelForCausalLM.from_pretrained(model_folder("gpt2"), dtype=torch.float64)
    centred = copy.deepcopy(own)
    centred.lm_head.weight = torch.nn.Parameter(centred.lm_head.weight.clone())  # W_U stays
    with torch.no_grad():
        body = centred.transformer
        writers = [body.wte.weight, body.wpe.weight]
        for block in body.h:
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                writers += [projection.weight, projection.bias]
        for weight in writers:
            weight -= weight.mean(-1, keepdim=True)
    centred.config.tie_word_embeddings = False
    ids = torch.randint(0, 211, (4, 16), generator=torch.Generator().manual_seed(0))
    sites = [*HOOKS, *UNCHANGED]
    return streams(own, ids, sites), streams(centred, ids, sites)


@pytest.mark.parametrize("site", HOOKS)
def test_what_it_reads_is_what_it_was_trained_on(both, site):
    raw, centred = (of[site] for of in both)
    assert float(raw.mean(-1).abs().max()) > 1e-3
    inner = made(HOOKS[site], center_writing_weights=True)
    sae = wrap(inner)
    assert sae.centred
    torch.testing.assert_close(sae.read(raw), centred, rtol=1e-10, atol=1e-12)
    z = inner.encode(centred)
    torch.testing.assert_close(sae.encode(raw), z, rtol=1e-9, atol=1e-12)
    x, x_hat = (v.detach().flatten(0, 1).numpy() for v in (centred, inner.decode(z)))
    fvu = ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    quality = sae.quality(raw.flatten(0, 1))
    assert quality["fvu"] == pytest.approx(fvu, rel=1e-9)
    assert quality["l0"] == pytest.approx(float((z > 0).sum(-1).double().mean()))


@pytest.mark.parametrize("site", UNCHANGED)
def test_heads_and_neurons_do_not_see_it(both, site):
    raw, centred = (of[site] for of in both)
    torch.testing.assert_close(raw, centred, rtol=1e-9, atol=1e-12)
    d_in = raw.shape[2:].numel()
    assert not wrap(made(UNCHANGED[site], d_in, center_writing_weights=True)).centred


def test_an_exact_sae_leaves_no_error(both):
    """The false dark matter of before: its error was the mean, and all linear."""
    raw = both[0]["0.resid_post"].flatten(0, 1)
    inner = made(HOOKS["0.resid_post"], center_writing_weights=True)
    eye = torch.eye(D, dtype=torch.float64)
    with torch.no_grad():
        inner.W_enc.copy_(torch.cat([eye, -eye], 1))
        inner.W_dec.copy_(torch.cat([eye, -eye]))
        inner.b_enc.zero_()
        inner.b_dec.zero_()
    assert wrap(inner).quality(raw)["fvu"] < 1e-20
    inner.cfg.metadata.model_from_pretrained_kwargs = {}
    with torch.no_grad():  # what it gave before: an SAE of centred x on x as it is
        centring = eye - 1 / D
        inner.W_enc.copy_(centring @ torch.cat([eye, -eye], 1))
    assert wrap(inner).quality(raw)["fvu"] > 1e-3


def test_a_split_is_that_of_the_centred_stream(both):
    raw, x = (of["0.resid_post"].flatten(0, 1) for of in both)
    inner = made(HOOKS["0.resid_post"], center_writing_weights=True)
    split = SaeSplit.of(wrap(inner), raw)
    assert split.fit.method == "cholesky", "x without its mean determines the map"
    error = (x - inner(x).detach()).numpy()
    given = np.column_stack([x.numpy(), np.ones(len(x))])
    solved = np.linalg.lstsq(given, error, rcond=1e-12)[0]
    parts = split(raw)
    np.testing.assert_allclose(parts.linear.numpy(), given @ solved, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(sum(parts), raw, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "fits"),
    [("gpt2", True), ("gpt_neox", True), ("llama", False), ("bloom", False), ("olmo2", False)],
)
def test_only_models_whose_stream_has_no_mean(family, fits, model_folder, tmp_path):
    made(HOOKS["0.resid_post"], center_writing_weights=True).save_model(tmp_path / "sae")
    model = str(model_folder(family))
    if fits:
        assert open_saes(tmp_path, model=model).centred
    else:
        with pytest.raises(UserError, match="sae reads a stream whose mean was taken away"):
            open_saes(tmp_path, model=model)


def test_centred_and_not_are_not_mixed(tmp_path):
    made(HOOKS["0.resid_post"], center_writing_weights=True).save_model(tmp_path / "a")
    made(HOOKS["0.resid_post"]).save_model(tmp_path / "b")
    assert open_sae(tmp_path / "a").centred
    with pytest.raises(UserError, match="some of them read centred activations: put them in two"):
        open_saes(tmp_path)
