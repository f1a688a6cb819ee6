"""Weights that stay in a store are those of the folder, in as few bytes, or one line says why."""

import hashlib
import json
import os
import shutil
import threading
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.cli import main
from interp.errors import UserError
from interp.model import allowed, catalog, remote, remote_files, tensor_files
from interp.model.aliases import same_model
from interp.model.catalog import resolve
from interp.model.files import home
from interp.model.subject import open_subject
from interp.model.tensor_files import header, read_tensor, stored_tensors
from interp.model.weights import Weights, open_weights
from interp.neurons.atlas import AtlasConfig
from interp.runs.study import plan, run_or_load

from ..conftest import FAMILY_CONFIGS
from .stores import Counted, counted  # noqa: F401  a fixture

SHARDED = {"max_shard_size": "20KB"}
AT = "counted://bucket/model"


@pytest.fixture
def held(counted):  # noqa: F811
    """`held(folder)` puts a copy of it into the store."""

    def put(folder, at=AT):
        counted.put(folder, at)
        return at

    return put


def line(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tables(run):
    """Every table's bytes."""
    return {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*.parquet")}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "deepseek_v3"])
def test_an_atlas_is_the_same_to_the_byte(family, model_folder, held, counted):  # noqa: F811
    folder = model_folder(family, save=SHARDED)
    assert len(list(folder.glob("*.safetensors"))) > 2
    here = run_or_load(AtlasConfig(model=str(folder), k=5))
    there = run_or_load(AtlasConfig(model=held(folder), k=5))
    assert tables(there) == tables(here)
    assert len(tables(here)) > 3
    model = home() / "models"
    assert not list(model.rglob("*.safetensors")), "no weights are kept"
    assert sum(size for name, size in counted.read if name.endswith(".safetensors")) > 0


def test_no_more_bytes_than_the_tensors_have(model_folder, held, counted):  # noqa: F811
    folder = model_folder("llama", save=SHARDED)
    weights = open_weights(held(folder))
    heads = sum(size for name, size in counted.read if name.endswith(".safetensors"))
    shards = list(folder.glob("*.safetensors"))
    assert heads <= len(shards) * 2**14
    assert counted.asked.count("ls bucket/model") == 2, "before and behind what is fetched"
    sizes = {"up": (96, 32), "down": (32, 96)}
    for kind, shape in sizes.items():
        counted.read.clear()
        counted.asked.clear()
        weights.neurons(kind, 1)
        assert sum(size for _, size in counted.read) == 4 * shape[0] * shape[1] // 2
        assert [call.split()[0] for call in counted.asked] == ["info"], "whether it is the same"
    counted.read.clear()
    weights.neurons("up", 1, some=slice(3, 10))
    assert [size for _, size in counted.read] == [4 * 7 * 32]
    before = set(counted.read)
    Weights(resolve(AT))
    assert set(counted.read) == before, "headers are kept"


@pytest.mark.parametrize("at_once", [48, 300, 2**20])
@pytest.mark.parametrize("piece", [64, 2**20])
def test_every_part_is_that_of_the_file(at_once, piece, held, tmp_path, monkeypatch, counted):  # noqa: F811
    monkeypatch.setattr(tensor_files, "SLICE_BYTES", at_once)
    monkeypatch.setattr(remote_files, "PIECE_BYTES", piece)
    folder = tmp_path / "given"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    tensors = {
        f"{shape}{kind}": torch.randn(shape, generator=generator).to(kind)
        for shape in ((37, 23), (3, 20, 14), (29,)) for kind in kinds
    }  # fmt: skip
    tensors["empty"] = torch.zeros(0, 4)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    there = {each.name: each for each in stored_tensors(remote.from_remote(held(folder)))}
    here = {each.name: each for each in header(folder / "model.safetensors")}
    assert [(t.name, t.dtype, t.shape) for t in there.values()] == [
        (t.name, t.dtype, t.shape) for t in here.values()
    ]
    spans = [slice(None), slice(3, 13), slice(1, None, 2), slice(5, 5)]
    counted.read.clear()
    for name, tensor in tensors.items():
        entries = range(3) if tensor.ndim == 3 else [None]
        for part in [
            (e, s, a) for e in entries for s in spans for a in range(2 if tensor.ndim > 1 else 1)
        ]:
            own = read_tensor(there[name], tensor.shape, *part)
            assert torch.equal(own, read_tensor(here[name], tensor.shape, *part)), (name, part)
    assert max(size for _, size in counted.read) <= piece


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_every_view_of_every_family(family, model_folder, held):
    here = Weights(model_folder(family))
    there = open_weights(held(here.folder))
    assert there.numbers == here.numbers
    for read in ("W_E", "W_U", "b_U"):
        assert torch.equal(getattr(there, read)(), getattr(here, read)())
    for kind in here.spec.kinds:
        assert torch.equal(there.in_stream(kind, 1), here.in_stream(kind, 1))
        assert torch.equal(there.bias(kind, 1), here.bias(kind, 1))
    for read in ("W_V", "b_V", "W_O", "b_O"):
        assert torch.equal(getattr(there, read)(1), getattr(here, read)(1))


def test_memory_is_the_part_and_two_slices(held, tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "SLICE_BYTES", 2**20)
    monkeypatch.setattr(remote_files, "PIECE_BYTES", 2**17)
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"wide": torch.randn(2048, 4096)}, folder / "model.safetensors")
    (stored,) = stored_tensors(remote.from_remote(held(folder)))
    made = []
    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *a, **k: made.append((out := empty(*a, **k)).nbytes) or out
    )
    tracemalloc.start()
    try:
        part = read_tensor(stored, (2048, 4096), None, slice(10, 74), 1)
        ranges = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert part.shape == (64, 2048)
    assert made[0] == part.nbytes
    assert max(made[1:]) <= 2**20, "32 MB stay where they are"
    assert ranges < 2**20 + 8 * 2**17, "pieces under way, not the blocks"


