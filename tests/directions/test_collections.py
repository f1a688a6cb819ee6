"""Collections: kept whole or not at all, scored as before, merged, shown and reported."""

import json
import multiprocessing
import shutil
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sae_lens import TopKSAE, TopKSAEConfig

from interp.analyses import analyses
from interp.cli import main
from interp.data import FOLDER
from interp.directions import keeping, open_directions
from interp.directions.collections import (
    checked_address,
    collection_names,
    open_collection,
    open_kept,
)
from interp.directions.encoder import Encoder
from interp.directions.keeping import annotate, keep, keep_directions, keep_prompt, keep_view
from interp.directions.merging import merge
from interp.directions.parcel import export, import_parcel
from interp.directions.provenance import Provenance
from interp.directions.reading import Product, Scale
from interp.directions.sources import content
from interp.errors import UserError
from interp.model.conformance import tiny_model
from interp.model.weights import Weights
from interp.runs.store import Store

from ..manifests import finish_by_hand
from .made import a_set


def test_what_is_kept_is_what_was_found(own_home):
    found = a_set(2, reading=Product(Scale(True, 1e-5)))
    made = keep_directions("two of them", found, ["a:0", "a:1"], note="why")
    assert [entry.id for entry in made] == ["v0", "v1"]
    for row, entry in enumerate(made):
        again = open_directions(f"kept:two of them:{entry.id}")
        assert torch.equal(again.vectors, found.vectors[[row]])
        assert (again.reading, again.site) == (found.reading, found.site)
        assert again.provenance == found.provenance
        assert (entry.model, entry.site, entry.source) == ("some-model", "0.resid_post", f"a:{row}")
    whole = open_directions("kept:two of them")
    assert torch.equal(whole.vectors, found.vectors)
    assert whole.names == ["v0", "v1"]


def test_a_collection_holds_sites_of_all_kinds_but_opens_one_kind_at_a_time(own_home):
    keep_directions("mixed", a_set(1, 1))
    keep_directions("mixed", a_set(1, 2, site="3.mlp_out"))
    with pytest.raises(UserError, match=r"read in 2 ways.*kept:mixed:v0"):
        open_directions("kept:mixed")
    assert str(open_directions("kept:mixed:v0-2").site) == "3.mlp_out"


def an_sae(model):
    torch.manual_seed(0)
    inner = TopKSAE(TopKSAEConfig(d_in=32, d_sae=48, k=6))
    with torch.no_grad():
        inner.W_enc.copy_(torch.randn(32, 48))
        inner.b_enc.copy_(torch.randn(48))
    inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    inner.cfg.metadata.model_name = str(model)
    return inner


