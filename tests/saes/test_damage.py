"""What is damaged, or no SAE of activations, is one plain line: from a folder, from the hub."""

import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import (
    StandardSAE,
    StandardSAEConfig,
    TemporalSAE,
    TemporalSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.saes import open_sae, wrap
from interp.saes.open import saes_bos

GEMMA = "gemma-scope-2b-pt-res-canonical:layer_0/width_16k/canonical"
HOOK_Z = "gpt2-small-hook-z-kk:blocks.5.hook_z"


def stored(folder: Path) -> Path:
    StandardSAE(StandardSAEConfig(d_in=8, d_sae=16)).save_model(folder)
    return folder


def refused(source) -> str:
    with pytest.raises(UserError) as caught:
        open_sae(source)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_temporal_sae():
    sizes = {"d_in": 8, "d_sae": 16, "n_heads": 2, "bottleneck_factor": 2, "kval_topk": 4}
    config = TemporalSAEConfig(**sizes, normalize_activations="constant_scalar_rescale")
    with pytest.raises(UserError, match="is a temporal SAE, which reads earlier tokens too"):
        wrap(TemporalSAE(config))


@pytest.mark.parametrize("k", [17, 0, -1, 2.5])
def test_a_k_that_cannot_be(k, tmp_path):
    TopKSAE(TopKSAEConfig(d_in=8, d_sae=16, k=4)).save_model(tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"k": k}))
    assert f"it keeps the largest {k} of 16 latents" in refused(tmp_path)


def test_a_shape_that_does_not_fit(tmp_path):
    path = stored(tmp_path) / "sae_weights.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"W_enc": tensors["W_enc"][:, :3].contiguous()}, path)
    assert "size mismatch for W_enc" in refused(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 100, -50])
def test_a_truncated_file(kept, tmp_path):
    path = stored(tmp_path) / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path} is truncated or corrupt" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_in": "x"}, "'d_in' in the config of {} is a text"),
        ({"d_sae": None}, "{} is damaged: its cfg.json has no d_sae"),
        ({"d_sae": 10**9}, "{} is damaged: its cfg.json says d_sae 1000000000, and no tensor"),
        ({"metadata": -1}, "'metadata' in the config of {} is a whole number, not an object"),
        ({"metadata": {"hook_name": 3}}, "'hook_name' in the config of {} is a whole number"),
        ({"metadata": {"model_from_pretrained_kwargs": "x"}}, "'model_from_pretrained_kwargs' in"),
        ({"metadata": {"sae_lens_version": "x.y"}}, "the SAE in {} cannot be read (Invalid"),
    ],
)
def test_a_config_of_nonsense(change, says, tmp_path):
    """Nothing is made of it: d_sae of 1e9 would be 32 GB."""
    path = stored(tmp_path) / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert says.format(tmp_path) in refused(tmp_path)
    with suppress(UserError):  # where it has been said how text begins, nothing else is read
        saes_bos(str(tmp_path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that gives the files of a folder by their endings."""

    def download(repo_id, filename, **more):
        return str(tmp_path / f"file{Path(filename).suffix}")

    monkeypatch.setattr("sae_lens.loading.pretrained_sae_loaders.hf_hub_download", download)
    config = {"act_size": 8, "dict_size": 16, "act_name": "blocks.5.attn.hook_z"}
    (tmp_path / "file.json").write_text(json.dumps(config))
    return tmp_path


def truncated_npz(path: Path) -> None:
    np.savez(path, w_enc=np.zeros((2304, 4), np.float32))
    path.write_bytes(path.read_bytes()[:-40])


def npz_with_a_damaged_member(path: Path) -> None:
    np.savez_compressed(path, w_enc=np.arange(9999, dtype=np.float32))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)


def npz_of_another_shape(path: Path) -> None:
    keys = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
    np.savez(path, **{key: np.zeros(3, np.float32) for key in keys})


def npz_of_nothing(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


@pytest.mark.parametrize(
    "write",
    [
        truncated_npz,
        npz_with_a_damaged_member,
        npz_of_another_shape,
        npz_of_nothing,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"<html>not found</html>"),
    ],
)
def test_a_damaged_npz_of_the_hub(write, hub):
    write(hub / "file.npz")
    assert f"{GEMMA} cannot be opened (" in refused(GEMMA)


@pytest.mark.parametrize("kept", [0, 3, 200, -100])
def test_a_damaged_pt_of_the_hub(kept, hub):
    path = hub / "file.pt"
    torch.save(dict(StandardSAE(StandardSAEConfig(d_in=8, d_sae=16)).state_dict()), path)
    assert open_sae(HOOK_Z).d_sae == 16
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{HOOK_Z} cannot be opened (" in refused(HOOK_Z)
    shutil.copy(hub / "file.json", path)
    assert "cannot be opened (" in refused(HOOK_Z)
    torch.save({"W_enc": print}, path)
    assert "cannot be opened (" in refused(HOOK_Z)
