"""Collections merged, sent and written where something is in the way: nothing is lost without a
word, and the message says whose fault it is."""

import json
import resource
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import pytest
import torch

from interp.directions import Directions, keeping, open_directions
from interp.directions.collections import LONGEST_NOTE, collection_names, open_collection
from interp.directions.keeping import annotate, keep, keep_directions, keep_prompt, remove
from interp.directions.merging import merge
from interp.directions.parcel import export, import_parcel
from interp.directions.provenance import Provenance
from interp.directions.reading import Product, Scale
from interp.errors import UserError
from interp.model.site import Site
from interp.runs.store import Store


def one(seed=0, name="v", width=8):
    vectors = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
    made = Provenance("test", "some-model")
    table = pd.DataFrame({"name": [name], "extra": [seed]})
    return Directions(Site.parse("0.resid_post"), vectors, table, made, Product(Scale(True, 1e-5)))


@contextmanager
def files_of_at_most(size):
    """The system refuses to write larger files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_note_within_a_word_of_the_other_is_kept(own_home):
    keep_directions("a", one(), ["s:0"], note="not dogmatic")
    keep_directions("b", one(), ["s:0"], note="dog", title="the dog one")
    for _ in range(2):  # once more changes nothing
        (entry,) = merge("a", ["b"]).entries
        assert entry.title == "v"
        assert entry.note.split("\n") == ["not dogmatic", "also titled: the dog one", "dog"]


def test_notes_that_are_too_long_together_are_not_cut(own_home):
    keep_directions("a", one(), ["s:0"], note="x" * (LONGEST_NOTE - 5))
    keep_directions("b", one(), ["s:0"], note="y" * 20)
    keep_directions("b", one(9), ["s:9"])
    before = open_collection("a")
    with pytest.raises(UserError, match=r"'v' and the same .* 20,016 characters .* shorten"):
        merge("a", ["b"])
    assert open_collection("a") == before
    assert len(list((before.folder / "directions").iterdir())) == 1


@pytest.mark.parametrize("turned", [False, True])
def test_what_was_kept_from_a_collection_is_its_original(turned, own_home):
    keep_directions("a", one(), ["s:0"], title="here")
    keep("b", f"kept:a:{open_collection('a').entries[0].id}", title="there", note="seen")
    into, other = ("b", "a") if turned else ("a", "b")
    (entry,) = merge(into, [other]).entries
    assert {"here", "there", "seen"} <= {entry.title, *entry.note.replace(": ", "\n").split("\n")}
    keep_directions("b", replace(one(), reading=Product(Scale(True, 1e-4))), ["s:0"])
    assert len(merge("a", ["b"]).entries) == 2  # which scores otherwise


def test_an_id_that_was_taken_out_is_not_given_again(own_home):
    (first,) = keep_directions("u", one(1), title="x")
    remove("u", first.id)
    (second,) = keep_directions("u", one(2), title="x")
    keep_prompt("u", "say x", title="x")
    with pytest.raises(UserError, match="no entry 'x'"):
        open_directions("kept:u:x")
    assert torch.equal(open_directions(f"kept:u:{second.id}").vectors, one(2).vectors)
    keep_directions("other", one(3), title="x")
    merged = merge("u", ["other"])
    ids = [entry.id for entry in merged.entries]
    assert "x" not in ids
    assert len({*ids}) == 3
    keeping.rename("u", "w")
    remove("w", ids[1])
    assert {"x", ids[1]} & {e.id for e in [keep_prompt("w", "again", title="x")]} == set()


def test_what_was_taken_out_is_not_sent(own_home, tmp_path):
    keep_directions("u", one(1), title="a secret")
    keep_directions("u", one(2), title="open")
    remove("u", "a-secret")
    with zipfile.ZipFile(export("u", tmp_path / "u.zip")) as archive:
        assert not any(b"secret" in archive.read(name) for name in archive.namelist())
    (open_collection("u").folder / "taken-out.json").write_text('{"ids": 3}')
    with pytest.raises(UserError, match="'ids' of"):
        keep_directions("u", one(3))


def test_a_title_is_one_line_whoever_gives_it(own_home):
    (entry,) = keep_directions("u", one(), title=" two\n lines\t")
    assert entry.title == "two lines"
    annotate("u", "", entry.id, "other\nlines")
    assert open_collection("u").entries[0].title == "other lines"


def test_a_parcel_that_lists_its_folders_is_taken(own_home, tmp_path):
    keep_directions("a", one())
    export("a", tmp_path / "a.zip")
    listed = tmp_path / "listed.zip"
    with zipfile.ZipFile(tmp_path / "a.zip") as read, zipfile.ZipFile(listed, "w") as write:
        write.mkdir("directions")
        write.mkdir("directions/v")
        for name in read.namelist():
            write.writestr(name, read.read(name))
    assert import_parcel(listed).entries == open_collection("a").entries
    assert torch.equal(open_directions("kept:listed").vectors, one().vectors)
    with zipfile.ZipFile(listed, "a") as write:
        write.mkdir("elsewhere")
    with pytest.raises(UserError, match="'elsewhere/', no file of a collection"):
        import_parcel(listed, "again")


def test_a_store_that_cannot_be_written_is_not_the_senders_fault(own_home, tmp_path):
    keep_directions("a", one(width=4000))
    file = export("a", tmp_path / "sent.zip")
    with files_of_at_most(4096), pytest.raises(UserError, match="cannot write") as refused:
        import_parcel(file)
    assert "sender" not in str(refused.value)
    assert ".zip file" not in str(refused.value)
    assert collection_names(Store()) == ["a"]
    assert import_parcel(file).name == "sent"
    with pytest.raises(UserError, match=r"cannot read none.zip: No such file"):
        import_parcel(tmp_path / "none.zip")


def test_what_cannot_be_kept_leaves_no_collection(own_home):
    with files_of_at_most(4096), pytest.raises(UserError, match="no directions are saved"):
        keep_directions("new", one(width=4000))
    assert not (own_home / "runs" / "collections" / "new").exists()
    keep_directions("old", one())
    with files_of_at_most(64), pytest.raises(UserError, match="the collection is as it was"):
        annotate("old", "a note")
    assert open_collection("old").note == ""


def _denied(*_, **__):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("whole", [True, False])
def test_a_lock_alone_that_can_be_written_ends_in_a_line(whole, own_home, tmp_path, monkeypatch):
    keep_directions("a", one())
    file = export("a", tmp_path / "sent.zip")
    called = "shutil.rmtree" if whole else "tempfile.mkdtemp"
    monkeypatch.setattr(called, _denied)
    with pytest.raises(UserError, match="cannot write .*Permission denied"):
        remove("a") if whole else import_parcel(file)


def test_the_list_of_what_is_gone_is_plain(own_home):
    keep_prompt("u", "say", title="b")
    keep_prompt("u", "say it", title="a")
    for id in ("b", "a"):
        remove("u", id)
    gone = open_collection("u").folder / "taken-out.json"
    assert json.loads(gone.read_text()) == {"ids": ["a", "b"]}
    shutil.rmtree(gone.parent)