def naive_scores(inner, x, latent):
    """relu of the k largest of (x - b_dec) W_enc + b_enc, in numpy."""
    weights = {name: value.detach().double().numpy() for name, value in inner.state_dict().items()}
    pre = (x.double().numpy() - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    kth = np.sort(pre, axis=1)[:, [-6]]
    return np.where(pre >= kth, np.maximum(pre, 0), 0)[:, latent]


def test_a_kept_latent_scores_through_its_encoder(own_home, model_folder):
    inner = an_sae(model_folder("llama"))
    run = finish_by_hand(own_home / "runs", "saes.train", {}, made={"a/sae": inner.save_model})
    (entry,) = keep("latents", f"sae:{run / 'a' / 'sae'}:7")
    assert entry.source == f"sae:run:{run.name}/a/sae:7"
    assert entry.read_as == f"activation in run:{run.name}/a/sae at 0.resid_post"
    kept = open_directions(f"kept:latents:{entry.id}")
    x = torch.randn(40, 32)
    want = naive_scores(inner, x, 7)
    assert 0 < (want > 0).sum() < 40
    np.testing.assert_allclose(kept.scores(x)[:, 0].numpy(), want, atol=1e-4)


def test_a_latent_that_is_sent_scores_in_another_store_and_names_no_path(
    own_home, model_folder, tmp_path, monkeypatch
):
    inner = an_sae("some-model")
    monkeypatch.setattr("interp.directions.sources.open_weights", lambda _: Weights(folder))
    folder = model_folder("llama")
    made = {"a/sae": inner.save_model}
    run = finish_by_hand(own_home / "runs", "saes.train", {}, made=made)
    keep("latents", f"sae:{run / 'a' / 'sae'}:7", title="seven")
    place = FOLDER / "darkmatter/smollm2-135m-14/saes/w3072-k64"
    latent = a_set(1)
    index = latent.index.assign(latent=5)
    latent = replace(latent, index=index, reading=Encoder(str(place)))
    keep_directions("latents", latent, title="ships")
    file = export("latents", tmp_path / "sent.zip")
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert str(own_home).encode() not in content, name
            assert str(FOLDER).encode() not in content, name
    elsewhere = Store(tmp_path / "elsewhere")
    import_parcel(file, "taken", elsewhere)
    taken = open_directions("kept:taken:seven", store=elsewhere)
    run.rename(tmp_path / "away")
    with pytest.raises(UserError, match=f"there is no run '{run.name}'"):
        taken.scores(torch.randn(2, 32))
    there = elsewhere.root / "saes.train" / run.name
    there.parent.mkdir()
    shutil.copytree(tmp_path / "away", there)
    x = torch.randn(40, 32)
    again = open_directions("kept:taken:seven", store=elsewhere)
    np.testing.assert_allclose(again.scores(x)[:, 0].numpy(), naive_scores(inner, x, 7), atol=1e-4)
    assert again.decode(Weights(folder), 3)["name"].tolist() == ["seven"]
    assert open_directions("kept:taken:ships", store=elsewhere).reading.opened.d_sae == 3072


def test_prompts_and_views_stand_beside_directions(own_home):
    keep_directions("all", a_set(1))
    prompt = keep_prompt("all", "The dog\nbarks", "some-model", title="a dog")
    view = keep_view("all", "/atlas?word=dog", "dogs")
    for page in (page for entry in analyses().values() for page in entry.pages):
        checked_address(f"/{page.address}?a=b%20c+d")
    found = open_collection("all")
    assert [entry.kind for entry in found.entries] == ["direction", "prompt", "view"]
    assert found.entry(prompt.id).text == "The dog\nbarks"
    assert found.entry(view.id).address == "/atlas?word=dog"
    with pytest.raises(UserError, match="is a prompt, no direction"):
        open_kept(f"kept:all:{prompt.id}", Store())
    for address in ("https://evil.example", "//evil.example/a", "javascript:alert(1)", ""):
        with pytest.raises(UserError, match="no view of this app"):
            keep_view("all", address)


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", ".hidden", "x" * 99, "a\0b", "a:b", "a\nb", "a."]
)
def test_a_name_is_a_plain_file_name(name, own_home):
    with pytest.raises(UserError, match="cannot be a collection's name"):
        keep_directions(name, a_set(1))
    assert not list((own_home / "runs").rglob("directions.json"))


def _many(number):
    for n in range(5):
        keep_prompt("shared", f"prompt {number} {n}")