def test_the_hub_gives_the_fingerprint_of_a_copy(model_folder, held, monkeypatch, counted):  # noqa: F811
    """The hub knows the sha256 of large files; of small ones only git's hash."""
    folder = model_folder("llama", save=SHARDED)

    def says(content):
        if len(content) % 2:
            return {"blob_id": hashlib.sha1(content).hexdigest(), "lfs": None}
        return {"blob_id": "pointer", "lfs": {"sha256": hashlib.sha256(content).hexdigest()}}

    monkeypatch.setattr(Counted, "says", staticmethod(says))
    weights = open_weights(held(folder))
    assert weights.fingerprints() == Weights(folder).fingerprints()
    assert weights.fingerprint() == Weights(folder).fingerprint()
    ours, theirs = plan(AtlasConfig(model=AT)), plan(AtlasConfig(model=str(folder)))
    assert ours["fingerprints"] == theirs["fingerprints"]


@pytest.mark.parametrize(
    "says", [{"md5Hash": "x=="}, {"crc32c": "y=", "etag": "counts metadata"}, {"ETag": '"z-5"'}]
)
def test_other_stores_tell_versions_apart(says, model_folder, held, monkeypatch):
    monkeypatch.setattr(Counted, "says", staticmethod(lambda content: says))
    first = open_weights(held(model_folder("llama"))).fingerprint()
    other = {name: f"{value}2" for name, value in says.items() if name != "etag"}
    monkeypatch.setattr(Counted, "says", staticmethod(lambda content: {**says, **other}))
    assert open_weights(AT).fingerprint() != first
    monkeypatch.setattr(Counted, "says", staticmethod(lambda content: {}))
    assert "gives neither a checksum nor an ETag" in line(lambda: open_weights(AT))


def test_another_version_is_another_folder(model_folder, held, counted):  # noqa: F811
    folder = model_folder("llama")
    old = open_weights(held(folder))
    assert resolve(AT) == old.folder
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    save_file(tensors, changed := home() / "changed.safetensors")
    counted.pipe_file(f"{AT}/model.safetensors", changed.read_bytes())
    new = open_weights(AT)
    assert new.folder != old.folder
    assert new.fingerprint() != old.fingerprint()
    assert torch.equal(new.W_U(), tensors["lm_head.weight"])
    assert "model.safetensors has changed since it was opened" in line(old.W_U)


