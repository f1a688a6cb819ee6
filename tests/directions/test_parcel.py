"""Collections as one file: taken as they were sent, and what a stranger sends read with care."""

import io
import json
import zipfile

import pytest
import torch

from interp.directions import open_directions
from interp.directions.collections import collection_names, open_collection
from interp.directions.keeping import keep_directions, keep_prompt
from interp.directions.parcel import export, import_parcel, packed
from interp.directions.reading import Product, Scale
from interp.errors import UserError
from interp.runs.store import Store

from .made import a_set


def test_sent_and_taken(own_home, tmp_path):
    keep_directions("a", a_set(2, 5, reading=Product(Scale(False, 1e-6))), note="é\n# no heading")
    keep_prompt("a", "say it")
    file = export("a", tmp_path / "sent.zip")
    assert file.read_bytes() == packed(open_collection("a"))
    taken = import_parcel(file)
    assert taken.name == "sent"
    assert taken.entries == open_collection("a").entries
    assert torch.equal(open_directions("kept:sent").vectors, a_set(2, 5).vectors)
    with pytest.raises(UserError, match="there is a collection 'sent' already"):
        import_parcel(file)
    assert import_parcel(io.BytesIO(file.read_bytes()), "third").entries == taken.entries


def _spoiled(own_home, tmp_path, change):
    keep_directions("a", a_set(1))
    members = {}
    with zipfile.ZipFile(export("a", tmp_path / "a.zip")) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    path = tmp_path / "spoiled.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _set(name, value):
    return lambda members: members.__setitem__(name, value)


def _entries(change):
    def spoil(members):
        about = json.loads(members["collection.json"])
        change(about["entries"][0])
        members["collection.json"] = json.dumps(about).encode()

    return spoil


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("../out.txt", b"x"), "no file of a collection"),
        (_set("/etc/x", b"x"), "no file of a collection"),
        (_set("directions/../directions.json", b"{}"), "no file of a collection"),
        (_set("directions/a\\b/index.parquet", b"x"), "no file of a collection"),
        (_set("directions/v0/run.sh", b"x"), "no file of a collection"),
        (_set("directions/v0/vectors.safetensors", b"x"), "."),
        (lambda members: members.pop("directions/v0/index.parquet"), "holds no directions"),
        (lambda members: members.pop("collection.json"), "has no collection.json"),
        (_set("collection.json", b"[]"), "not an object"),
        (_set("collection.json", b'{"schema": 1, "entries": [1]}'), "not an object"),
        (_entries(lambda entry: entry.update(id="../x")), "no proper id"),
        (_entries(lambda entry: entry.update(kind="program")), "no direction, prompt or view"),
        (_entries(lambda entry: entry.update(address="https://a.b")), "no view of this app"),
        (_entries(lambda entry: entry.update(note="x" * 30_000)), "too long"),
        (_entries(lambda entry: entry.update(more=1)), "not known"),
        (_entries(lambda entry: entry.update(title=None)), "missing or null"),
    ],
)
def test_what_a_stranger_sends_is_refused_whole(change, says, own_home, tmp_path):
    path = _spoiled(own_home, tmp_path, change)
    with pytest.raises(UserError, match=says):
        import_parcel(path)
    assert collection_names(Store()) == ["a"]
    assert [p.name for p in (own_home / "runs" / "collections").iterdir() if p.is_dir()] == ["a"]
    assert not (own_home / "runs" / "out.txt").exists()


def test_a_bomb_an_encrypted_file_and_no_zip_at_all(own_home, tmp_path, monkeypatch):
    path = _spoiled(own_home, tmp_path, lambda members: None)
    for name, value, says in (("LARGEST", 100, "holds more"), ("MOST", 0, "more than a coll")):
        with monkeypatch.context() as patched:
            patched.setattr(f"interp.directions.parcel.{name}", value)
            with pytest.raises(UserError, match=says):
                import_parcel(path)
    locked = bytearray(path.read_bytes())
    locked[locked.index(b"PK\1\2") + 8] |= 1  # the central directory's flag
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(UserError, match="is encrypted"):
        import_parcel(tmp_path / "locked.zip")
    (tmp_path / "none.zip").write_text("hello")
    with pytest.raises(UserError, match="cannot read none.zip as a .zip file"):
        import_parcel(tmp_path / "none.zip")
