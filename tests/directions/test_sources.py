"""Directions by a text: sets of stored runs and collections, without machine paths."""

import json
import shutil
from functools import partial

import pandas as pd
import pytest
import torch

from interp.cli import main
from interp.data import FOLDER
from interp.directions import Directions, open_directions
from interp.directions.provenance import Provenance
from interp.directions.sets import chosen_rows, portable, sae_place, sae_text
from interp.directions.singles import singles
from interp.directions.sources import content
from interp.errors import UserError
from interp.model.site import Site
from interp.runs.store import Store

from ..manifests import finish_by_hand


def a_set(n=3, seed=0, names=None, site="0.resid_post"):
    vectors = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    index = pd.DataFrame({"name": names or [f"v{i}" for i in range(n)]})
    return Directions(Site.parse(site), vectors, index, Provenance("test"))


def stored(root, *sets, study="some.study", **config):
    """A finished run with sets of directions by name."""
    scratch, made = root.parent / "made", {}
    for name, directions in sets:
        directions.save(scratch / name)
        for path in (scratch / name).iterdir():
            made[f"{name}/{path.name}"] = partial(shutil.copy, path)
    return finish_by_hand(root, study, config, made=made)


def test_every_stored_direction_has_a_text_of_its_own(own_home):
    one, two = a_set(3, 1), a_set(2, 2)
    run = stored(own_home / "runs", ("directions", one), ("more/deep", two))
    for name, want in (("directions", one), ("more/deep", two)):
        texts = singles(f"run:{run.name[:6]}/{name}", want)
        assert texts == [f"run:{run.name}/{name}:{row}" for row in range(len(want))]
        for row, text in enumerate(texts):
            assert torch.equal(open_directions(text).vectors, want.vectors[[row]])
    # the folder's path becomes the same text, and rows keep their numbers
    assert singles(str(run / "directions"), one)[2] == f"run:{run.name}/directions:2"
    some = open_directions(f"run:{run.name}/directions:2,0")
    assert some.names == ["v2", "v0"]
    assert singles(f"run:{run.name}/directions:v2,0", some) == [
        f"run:{run.name}/directions:2",
        f"run:{run.name}/directions:0",
    ]


def test_the_only_set_of_a_run_needs_no_name(own_home):
    want = a_set()
    run = stored(own_home / "runs", ("found/here", want))
    assert torch.equal(open_directions(f"run:{run.name[:4]}").vectors, want.vectors)
    assert singles(f"run:{run.name}", want)[1] == f"run:{run.name}:1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run:", "write run:KEY"),
        ("run:ffffffffffff", "there is no run"),
        ("run:KEY", "has 2 sets"),
        ("run:KEY/nothing", "has no set 'nothing'"),
        ("run:KEY/../../other.study/x", "has no set"),
        ("run:KEY//etc", "has no set"),
        ("run:../KEY", "write run:KEY"),
        ("run:KEY/a:9", "no direction '9'"),
        ("run:KEY/a:-1", "no direction '-1'"),
        ("run:KEY/a:nobody", "no direction 'nobody'"),
    ],
)
def test_a_path_never_leaves_the_run(text, says, own_home):
    run = stored(own_home / "runs", ("a", a_set()), ("b", a_set()))
    a_set().save(own_home / "runs" / "other.study" / "x")
    with pytest.raises(UserError, match=says):
        open_directions(text.replace("KEY", run.name))


def test_a_folder_of_the_current_directory_is_no_run(own_home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = stored(own_home / "runs", ("directions", a_set()))
    (tmp_path / run.name[:4]).mkdir()
    assert len(open_directions(f"run:{run.name[:4]}")) == 3


def test_rows_are_numbers_or_names():
    names = ["a", "b, c", "7", " are"]
    assert chosen_rows("", names) == [0, 1, 2, 3]
    assert chosen_rows("b, c", names) == [1]
    assert chosen_rows("3,a", names) == [3, 0]
    assert chosen_rows(" are", names) == [3]
    assert chosen_rows("2", names) == [2]  # numbers count rows
    with pytest.raises(UserError, match="'9' among these 4"):
        chosen_rows("9", names)


def test_an_sae_of_a_run_has_a_text_without_a_path(own_home):
    run = finish_by_hand(
        own_home / "runs",
        "saes.train",
        {},
        made={"saes/k4/cfg.json": lambda path: path.write_text("{}")},
    )
    text = sae_text(str(run / "saes" / "k4"), Store())
    assert text == f"run:{run.name}/saes/k4"
    assert sae_place(text, Store()) == str(Store().root / "saes.train" / run.name / "saes" / "k4")
    assert sae_text("release:id", Store()) == "release:id"
    for wrong in (f"run:{run.name}/../x", f"run:{run.name}/nothing", "shipped:../x"):
        with pytest.raises(UserError):
            sae_place(wrong, Store())


def test_a_text_loses_the_path_of_this_machine(own_home):
    run = stored(own_home / "runs", ("directions", a_set()), ("b", a_set()))
    store, place = Store(), own_home / "runs" / "some.study" / run.name
    for given, want in (
        (f"{place}/b:1", f"run:{run.name}/b:1"),
        (f"{place}/b", f"run:{run.name}/b"),
        (f"sae:{place}/saes/k4:7,8", f"sae:run:{run.name}/saes/k4:7,8"),
        (f"sae:{place}/saes/k4", f"sae:run:{run.name}/saes/k4"),
        (f"sae:{FOLDER}/darkmatter/x:7", "sae:shipped:darkmatter/x:7"),
        ("sae:/elsewhere/x:7", "sae:/elsewhere/x:7"),
        ("/elsewhere/set:1", "/elsewhere/set:1"),
        ("29.down.808", "29.down.808"),
    ):
        assert portable(given, store) == want


def test_content_changes_with_the_files_and_not_with_the_path(own_home):
    folder = own_home / "set"
    a_set(seed=1).save(folder)
    before = content(str(folder))
    assert content(str(folder)) == before
    a_set(seed=2).save(folder)
    assert content(str(folder)) != before
    a_set(seed=1).save(folder)
    assert content(str(folder)) == before


def test_commands_take_the_store_that_is_named(own_home, capsys, monkeypatch):
    run = stored(own_home / "other", ("directions", a_set(2, 3)))
    text = f"run:{run.name}"
    where = ["--runs", str(own_home / "other"), "--json"]
    assert main(["directions", "compare", text, text, *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["cosine"] for row in told["results"][:2]] == pytest.approx([1, 1])
    assert main(["directions", "list", *where]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["source"] == text
    assert main(["directions", "compare", text, text]) == 2
