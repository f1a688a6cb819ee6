"""Opening SAEs: names that stay apart, and SAEs that cannot be right are refused."""

import json
import shutil

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig, Transcoder, TranscoderConfig
from safetensors.torch import load_file, save_file

from interp.data import FOLDER
from interp.directions.sources import latent_directions
from interp.errors import UserError
from interp.saes.open import check_saes, open_saes
from interp.saes.study import LADDER

SHIPPED = FOLDER / "othello" / "saes" / "saes"


def made(folder, **metadata):
    """A small SAE on disk, of another width the next time."""
    inner = StandardSAE(StandardSAEConfig(d_in=8, d_sae=16))
    inner.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    for name, value in metadata.items():
        inner.cfg.metadata[name] = value
    inner.save_model(folder)
    return folder


def test_folders_of_one_name_are_several_saes(tmp_path):
    for layer in (1, 2):
        made(tmp_path / f"L{layer}" / "topk", hook_name=f"blocks.{layer}.hook_resid_post")
    made(tmp_path / "L2" / "l1")
    assert set(open_saes(str(tmp_path), "2.resid_post").by_name) == {"L2/topk", "l1"}
    assert open_saes(str(tmp_path), "1.resid_post").names == ("L1/topk",)


def test_saes_of_another_model(tmp_path):
    made(tmp_path / "own", model_name="othello-gpt")
    for same in ("othello-gpt", "", "/models/Othello_GPT"):
        assert not open_saes(str(tmp_path), model=same).anyway
    for other in ("smollm2-135m", "/models/copy", "org/othello-gpt-small"):
        with pytest.raises(UserError, match=f"own is an SAE of othello-gpt, not of {other}: give"):
            open_saes(str(tmp_path), model=other)
    opened = open_saes(str(tmp_path), model="/models/copy", anyway=True)
    assert opened.facts == {
        "sae_models": {"own": "othello-gpt"},
        "anyway": ["own is an SAE of othello-gpt, not of /models/copy"],
    }


def test_a_base_models_saes_are_not_the_instruct_models(tmp_path):
    made(tmp_path / "base", model_name="HuggingFaceTB/SmolLM2-135M")
    with pytest.raises(UserError, match="base is an SAE of HuggingFaceTB/SmolLM2-135M, not of smo"):
        open_saes(str(tmp_path), model="smollm2-135m")
    with pytest.raises(UserError, match="--anyway"):
        check_saes(str(tmp_path), "smollm2-135m")
    assert check_saes(str(tmp_path), "smollm2-135m", anyway=True)["anyway"]
    made(tmp_path / "error", reads="linear error")
    with pytest.raises(UserError, match="error is an SAE of the linear error"):
        check_saes(str(tmp_path), "smollm2-135m", anyway=True)


def test_latents_are_directions_of_their_own_model(tmp_path, model_folder):
    folder = str(model_folder("gpt2", n_embd=8, n_head=2, n_layer=3))
    made(tmp_path / "unnamed")
    with pytest.raises(UserError, match="unnamed does not say which model it reads: give --model"):
        latent_directions(str(tmp_path / "unnamed"), [1])
    assert len(latent_directions(str(tmp_path / "unnamed"), [1], folder)) == 1
    made(tmp_path / "other", model_name="gpt2-medium")
    with pytest.raises(UserError, match="is an SAE of gpt2-medium, not of .* that model only"):
        latent_directions(str(tmp_path / "other"), [1], folder)
    made(tmp_path / "error", reads="linear error")
    with pytest.raises(UserError, match="error is an SAE of the linear error, not of activations"):
        latent_directions(str(tmp_path / "error"), [1], folder)


def test_a_hook_that_is_not_known_is_no_site_without_a_word(tmp_path):
    made(tmp_path / "own", hook_name="model.layers.2")
    with pytest.raises(UserError, match="own is an SAE of model.layers.2, not of 2.resid_post"):
        open_saes(str(tmp_path), "2.resid_post")
    assert open_saes(str(tmp_path), "2.resid_post", anyway=True).anyway
    made(tmp_path / "own", hook_name=None)
    assert not open_saes(str(tmp_path), "2.resid_post").anyway, "it says nothing else"


@pytest.mark.parametrize(("folder", "model"), [(SHIPPED, "othello-gpt"), (LADDER, "smollm2-135m")])
def test_the_shipped_saes_are_of_their_models(folder, model):
    site = "2.resid_post" if folder == SHIPPED else ""
    assert not open_saes(str(folder), site, model=model).anyway


def test_an_sae_of_an_error_is_none_of_the_site(tmp_path):
    made(tmp_path / "linear", reads="linear error")
    with pytest.raises(UserError, match="linear is an SAE of the linear error, not of activations"):
        open_saes(str(tmp_path))


def test_a_transcoder_is_refused(tmp_path):
    sizes = {"d_in": 8, "d_sae": 16, "d_out": 8}
    inner = Transcoder(TranscoderConfig(**sizes, apply_b_dec_to_input=False))
    inner.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    inner.cfg.metadata.hook_name_out = "blocks.2.hook_mlp_out"
    inner.save_model(tmp_path / "tc")
    with pytest.raises(UserError, match="tc is a transcoder: it gives blocks.2.hook_mlp_out"):
        open_saes(str(tmp_path))


def test_pursuit_is_not_for_normalised_inputs(tmp_path):
    made(tmp_path / "ln")
    path = tmp_path / "ln" / "cfg.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"normalize_activations": "layer_norm"})
    )
    saes = open_saes(str(tmp_path))
    x = torch.randn(9000, 8, generator=torch.Generator().manual_seed(0))  # more than one chunk
    sae = saes.by_name["ln"]
    torch.testing.assert_close(saes.errors(x).error[:, 0], x - sae.inner(x).detach())
    with pytest.raises(UserError, match="ln normalises its input .layer_norm.*darkmatter run"):
        open_saes(str(tmp_path), pursued=True)


@pytest.mark.parametrize("weight", ["W_enc", "W_dec"])
def test_a_nan_is_named_before_anything_is_read(tmp_path, weight):
    shutil.copytree(SHIPPED / "topk-L2-S0", tmp_path / "topk")
    path = tmp_path / "topk" / "sae_weights.safetensors"
    tensors = load_file(path)
    tensors[weight][0, 0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(UserError, match=f"topk is damaged: its {weight} holds a NaN"):
        open_saes(str(tmp_path), "2.resid_post")
