"""What names a model in a run's key sees every change that a result can come of."""

import itertools
import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from interp.model.checkpoint import load_model
from interp.model.ends import ends_of
from interp.model.weights import Weights


def test_fingerprints_see_another_tokenizer(model_folder, own_home, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder("llama"), folder)
    before = Weights(folder).fingerprints()
    (folder / "tokenizer.json").write_text("{}")
    after = Weights(folder).fingerprints()
    assert after["model"] == before["model"]
    assert after["tokenizer"] != before["tokenizer"]


ENDS = [None, 3, [3, 5], [5, 3], [3], [], [7], [3, 7]]


def test_fingerprints_see_what_ends_a_text(model_folder, own_home, tmp_path):
    """generation_config.json and config.json have any of these, with one tokenizer: the key is
    another where generation ends at other tokens."""
    folder = shutil.copytree(model_folder("llama"), tmp_path / "model")
    added = [{"id": i, "content": text, "special": True} for i, text in ((3, "</s>"), (5, "<eos>"))]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    config = json.loads((folder / "config.json").read_text())
    prints = {}
    for own, said in itertools.product(ENDS, ENDS):
        (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": own}))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
        ends = next((ids for ids in (said, own) if ids is not None), "the tokenizer's")
        ends = [ends] if isinstance(ends, int) else ends
        key = json.dumps([Weights(folder).fingerprints(), own])
        assert prints.setdefault(key, ends) == ends
    assert len({str(ends) for ends in prints.values()}) == len(ENDS) - 1, "3 and [3] are the same"


def test_usual_ends_are_in_no_key(model_folder, own_home, tmp_path):
    """So the keys of runs of the catalog's models are as they were."""
    folder = shutil.copytree(model_folder("llama"), tmp_path / "model")
    added = [{"id": 5, "content": "<|im_end|>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 3}))
    for said, has in (([3, 5], None), ([3], "3"), ([48], "48"), (3, "3"), (None, "3")):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
        assert Weights(folder).fingerprints().get("ends of a text") == has
        assert ends_of(load_model(folder), None) == ((3, 5) if has is None else (int(has),))


def test_fingerprint_sees_one_changed_weight(model_folder, own_home, tmp_path):
    folder = model_folder("llama")
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    assert Weights(changed).fingerprint() == Weights(folder).fingerprint()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] += 1e-3
    save_file(tensors, changed / "model.safetensors")
    assert Weights(changed).fingerprint() != Weights(folder).fingerprint()


def _unpacked_over(path, content, in_place):
    """As `tar` writes over a file, with the time of change that the archive says."""
    seen = path.stat()
    if not in_place:
        path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert path.stat().st_size == seen.st_size


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_fingerprint_sees_a_file_of_the_same_size_and_time(
    file, in_place, model_folder, own_home, tmp_path
):
    folder = shutil.copytree(model_folder("llama"), tmp_path / "model")
    before, path = Weights(folder).fingerprint(), folder / file
    content = path.read_bytes()
    other = (
        content.replace(b"10000.0", b"20000.0") if file == "config.json" else content[:-1] + b"!"
    )
    assert other != content
    _unpacked_over(path, other, in_place)
    assert Weights(folder).fingerprint() != before
    _unpacked_over(path, content, in_place)
    assert Weights(folder).fingerprint() == before
