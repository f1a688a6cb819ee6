"""The lens page, without a browser."""

import pytest
from streamlit.testing.v1 import AppTest

from interp.directions import stored_directions
from interp.lens.compare import LensCompareConfig
from interp.lens.grid import ShowConfig
from interp.lens.tune import TuneConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load


def lens_page():
    from interp.apps.lens import page

    page()


@pytest.fixture
def runs(dog_model, own_home, text, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    sizes = {"corpus": text, "length": 12, "skip": 2, "positions": 4}
    tuned = run_or_load(TuneConfig(str(dog_model), prompts=4, held_out=1, **sizes))
    run_or_load(LensCompareConfig(str(dog_model), ("final",), documents=2, after=3, **sizes))
    return tuned


def test_a_prompt_is_read_and_a_direction_kept(runs, dog_model, monkeypatch):
    shown = AppTest.from_function(lens_page, default_timeout=120).run()
    assert "No finished run of lens" in shown.info[0].value.replace("\\", "")
    shown.text_input(key="typed").set_value("w3 dog w5")
    shown.text_input(key="model").set_value(str(dog_model))
    shown.selectbox(key="lens").set_value(str(runs.path))
    shown.button[0].click().run()
    assert not shown.exception
    run = Store().newest(ShowConfig.STUDY, "")
    assert run.manifest["lens"]["name"] == "tuned"
    said = " ".join(each.value.replace("\\", "") for each in shown.caption)
    assert f"tuned lens, fitted on 4 passages ({runs.path / 'lens.safetensors'})" in said
    # a selection of a row cannot be made without a browser
    monkeypatch.setattr("interp.apps.lens._picked", lambda event: [0])
    shown.run()
    shown.button(key="keep").click().run()
    assert not shown.exception
    assert not shown.error
    assert [folder.name for folder in stored_directions(Store())] == ["directions"]


def test_a_lens_that_no_stored_run_has_is_not_opened(runs, dog_model, tmp_path):
    from interp.apps.lens import _known
    from interp.errors import UserError

    with pytest.raises(UserError, match="choose one of the list"):
        _known(str(tmp_path / "lens.pt"))
    assert _known(str(runs.path)) == str(runs.path)
