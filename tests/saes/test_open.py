"""Opening SAEs: names that stay apart, and SAEs that cannot be right are refused."""

import json
import logging
import shutil

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig, Transcoder, TranscoderConfig
from safetensors.torch import load_file, save_file

from interp.darkmatter.ladder import LADDER
from interp.data import FOLDER
from interp.errors import UserError
from interp.saes.open import open_saes

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


def test_saes_of_another_model(tmp_path, caplog):
    made(tmp_path / "own", model_name="othello-gpt")
    with pytest.raises(UserError, match="own is an SAE of othello-gpt, not of smollm2-135m: give"):
        open_saes(str(tmp_path), model="smollm2-135m")
    with caplog.at_level(logging.WARNING, logger="interp"):
        for same in ("othello-gpt", "", "/models/Othello_GPT", "org/othello-gpt-small"):
            open_saes(str(tmp_path), model=same)
        assert not caplog.records
        open_saes(str(tmp_path), model="/models/copy")
    assert "own says that it is an SAE of othello-gpt; it is used on /models/copy" in caplog.text


@pytest.mark.parametrize(("folder", "model"), [(SHIPPED, "othello-gpt"), (LADDER, "smollm2-135m")])
def test_the_shipped_saes_are_of_their_models(folder, model, caplog):
    with caplog.at_level(logging.WARNING, logger="interp"):
        assert open_saes(str(folder), "2.resid_post" if folder == SHIPPED else "", model=model)
    assert not caplog.records


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
