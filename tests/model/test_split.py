"""A model that is split: what it gives is the whole model's, whatever is left in its files."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.lens.jacobian import prompt_rows
from interp.model.devices import HeldTensors, Split, check_device, first_device
from interp.model.edits import add, clamp, patch
from interp.model.families import FAMILIES
from interp.model.neuron import parse_neuron
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.neurons.weight_edits import WeightEdit

ROWS = [[1, 2, 3, 4, 5], [6, 7, 8]]
JOINED = "joined as they are loaded"
UNSPLIT = {
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_moe_text"), JOINED),
    **dict.fromkeys(("mixtral", "phimoe", "olmoe", "glm4_moe", "deepseek_v3"), JOINED),
    "ernie4_5_moe": JOINED,
    "llama4_text": "that holds all of it",
    **dict.fromkeys(("gemma3n_text", "qwen2_vl_text", "qwen2_5_vl_text"), ""),  # not opened
}
"""Families of which nothing, or not all, can stay in the files, and what is said."""


def left(subject):
    """The weights that are in the files."""
    return [name for name, weight in subject._backend.model.named_parameters() if weight.is_meta]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("share", [0, 0.9])
def test_every_site_edit_and_text_is_the_whole_models(model_folder, family, share):
    folder = model_folder(family)
    whole = open_subject(folder)
    size = sum(4 * weight.numel() for weight in whole._backend.model.parameters())
    split = open_subject(folder, device=f"split:{int(share * size)}")
    every = len(list(split._backend.model.parameters()))
    assert (len(left(split)) == every) == (share == 0)
    assert split.device == torch.device("cpu")
    assert split.sites == whole.sites
    assert split.checks == whole.checks
    batch = whole.pad(ROWS)
    found = whole.capture(batch, whole.sites)
    read = split.capture(batch, whole.sites)
    assert all(torch.equal(read[site], x) for site, x in found.items())
    edits = (
        add(Site("resid_mid", 1), torch.ones(whole.spec.d_model)),
        clamp(Site("mlp_post", 0), 3, 2.0),
        patch(Site("mlp_out", 1), 2 * found[Site("mlp_out", 1)], "last"),
    )
    with whole.edited(*edits), split.edited(*edits):
        assert torch.equal(split.logits(batch), whole.logits(batch))
    assert torch.equal(split.generate(batch, 4), whole.generate(batch, 4))
    stopped = split.capture(batch, ["0.resid_post"])[Site("resid_post", 0)]
    assert torch.equal(stopped, found[Site("resid_post", 0)])
    assert (len(left(split)) == every) == (share == 0)  # a stopped pass leaves none in memory


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - UNSPLIT.keys()))
def test_every_family(model_folder, family):
    folder = model_folder(family)
    whole, split = (open_subject(folder, device=device) for device in ("cpu", "split:0"))
    batch = whole.pad(ROWS)
    found, read = whole.capture(batch, whole.sites), split.capture(batch, whole.sites)
    assert all(torch.equal(read[site], x) for site, x in found.items())
    assert torch.equal(split.generate(batch, 4), whole.generate(batch, 4))


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(name for name, said in UNSPLIT.items() if said))
def test_families_that_have_to_be_whole_say_so(model_folder, family):
    with pytest.raises(UserError, match=UNSPLIT[family]):
        open_subject(model_folder(family), device="split:0")


def test_its_weights_are_read_where_they_are(model_folder):
    folder = model_folder("llama")
    split, stored = open_subject(folder, device="split:0"), Weights(folder)
    for read in (lambda w: w.W_U(), lambda w: w.neurons("down", 1), lambda w: w.gain("final")):
        assert torch.equal(read(split.loaded), read(stored))
    assert (
        dict(HeldTensors(split._backend.model)).keys()
        == load_file(folder / "model.safetensors").keys()
    )


def test_in_double_it_is_the_whole_models(model_folder):
    folder = model_folder("llama")
    whole, split = (
        open_subject(folder, device=device, dtype=torch.float64) for device in ("cpu", "split:0")
    )
    assert torch.equal(split.logits(whole.pad(ROWS)), whole.logits(whole.pad(ROWS)))


def test_a_damaged_weight_is_found_though_it_stays_in_the_files(model_folder, tmp_path):
    folder = model_folder("llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][3, 4] = float("nan")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"q_proj.weight' in .* holds a NaN"):
        open_subject(tmp_path, device="split:0")


def test_where_its_parts_are_is_said(model_folder, caplog):
    folder = model_folder("llama")
    size = sum(4 * weight.numel() for weight in load_file(folder / "model.safetensors").values())
    with caplog.at_level(logging.INFO):
        open_subject(folder, device="split:0")
    said = f"the model is split: {size / 1e9:.2g} GB left in the files, to be read in each pass"
    assert said in caplog.messages
    caplog.clear()
    with caplog.at_level(logging.INFO):
        open_subject(folder, device="split")  # it fits
    assert not caplog.messages


def test_what_cannot_be_split_says_so(model_folder):
    folder = model_folder("llama")
    split = open_subject(folder, device="split:0")
    batch = split.pad(ROWS[:1])
    vectors = split.loaded.neurons("down", 1)[:1]
    edit = WeightEdit((parse_neuron("1.down.0"),), vectors, 2 * vectors)
    with pytest.raises(UserError, match="an edit of it would be lost"), edit.applied(split):
        pass
    with pytest.raises(UserError, match="gradients keep every weight"):
        next(prompt_rows(split, ROWS[:1], 1))
    with pytest.raises(UserError, match="a frozen network keeps every weight"):
        _ = split.network
    assert torch.equal(split.logits(batch), open_subject(folder).logits(batch))
    for backend in ("bridge", "nnsight"):
        with pytest.raises(UserError, match=f"the {backend} backend splits no model"):
            open_subject(folder, backend, device="split")
    with pytest.raises(UserError, match="in memory is not split"):
        open_subject(open_subject(folder)._backend.model, device="split")
    with pytest.raises(UserError, match="not in memory: open its folder with 'split'"):
        open_subject(split._backend.model)
    with pytest.raises(UserError, match="joined as they are loaded"):
        open_subject(model_folder("mixtral"), device="split:0")
    with pytest.raises(UserError, match="that holds all of it"):
        open_subject(model_folder("llama4_text"), device="split:0")


def test_a_limit_is_a_size():
    assert Split.of("cuda:1") is None
    assert Split.of("split:1.5G").options["max_memory"]["cpu"] == 3 * 2**29
    assert Split.of("split:24 gib") == Split.of("split:24G")
    assert Split.of("split").options["max_memory"]["cpu"] > 2**20
    for wrong in ("split:", "split:much"):
        with pytest.raises(UserError, match="as in split:24G"):
            Split.of(wrong)
    with pytest.raises(UserError, match="is for models of text"):
        check_device("split:2G")
    assert first_device("cuda:1") == "cuda:1"


def test_over_two_devices_all_that_is_read_and_edited_is_on_the_first():
    """On devices that torch only believes in: tensors without numbers, that refuse to be mixed."""
    made = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("two_devices.py")],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert made.stdout.split() == ["fake:0"] * 4