def test_a_change_between_two_ranges_is_seen(model_folder, held, monkeypatch, counted):  # noqa: F811
    monkeypatch.setattr(remote_files, "PIECE_BYTES", 2**12)
    weights = open_weights(held(model_folder("llama")))

    def changes(name, start, end):
        monkeypatch.setattr(Counted, "fail", staticmethod(lambda *asked: None))
        file = counted.store[f"/{AT.partition('://')[2]}/model.safetensors"]
        file.seek(2**15)
        file.write(bytes(2**14))

    monkeypatch.setattr(Counted, "fail", staticmethod(changes))
    assert "has changed since it was opened" in line(weights.W_U)


def test_a_change_while_it_is_opened_is_seen(model_folder, held, monkeypatch, counted):  # noqa: F811
    at = held(model_folder("llama"))

    def changes(name, start, end):
        if name == "model.safetensors":
            counted.pipe_file(f"{AT}/config.json", b"{}")

    monkeypatch.setattr(Counted, "fail", staticmethod(changes))
    assert "has changed while it was looked at" in line(lambda: resolve(at))
    assert not list((home() / "models").glob("remote-*"))


def failing(monkeypatch, error, times):
    """Ranges raise `error` so often; the list has an entry for each time."""
    raised = []

    def fail(name, start, end):
        if len(raised) < times:
            raised.append(name)
            raise error

    monkeypatch.setattr(Counted, "fail", staticmethod(fail))
    return raised


def test_a_network_that_fails_for_a_while(model_folder, held, monkeypatch):
    folder = model_folder("llama")
    weights = open_weights(held(folder))
    raised = failing(monkeypatch, ConnectionResetError("reset by peer"), 3)
    assert torch.equal(weights.W_U(), Weights(folder).W_U())
    assert len(raised) == 3
    raised = failing(monkeypatch, ConnectionResetError("reset by peer"), 4)
    assert "cannot be read (reset by peer): try again later" in line(weights.W_U)
    assert len(raised) == 4
    for error, said in (
        (PermissionError("Access Denied"), "cannot be read (Access Denied): log in"),
        (FileNotFoundError("gone"), "is not there: check the name"),
    ):
        raised = failing(monkeypatch, error, 9)
        assert said in line(weights.W_U)
        assert len(raised) == 1, "it would be the same again"


def test_fewer_bytes_than_asked_for(model_folder, held, monkeypatch):
    weights = open_weights(held(model_folder("llama")))
    whole = Counted.cat_file
    monkeypatch.setattr(Counted, "cat_file", lambda *a, **k: whole(*a, **k)[:-1])
    assert "bytes came of" in line(weights.W_U)


def changed_file(folder, tmp_path, name, content):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).write_bytes(content)
    return copy


def with_header(said):
    text = json.dumps(said).encode() if isinstance(said, dict) else said
    return len(text).to_bytes(8, "little") + text


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "truncated or no safetensors file"),
        (b"12345678", "truncated or no safetensors file"),
        ((2**40).to_bytes(8, "little") + bytes(99), "truncated or no safetensors file"),
        (with_header(b"{nonsense}"), "is broken JSON"),
        (with_header(b"\xff\xfe"), "is no UTF-8 text"),
        (with_header(b'{"a": 1, "a": 2}'), "has the key 'a' twice"),
        (with_header({"a": 3}), "is a whole number, not an object"),
        (with_header({"a": GOOD}) + bytes(7), "bytes where its header says"),
        (with_header({"a": GOOD}) + bytes(9), "bytes where its header says"),
        (with_header({"a": GOOD | {"data_offsets": [4, 12]}}) + bytes(12), "other bytes than"),
        (with_header({"a": GOOD | {"shape": [3]}}) + bytes(8), "other bytes than its shape"),
        (with_header({"a": GOOD | {"shape": [-1, -2]}}) + bytes(8), "other bytes than its"),
        (with_header({"a": GOOD, "b": GOOD}) + bytes(8), "other bytes than its shape"),
        (with_header({"a": GOOD | {"dtype": "Q4"}}) + bytes(8), "form that is not known"),
        (with_header({"a": GOOD | {"shape": ["2"]}}) + bytes(8), "is a text, not a whole number"),
        (with_header({"a": GOOD | {"data_offsets": [8]}}) + bytes(8), "form that is not known"),
    ],
)  # fmt: skip
def test_damaged_headers(content, said, model_folder, held, tmp_path):
    folder = changed_file(model_folder("llama"), tmp_path, "model.safetensors", content)
    complaint = line(lambda: resolve(held(folder)))
    assert said in complaint
    assert f"{AT}/model.safetensors" in complaint
    assert not list((home() / "models").glob("remote-*"))


