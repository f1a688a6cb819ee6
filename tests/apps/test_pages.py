"""What the pages share, without a browser."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from interp.analyses import label
from interp.apps import common, offering, picking, words
from interp.directions import Directions
from interp.directions.provenance import Provenance
from interp.model.site import Site
from interp.model.weights import open_weights
from interp.runs.writer import keep_journal

from ..manifests import finish_by_hand


def test_two_questions_with_the_same_arguments_have_two_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "open_run", lambda path: path)
    run = SimpleNamespace(path=tmp_path, manifest={"finished": "now"})

    def one(run, word):
        return f"one {word}"

    def two(run, word):
        return f"two {word}"

    assert [common.cached(question)(run, "x") for question in (one, two)] == ["one x", "two x"]


def of_an_older_run():
    import pandas as pd

    from interp.apps.common import errors_in_place

    with errors_in_place():
        pd.DataFrame({"a": [1]})["template"]


def test_what_an_older_run_lacks_is_said_in_place():
    shown = AppTest.from_function(of_an_older_run).run()
    assert not shown.exception
    assert "no 'template'" in shown.error[0].value.replace("\\", "")


def test_a_call_leaves_out_what_a_study_no_longer_has(monkeypatch):
    monkeypatch.delenv("INTERP_RUNS", raising=False)
    command, call = offering.study_call("darkmatter.errors", {"k": 7, "earlier": ["x"]})
    assert command == ["interp", "darkmatter", "errors", "--k", "7"]
    assert "run_or_load(ErrorSaesConfig(k=7))" in call


def test_a_call_names_the_store_that_is_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path))
    command, call = offering.study_call("darkmatter.errors", {"k": 7})
    assert command[-2:] == ["--runs", str(tmp_path)]
    assert f"run_or_load(ErrorSaesConfig(k=7), Store(Path({str(tmp_path)!r})))" in call


@pytest.fixture
def models(model_folder, own_home):
    return [str(model_folder("llama", hidden_size=width)) for width in (32, 64)]


def steer_page():
    from interp.apps.steer import page

    page()


def test_directions_of_another_model_are_said_to_be(models, own_home):
    index = pd.DataFrame({"name": ["d"]})
    about = Provenance.of("test", open_weights(models[0]))
    Directions(Site("resid_post", 0), torch.randn(1, 32), index, about).save(own_home / "set")
    for model, warned in zip(models, (0, 1), strict=True):
        shown = AppTest.from_function(steer_page, default_timeout=120)
        shown.session_state["chosen model"] = model
        shown.query_params["edits"] = f"add {own_home / 'set'}:0=2"
        shown.run()
        assert not shown.exception
        assert len(shown.warning) == warned
    assert "This direction is of" in shown.warning[0].value


def home_page():
    from interp.apps.home import page

    page()


def test_the_first_page_names_a_run_that_it_passes_over(own_home):
    finish_by_hand(own_home / "runs", "a.b", {"model": "sound"})
    damaged = finish_by_hand(own_home / "runs", "a.b", {"model": "other"})
    (damaged / "manifest.json").write_text("{}")
    shown = AppTest.from_function(home_page).run()
    assert not shown.exception
    assert damaged.name in shown.warning[0].value
    stored = shown.dataframe[0].value
    assert stored["model"][stored["finished"] != "shipped"].tolist() == ["sound"]


def test_the_memory_of_a_run_is_said_to_be_without_its_workers(own_home):
    by_two = {"config": {"model": "m", "workers": "2"}, "peak_memory_bytes": 300 << 20}
    finish_by_hand(own_home / "runs", "a.b", **by_two)
    shown = AppTest.from_function(home_page).run()
    assert not shown.exception
    table = shown.dataframe[0]
    assert 300 in table.value["memory of its process, MiB"].tolist()
    about = json.loads(table.proto.columns)["memory of its process, MiB"]
    assert "without its --workers" in about["help"]


def test_a_picture_with_many_panels_has_the_whole_width(own_home):
    """The shipped comparison has six: in half a page they cannot be read."""
    shown = AppTest.from_function(home_page, default_timeout=120).run()
    assert not shown.exception
    half = [c for column in shown.columns if column.weight < 1 for c in column.get("plotly_chart")]
    assert max(map(panels, shown.get("plotly_chart"))) > 2 >= max(map(panels, half), default=0)


def panels(chart):
    return sum(name.startswith("xaxis") for name in json.loads(chart.proto.spec)["layout"])


def test_runs_that_lack_what_a_page_needs_are_said_to(own_home):
    def page():
        from interp.apps.picking import pick_run

        pick_run("othello.compare", fits=lambda run: False, lacks="the probes and latents")

    shown = AppTest.from_function(page).run()
    (said,) = [info.value.replace("\\", "") for info in shown.info]
    assert said == (
        "A run of othello.compare is here, and ships with the workbench, but without the probes "
        "and latents, which this page needs. Make one:"
    )


def test_a_run_s_label_has_words_and_no_switch_that_is_off():
    def run(key, **config):
        manifest = {"finished": "2026-01-01T00:00:00", "key": key}
        own = {"study": "neurons.atlas", "path": Path(key), "manifest": manifest}
        return SimpleNamespace(**own, config={"model": "m", **config})

    runs = [run("a" * 12, all_ids=False, top_p=1, k=3), run("b" * 12, all_ids=True, top_p=2, k=4)]
    off, on = picking._labels(runs).values()
    assert off == "m · top p 1 · k 3 · 01-01 00:00 · aaaaaaaa"
    assert on == "m · all ids · top p 2 · k 4 · 01-01 00:00 · bbbbbbbb"


def clamp_page():
    from interp.apps.clamp import page

    page()


def test_a_page_says_which_runs_it_does_not_show(own_home):
    store = own_home / "runs"
    damaged = finish_by_hand(store, "neurons.clamp", {"model": "other"})
    (damaged / "manifest.json").write_text("{}")
    stopped = store / "neurons.clamp" / "0123456789ab"
    stopped.mkdir()
    plan = {"study": "neurons.clamp", "key": stopped.name, "config": {"neuron": "1.down.7"}}
    (stopped / "run.json").write_text(json.dumps(plan))
    keep_journal(stopped, {}, {}, 1.0)
    finish_by_hand(store, "obsprop.run", {}, made={})
    shown = AppTest.from_function(clamp_page).run()
    assert not shown.exception
    assert [damaged.name in warning.value for warning in shown.warning] == [True]
    stopped_line, none = (info.value.replace("\\", "") for info in shown.info)
    assert stopped.name in stopped_line
    assert f"interp neurons clamp --neuron 1.down.7 --runs {store}` resumes it" in stopped_line
    assert none.startswith("No finished run of neurons.clamp")
    assert shown.code[0].value.endswith(f"interp neurons clamp --runs {store}")


def test_a_run_of_a_file_is_named_by_the_files_end():
    """The selector is narrow: what tells two paths apart is their end."""
    saes = {"saes": "/data/runs/saes.train/0123/saes/topk-w2048-k32", "site": "14.resid_post"}
    assert label("saes.survey", saes) == "saes/topk-w2048-k32 · 14.resid_post"
    assert label("saes.survey", {"saes": "release:sae/id"}) == "release:sae/id"


def choosing():
    import streamlit as st

    from interp.apps.address import followed
    from interp.apps.picking import choose_model, chosen_model

    with followed("probe") as arrived:
        choose_model(arrived)
        st.text(chosen_model())


def test_two_models_in_folders_of_one_name_are_two(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    models = [f"/a/{'long-' * 20}/model", "/b/model"]
    for model in models:
        finish_by_hand(tmp_path / "runs", "neurons.atlas", {"model": model})
    shown = AppTest.from_function(choosing).run()
    assert not shown.exception
    for model in (*models, *models):
        (box,) = shown.sidebar.selectbox
        box.select(model).run()
        assert shown.text[0].value == shown.sidebar.selectbox[0].value == model


def test_what_a_list_calls_its_options_tells_them_apart():
    texts = ["model", "/a/model", "/b/model", "a/model", ""]
    for said in (words.placed, words.called({"/a/model": "x"}, "none"), words.numbered(texts)):
        assert len({said(text) for text in texts}) == len(texts)
    assert [words.numbered(["dog", "dog"])(at) for at in (0, 1, 7)] == ["0: dog", "1: dog", "7"]


def a_run_picked():
    import streamlit as st

    from interp.apps.address import followed
    from interp.apps.picking import pick_run

    with followed("probe"):
        st.text(pick_run("neurons.atlas").path.name)
        st.text_input("Something else", key="else")


def test_a_run_stays_chosen_when_more_runs_change_what_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path))
    first, second = (finish_by_hand(tmp_path, "neurons.atlas", {"k": k, "seed": 0}) for k in (4, 5))
    shown = AppTest.from_function(a_run_picked).run()
    for run in (first, second, first):
        shown.sidebar.selectbox[0].select(run.name).run()
        assert shown.text[0].value == run.name
    before = shown.sidebar.selectbox[0].options
    (label,) = (each for each in before if each.startswith("k 4"))
    finish_by_hand(tmp_path, "neurons.atlas", {"k": 5, "seed": 3})
    for text in "abc":
        box = shown.sidebar.selectbox[0]
        box.options.append(label)  # a browser goes on sending the words that were chosen
        box.set_value(label)
        shown.text_input[0].set_value(text).run()
        assert shown.text[0].value == first.name
        assert not shown.warning
    assert set(before).isdisjoint(shown.sidebar.selectbox[0].options), "else this shows nothing"
    assert shown.query_params["run"] in (first.name, [first.name])