def test_two_writers_at_once_lose_nothing(own_home):
    processes = [
        multiprocessing.get_context("fork").Process(target=_many, args=(i,)) for i in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = open_collection("shared")
    assert {entry.text for entry in found.entries} == {
        f"prompt {i} {n}" for i in range(4) for n in range(5)
    }
    assert len({entry.id for entry in found.entries}) == 20


def _full(_):
    raise UserError("full")


def test_what_fails_on_the_way_leaves_the_collection_as_it_was(own_home, monkeypatch):
    keep_directions("safe", a_set(1, 1))
    before = open_collection("safe")
    with monkeypatch.context() as patched:
        patched.setattr(keeping, "write_list", _full)
        with pytest.raises(UserError, match="full"):
            keep_directions("safe", a_set(1, 2))
    assert open_collection("safe") == before
    (new,) = keep_directions("safe", a_set(1, 3))  # in the place of what nothing names
    assert torch.equal(open_directions(f"kept:safe:{new.id}").vectors, a_set(1, 3).vectors)


def test_merged_once_each_with_both_notes(own_home):
    keep_directions("a", a_set(2, 1), ["s:0", "s:1"], note="one")
    keep_directions("b", a_set(2, 1).pick([0]), ["s:0"], note="other")
    keep_directions("b", a_set(1, 9), ["t:0"])
    merged = merge("a", ["b"])
    assert [entry.title for entry in merged.entries] == ["v0", "v1", "v0"]
    vectors = [open_directions(f"kept:a:{entry.id}").vectors[0] for entry in merged.entries]
    assert torch.equal(vectors[0], a_set(2, 1).vectors[0])
    assert torch.equal(vectors[2], a_set(1, 9).vectors[0])
    assert len(open_collection("b").entries) == 2
    assert merge("new", ["a", "b"]).entries[0].note == merged.entries[0].note


def test_merging_keeps_both_notes_of_what_is_the_same(own_home):
    for name, note in (("a", "one"), ("b", "other")):
        keep_directions(name, a_set(1, 1), ["s:0"], note=note)
    (entry,) = merge("a", ["b"]).entries
    assert entry.note == "one\nother"


def of_constant(constant, reading=None, model="some-model"):
    made = a_set(1, 1, reading=reading)
    index = made.index.assign(constant=constant)
    return replace(made, index=index, provenance=Provenance("test", model))


@pytest.mark.parametrize(
    "other",
    [
        of_constant(5.0),
        of_constant(0.0, Product(Scale(False, 1e-6))),
        of_constant(0.0, model="another"),
    ],
    ids=["constant", "reading", "model"],
)
def test_merging_keeps_what_scores_otherwise(other, own_home):
    """Of one vector, one source and one site; x . v + 5 is not x . v."""
    keep_directions("a", of_constant(0.0), ["s:0"])
    keep_directions("b", other, ["s:0"])
    merged = merge("a", ["b"])
    assert len(merged.entries) == 2
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    product = x.double() @ other.vectors[0].double()
    norm = x.double().square().mean(1).add(1e-6).sqrt() if other.reading.norm else 1
    want = product / norm + other.index["constant"][0]
    second = open_directions(f"kept:a:{merged.entries[1].id}")
    torch.testing.assert_close(second.scores(x)[:, 0], want, rtol=1e-6, atol=1e-6)
    assert len(merge("a", ["b"]).entries) == 2  # once more changes nothing


def test_what_a_collection_holds_twice_it_holds_after_merging(own_home):
    keep_directions("a", a_set(1, 1), ["s:0"], note="one")
    keep_directions("a", a_set(1, 1), ["s:0"], note="two")
    keep_directions("b", a_set(1, 2), ["t:0"])
    assert [entry.note for entry in merge("a", ["b"]).entries] == ["one", "two", ""]


@pytest.mark.parametrize("named", [True, False])
def test_directions_of_two_models_are_no_one_set(named, own_home, model_folder):
    """Two models of one family and width: their sites and readings agree, their spaces do not."""
    folders = [str(model_folder("llama")), str(own_home / "second")]
    torch.manual_seed(7)
    tiny_model("llama").save_pretrained(folders[1])
    for number, folder in enumerate(folders):
        made = open_directions("1.gate.3", folder)
        about = made.provenance if named else replace(made.provenance, fingerprint="")
        keep_directions("mix", replace(made, provenance=about), title=f"m{number}")
    with pytest.raises(UserError, match=r"kept:mix holds directions of several models") as refused:
        open_directions("kept:mix")
    said = str(refused.value)
    assert "kept:mix:m0" in said
    assert all(folder in said for folder in folders)
    assert "\n" not in said
    assert open_directions("kept:mix:m1").model == folders[1]


def test_what_stands_together_says_only_what_all_of_it_says(own_home):
    for number in range(2):
        each = a_set(1, number)
        made = replace(each.provenance, run=f"s/{number}", notes={"why": number, "of": "both"})
        keep_directions("runs", replace(each, provenance=made))
    whole = open_directions("kept:runs").provenance
    assert whole == Provenance("test", "some-model", notes={"of": "both"})


def test_notes_titles_names_and_removal(own_home):
    keep_directions("a", a_set(2))
    annotate("a", "about all")
    annotate("a", "about one", "v0", "first")
    found = keeping.rename("a", "b")
    assert (found.note, found.entry("v0").note, found.entry("v0").title) == (
        *("about all", "about one", "first"),
    )
    assert collection_names(Store()) == ["b"]
    keeping.remove("b", "v0")
    assert [entry.id for entry in open_collection("b").entries] == ["v1"]
    assert not (open_collection("b").folder / "directions" / "v0").exists()
    keeping.remove("b")
    assert collection_names(Store()) == []
    with pytest.raises(UserError, match="there is no collection 'b'"):
        keeping.remove("b")


def test_another_title_is_another_content(own_home):
    """Directions that are kept bear their titles as names, in every table."""
    keep_directions("a", a_set(1))
    before = content("kept:a"), open_directions("kept:a").identity
    annotate("a", "", "v0", "first")
    assert open_directions("kept:a").names == ["first"]
    after = content("kept:a"), open_directions("kept:a").identity
    assert not {*before} & {*after}
    assert after == (content("kept:a"), open_directions("kept:a").identity)


def test_a_link_in_a_collection_is_not_followed(own_home, tmp_path):
    keep_directions("a", a_set(1))
    folder = open_collection("a").folder / "directions" / "v0"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        open_directions("kept:a:v0")


def test_too_many_directions_at_once_are_refused(own_home, monkeypatch):
    monkeypatch.setattr(keeping, "AT_ONCE", 2)
    a_set(3).save(own_home / "set")
    with pytest.raises(UserError, match="names 3 directions: name at most 2"):
        keep("a", str(own_home / "set"))
    assert [e.source for e in keep("a", f"{own_home / 'set'}:2")] == [f"{own_home / 'set'}:2"]


def test_the_command_keeps_shows_merges_and_sends(own_home, capsys, tmp_path):
    a_set(2).save(own_home / "set")

    def ask(*words):
        assert main(["keep", *words, "--json"]) == 0, words
        return SimpleNamespace(**json.loads(capsys.readouterr().out))

    assert ask("add", "x", str(own_home / "set"), "--note", "n").metrics == {"entries": 2}
    assert ask("add", "x", "--prompt", "hello", "--title", "t").entries[0]["text"] == "hello"
    assert ask("list").collections == [{"name": "x", "entries": 3, "note": ""}]
    assert [e["id"] for e in ask("show", "x").entries] == ["v0", "v1", "t"]
    ask("note", "x", "v0", "--text", "changed")
    assert ask("show", "x").entries[0]["note"] == "changed"
    assert ask("merge", "y", "x").metrics == {"entries": 3}
    assert ask("export", "y", str(tmp_path / "y.zip")).file == str(tmp_path / "y.zip")
    assert ask("import", str(tmp_path / "y.zip"), "--name", "z").name == "z"
    ask("rename", "z", "w")
    ask("remove", "w", "t")
    assert len(ask("show", "w").entries) == 2
    assert main(["keep", "remove", "w"]) == 2
    assert "give --yes" in capsys.readouterr().err
    ask("remove", "w", "--yes")
    assert [c["name"] for c in ask("list").collections] == ["x", "y"]
    assert main(["keep", "add", "x"]) == 2


def test_a_report_holds_notes_tokens_and_cosines_and_runs_nothing(dog_model, own_home, capsys):
    keep("a", "1.down.17", str(dog_model), note="<script>alert(1)</script> barks")
    keep("a", "1.up.4", str(dog_model))
    keep_directions("a", a_set(1, names=["of nobody"]))
    keep_prompt("a", "say dog", note="asked")
    out = own_home / "a.html"
    assert main(["keep", "report", "a", str(out)]) == 0
    told = out.read_text()
    assert "<script>alert(1)" not in told
    for text in ("barks", "say dog", "asked", "1.down.17", "kept:a:1.up.4", "they are of two"):
        assert text in told, text
    assert "tokens" in told  # of the one whose model is not here, why there are none
    assert "http://" not in told.partition("<script")[0]