def test_headers_are_fetched_side_by_side(model_folder, held, monkeypatch):
    """Two of them wait for each other."""
    both = threading.Barrier(2)

    def meet(name, start, end):
        if name.endswith(("1-of-00006.safetensors", "2-of-00006.safetensors")):
            both.wait(120)

    monkeypatch.setattr(Counted, "fail", staticmethod(meet))
    weights = open_weights(held(model_folder("llama", save=SHARDED)))
    monkeypatch.setattr(Counted, "fail", staticmethod(lambda *asked: None))
    assert weights.W_U().shape == (211, 32)


def test_a_small_file_that_is_large(model_folder, held, monkeypatch):
    monkeypatch.setattr(remote, "_LARGEST", 2**6)
    at = held(model_folder("llama"))
    assert f"{AT}/config.json is larger than 0 MiB" in line(lambda: resolve(at))


@pytest.mark.parametrize("outside", ["../up.safetensors", "/etc/passwd", "a/../../b.safetensors"])
def test_an_index_that_leads_out_of_the_folder(outside, model_folder, held, counted, tmp_path):  # noqa: F811
    index = json.dumps({"weight_map": {"a": outside}}).encode()
    name = "model.safetensors.index.json"
    folder = changed_file(model_folder("llama", save=SHARDED), tmp_path, name, index)
    complaint = line(lambda: resolve(held(folder)))
    assert f"{AT}/{name} names '{outside}', which is no file of the folder" in complaint
    assert not [name for name, _ in counted.read if name.endswith(".safetensors")]


def test_what_lacks(model_folder, held, counted, tmp_path):  # noqa: F811
    assert "counted://bucket/nothing is not there" in line(
        lambda: resolve("counted://bucket/nothing")
    )
    copy = shutil.copytree(model_folder("llama", save=SHARDED), tmp_path / "copy")
    last = sorted(copy.glob("*.safetensors"))[-1]
    last.unlink()
    lacks = line(lambda: open_weights(held(copy)))
    assert lacks.startswith(f"{AT} lacks {last.name}, which its index names")
    counted.store.clear()
    (copy / "model.safetensors.index.json").unlink()
    assert "has no model.safetensors, nor shards" in line(lambda: resolve(held(copy)))


@pytest.mark.parametrize(
    "name", ["s3://", "s3:///a", "s3://b/../c", "s3://b//c", "hf://one", "hf://a/b/c", "gs://b/.",
             "hf://../etc", "hf://a/b@c d"]
)  # fmt: skip
def test_addresses_that_are_none(name, own_home):
    assert "is no address of a model: give s3://BUCKET/FOLDER" in line(lambda: resolve(name))


@pytest.mark.parametrize("name", ["http://a/b/c", "file:///etc", "memory://a/b", "github://a/b"])
def test_other_schemes_are_not_asked(name, own_home):
    assert "an address (s3://, gs://, hf://)" in line(lambda: resolve(name))


def test_a_driver_that_is_not_installed(own_home, monkeypatch):
    import fsspec

    def lacks(scheme, **options):
        raise ImportError(f"Install a driver for {scheme}")

    monkeypatch.setattr(fsspec, "filesystem", lacks)
    assert line(lambda: resolve("s3://bucket/model")) == (
        "s3:// is read through s3fs: pip install 'interp-workbench[remote]'"
    )


def test_the_hub_offline_is_one_line(own_home):
    assert "the hub" in line(lambda: resolve("hf://org/none"))


def test_what_runs_the_model_says_to_fetch_it(model_folder, held, counted, tmp_path):  # noqa: F811
    at = held(model_folder("llama"))
    counted.read.clear()
    complaint = line(lambda: open_subject(at))
    assert f"the weights of {AT} stay where they are" in complaint
    assert "copy it to a folder and name that" in complaint
    name = "adapter_config.json"
    both = changed_file(model_folder("llama"), tmp_path, name, b'{"peft_type": "LORA"}')
    assert "needs the whole model here" in line(lambda: resolve(held(both, f"{AT}2")))
    alone = tmp_path / "adapter"
    alone.mkdir()
    (alone / name).write_text(json.dumps({"base_model_name_or_path": AT}))
    counted.asked.clear()
    assert f"whose base is not found (it names {AT})" in line(lambda: resolve(str(alone)))
    assert counted.asked == [], "a stranger's adapter asks no store"


