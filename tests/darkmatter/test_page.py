"""The page of SAE errors, without a browser, on stored runs of planted errors."""

import json

import pytest
from streamlit.testing.v1 import AppTest

from interp.runs.disk import sha256
from interp.runs.store import Store

from ..apps.views import opened
from ..figures import figure_names
from ..manifests import seal_again
from .planted import stored_runs


def darkmatter_page():
    from interp.apps.darkmatter import page

    page()


@pytest.fixture
def runs(own_home):
    return stored_runs(Store())


def shown(tab="Errors"):
    page = opened(AppTest.from_function(darkmatter_page, default_timeout=120), tab)
    assert not page.exception
    assert not page.error
    return page, " ".join(caption.value for caption in page.caption).replace("\\", "")


def test_the_page_says_what_it_shows(runs):
    page, captions = shown()
    assert "Intervals resample documents: 8, and 2 for the cost in nats" in captions
    assert "(fewer than 3 documents: no interval)" in captions
    assert "fewer than three widths: what falls with width is not known" in captions
    code = "\n".join(block.value for block in page.code)
    assert "interp darkmatter run --model othello-gpt --saes" in code
    assert "summary(run)" in code
    code = "\n".join(block.value for block in shown("Planted faults")[0].code)
    assert "interp darkmatter synthetic --model othello-gpt" in code
    code = "\n".join(block.value for block in shown("SAEs of the error")[0].code)
    assert "interp darkmatter errors" in code, "there is no such run: how to make one"


def test_the_runs_figures_are_drawn(runs):
    names = [figure_names(run) for run in runs]
    assert names == [{"bands", "vectors", "norms", "downstream"}, {"fvu", "fvu_nonlinear"}]


def test_a_version_1_run_still_opens(runs):
    """It lacks the number of documents, and its tables the column `unit`."""
    path = runs[0].path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["documents"]
    for name in ("measures", "scaling", "downstream"):
        file = runs[0].path / f"{name}.parquet"
        runs[0].table(name).drop(columns="unit").to_parquet(file)
        about = {"bytes": file.stat().st_size, "sha256": sha256(file)}
        manifest["files"][file.name] = about
    seal_again(path.parent, manifest)
    _, captions = shown()
    assert "30 % measured." in captions
    assert "documents" not in captions
