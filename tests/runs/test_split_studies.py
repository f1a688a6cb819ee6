"""Every study with a model that is split: the same run, or one line that says why not."""

from dataclasses import fields, replace

import pytest

from interp.errors import UserError
from interp.runs.store import Store
from interp.runs.study import run_or_load

from .small_studies import LONG, PICTURES, REFUSED, SMALL, kinds, settings

TAKES = [
    pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
    for name, kind in kinds().items()
    if "device" in {field.name for field in fields(kind)} and name not in PICTURES
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory, dog_model):
    return settings(tmp_path_factory.mktemp("split"), dog_model)


@pytest.fixture(autouse=True)
def small(monkeypatch, own_home):
    for module, sizes in SMALL.items():
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("study", TAKES)
def test_a_split_model_gives_the_same_run_or_says_why_not(study, asked, tmp_path):
    config = kinds()[study](**asked[study]())
    split = replace(config, device="split:0")
    if study in REFUSED:
        with pytest.raises(UserError, match=REFUSED[study]):
            run_or_load(split, Store(tmp_path / "split"))
        return
    one, other = (
        run_or_load(each, Store(tmp_path / name))
        for name, each in (("whole", config), ("split", split))
    )
    hashes = [{n: f["sha256"] for n, f in run.manifest["files"].items()} for run in (one, other)]
    assert hashes[0] == hashes[1]
    assert one.manifest["key"] == other.manifest["key"]
    assert other.config["device"] == "split:0"


@pytest.mark.parametrize("study", PICTURES)
def test_networks_of_pictures_are_not_split(study):
    with pytest.raises(UserError, match="is for models of text"):
        kinds()[study](device="split").check()