def test_the_hubs_model_is_named_by_its_id(model_folder, counted, monkeypatch):  # noqa: F811
    monkeypatch.setattr(remote, "commit_of", lambda name: "c" * 40)
    monkeypatch.setattr("fsspec.filesystem", lambda scheme, **options: counted)
    counted.put(model_folder("llama"), f"counted://org/tiny@{'c' * 40}")
    weights = open_weights("hf://org/tiny@main")
    assert weights.W_U().shape == (211, 32)
    assert catalog.known_as(weights.folder) == str(weights) == "hf://org/tiny@main"
    assert "name it org/tiny@main, which fetches it" in line(
        lambda: open_subject("hf://org/tiny@main")
    )
    assert same_model("hf://org/tiny", "org/tiny")
    assert same_model("s3://bucket/models/SmolLM2-135M-Instruct", "smollm2-135m")


def test_a_note_in_another_folder_asks_no_store(model_folder, held, counted, tmp_path):  # noqa: F811
    made = resolve(held(model_folder("llama")))
    copy = shutil.copytree(made, tmp_path / made.name)
    counted.asked.clear()
    assert "no model.safetensors" in line(lambda: Weights(copy))
    assert counted.asked == []
    assert Weights(resolve(str(made))).W_U().shape == (211, 32)


def test_a_visitor_names_no_address(model_folder, held, counted, monkeypatch):  # noqa: F811
    at = held(model_folder("llama"))
    main(["models", "add", "far", at])
    home().joinpath("models").mkdir(exist_ok=True)
    monkeypatch.chdir(home() / "models")  # where "counted:/bucket" would be a folder below
    monkeypatch.setenv(allowed.FOLDERS, os.fspath(home()))
    counted.asked.clear()
    for name in (at, "s3://bucket/model", "hf://org/model"):
        assert "is not allowed here" in line(lambda name=name: resolve(name))
    assert counted.asked == []
    assert open_weights("far").W_U().shape == (211, 32), "its owner added it"


def test_a_name_for_an_address(model_folder, held, capsys, own_home):
    at = held(model_folder("llama"))
    main(["models", "add", "far", at])
    assert capsys.readouterr().out == f"far: {at}, where its weights stay\n"
    main(["models", "list", "--json"])
    listed = json.loads(capsys.readouterr().out)["models"]
    assert {"name": "far", "local": False, "source": at} in listed
    main(["models", "info", "far"])
    assert f"weights stay at {at}" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert catalog.known_as(resolve("far")) == "far"
    assert not catalog.asks_the_hub("far")
    assert catalog.asks_the_hub(at)


WEIGHTS_ALONE = [
    ["directions", "decode", "1.down.17"],
    ["directions", "nearest", "1.down.17"],
    ["directions", "compare", "1.down.17", "0.up.3"],
    ["obsprop", "heads", "--plus", "dog", "--minus", "w3"],
]


@pytest.mark.parametrize("words", WEIGHTS_ALONE, ids=lambda words: " ".join(words[:2]))
def test_commands_that_need_the_weights_alone(words, dog_model, held, capsys, own_home):
    at = held(dog_model)
    said = []
    for model in (str(dog_model), at):
        main([*words, "--model", model, "--json"])
        said.append(capsys.readouterr().out.replace(model, "MODEL"))
    assert said[1] == said[0]
    assert len(json.loads(said[0])) > 1


RUN_THE_MODEL = [
    ["directions", "score", "1.down.17"],
    ["directions", "text", "1.down.17", "--text", "w3 w4"],
    ["lens", "show", "w3 w4", "--lens", "final"],
    ["circuits", "roles"],
]


@pytest.mark.parametrize("words", RUN_THE_MODEL, ids=lambda words: " ".join(words[:2]))
def test_commands_that_run_the_model(words, dog_model, held, capsys, own_home):
    at = held(dog_model)
    assert main([*words, "--model", at]) == 2
    assert f"the weights of {AT} stay where they are" in capsys.readouterr().err
