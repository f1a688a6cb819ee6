"""A part of a tensor is that part of the tensor, whatever it is read in."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.model import tensor_files
from interp.model.weights import Weights

from ..conftest import FAMILY_CONFIGS

SPANS = [slice(None), slice(3, 13), slice(1, None, 2), slice(0, None, 2), slice(5, 5)]


@pytest.mark.parametrize("at_once", [64, 200, 2**20])
@pytest.mark.parametrize("span", SPANS, ids=str)
def test_rows_columns_and_entries(span, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "SLICE_BYTES", at_once)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(37, 23, generator=generator).bfloat16()
    stack = torch.randn(3, 20, 14, generator=generator)
    save_file({"matrix": matrix, "stack": stack}, tmp_path / "some.safetensors")
    stored = {each.name: each for each in tensor_files.header(tmp_path / "some.safetensors")}

    def read(name, *part):
        return tensor_files.read_tensor(stored[name], stored[name].shape, *part)

    assert torch.equal(read("matrix", None, span), matrix.float()[span])
    assert torch.equal(read("matrix", None, span, 1), matrix.float()[:, span].T)
    assert torch.equal(read("stack", 1, span), stack[1][span])
    assert torch.equal(read("stack", 2, span, 1), stack[2][:, span].T)


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_some_neurons_of_every_family(family, model_folder, own_home):
    weights = Weights(model_folder(family))
    for kind in weights.spec.kinds:
        whole = weights.in_stream(kind, 0)
        some = weights.in_stream(kind, 0, some=slice(3, 11))
        assert torch.equal(some, whole[3:11])
        assert some.is_contiguous()


@pytest.mark.parametrize("how", ["replaced", "written into"])
def test_a_file_that_changes_after_its_folder_was_opened(how, model_folder, own_home, tmp_path):
    """What is made of it would bear the fingerprint of what was there before."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("llama"), folder)
    weights, file = Weights(folder), folder / "model.safetensors"
    weights.W_U()
    other = {name: -tensor for name, tensor in load_file(file).items()}
    save_file(other, tmp_path / "other.safetensors")
    if how == "replaced":
        (tmp_path / "other.safetensors").replace(file)
    else:
        file.write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"model.safetensors has changed since it was opened"):
        weights.neurons("up", 0)
    assert Weights(folder).fingerprint() != Weights(model_folder("llama")).fingerprint()
