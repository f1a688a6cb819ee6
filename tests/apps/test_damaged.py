"""A sealed run of anybody's whose parts hold nothing, or what is no table: one line in its place.
And what a browser may send into a box."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from interp.runs.disk import sha256

from ..circuits.planted import write_run
from ..manifests import finish_by_hand, seal_again
from .views import opened


def show(module):
    from importlib import import_module

    import_module(f"interp.apps.{module}").page()


def shown(module, tab=None):
    page = AppTest.from_function(show, args=(module,), default_timeout=120)
    page = opened(page, tab) if tab else page.run()
    assert not page.exception
    return page


def explained(store):
    """A small run of linearscope.explain."""
    classes = pd.DataFrame({"class": [7], "label": ["cat"], "probability": [0.5], "votes": [1.0]})
    layers = pd.DataFrame({"class": [7, 7], "module": ["a.b", ""], "value": [1.0, -2.0]})
    maps = {"votes": np.ones((1, 3, 4, 4), "f4"), "picture": np.zeros((4, 4, 3), "u1")}
    made = {"classes.parquet": classes.to_parquet, "layers.parquet": layers.to_parquet}
    made["maps.safetensors"] = lambda path: save_file(maps, path)
    return finish_by_hand(store, "linearscope.explain", {"model": "m", "image": "i"}, made=made)


def replaced(folder, name, write):
    """The run with another part, sealed anew."""
    write(folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    about = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    seal_again(folder, manifest | {"files": manifest["files"] | {name: about}})


def without_values(path):
    rows = pd.read_parquet(path).astype(object)
    rows.loc[:] = None
    rows.to_parquet(path)


def without_rows(path):
    pd.read_parquet(path).head(0).to_parquet(path)


def no_file(path):
    path.write_bytes(b"PAR1 no table, no tensors")


def test_a_sound_run_is_shown(own_home):
    explained(own_home / "runs")
    page = shown("linearscope", "Votes")
    assert not page.error
    assert len(page.get("plotly_chart")) == 2


TABLES = ("classes.parquet", "layers.parquet")


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *((name, harm) for name in TABLES for harm in (without_values, without_rows, no_file)),
        ("maps.safetensors", no_file),
    ],
)
def test_a_damaged_part_is_one_line_in_its_place(own_home, name, harm):
    folder = explained(own_home / "runs")
    replaced(folder, name, harm)
    page = shown("linearscope", "Votes")
    assert not page.exception
    if harm is without_rows and not page.error:  # what is empty may be drawn as such
        return
    (error,) = page.error
    assert "cannot be" in error.value
    assert "\n" not in error.value


@pytest.mark.parametrize("metric", ["share", "largest error of a cut"])
def test_a_metric_that_is_nothing_is_one_line(own_home, metric):
    folder = write_run(own_home / "runs")
    manifest = json.loads((folder / "manifest.json").read_text())
    seal_again(folder, manifest | {"metrics": manifest["metrics"] | {metric: None}})
    (error,) = shown("circuits").error
    assert "a part is damaged" in error.value.replace("\\", "")


def test_a_fault_of_a_page_without_a_run_is_no_damaged_run():
    def faulty():
        from interp.apps.common import errors_in_place

        with errors_in_place():
            int(None)

    assert AppTest.from_function(faulty).run().exception


@pytest.mark.parametrize(
    ("module", "tab", "button"),
    [
        ("circuits", None, "Trace"),
        ("heads", "Patching", "Patch"),
        ("heads", "Every head", "Score its heads"),
        ("lens", "A prompt", "Read"),
    ],
)
def test_a_very_long_name_of_a_model_is_one_line(own_home, module, tab, button):
    page = shown(module, tab)
    for box in page.main.text_input:
        box.set_value("x" * 10_000 if box.label == "Model" else "a b")
    next(each for each in page.button if each.label == button).click()
    page.run()
    one_line(page)


def test_so_it_is_in_a_box_that_answers_at_once(own_home):
    page = AppTest.from_function(show, args=("obsprop",), default_timeout=120)
    page.session_state["?of"] = "x" * 10_000
    one_line(opened(page, "Type one"))


def one_line(page):
    assert not page.exception
    said = next(each.value for each in page.error if "xxx" in each.value)
    assert len(said) < 2000


def test_an_upload_that_is_no_picture_leaves_nothing(own_home):
    from interp.apps.linearscope import _kept
    from interp.errors import UserError

    with pytest.raises(UserError, match="cannot be read as a picture"):
        _kept("junk.png", b"junk")
    assert not (own_home / "runs").exists()
