"""The form of every study, the page that starts one, and the page that shows the queue."""

import json
import os
import time

import pytest
from streamlit.testing.v1 import AppTest

from interp.analyses import VERBS, analyses
from interp.apps import form, jobs
from interp.errors import UserError
from interp.model.allowed import FOLDERS
from interp.neurons.atlas import AtlasConfig
from interp.runs import queue
from interp.runs.jobs import RESULT, STARTED, new_folder
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.watched import FILE

from ..runs.test_jobs import hold

STUDIES = [kind.STUDY for entry in analyses().values() for kind in entry.configs()]


def one_form():
    import streamlit as st

    from interp.apps.common import errors_in_place
    from interp.apps.form import config_kind, filled_in

    with errors_in_place():
        st.session_state["made"] = filled_in(config_kind(st.query_params["study"]))


def new_page():
    from interp.apps.new import page

    page()


def jobs_page():
    from interp.apps.jobs import page

    page()


def line():
    from interp.apps.jobs import status_line

    status_line()


def test_the_list_of_studies_is_that_of_the_registry():
    assert list(form.studies()) == STUDIES
    assert all(about for _, about in form.studies().values())
    assert {page.address for page in VERBS["jobs"].pages} == {"new", "jobs"}


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_has_a_form_that_is_as_usual(study, own_home):
    shown = AppTest.from_function(one_form, default_timeout=120)
    shown.query_params["study"] = study
    shown.run()
    assert not shown.exception
    kind = form.config_kind(study)
    needed = [s.name for s in form.settings_of(kind) if s.needed]
    if needed:
        assert f"{needed[0]} is needed" in shown.error[0].value.replace("\\", "")
    else:
        assert not shown.error
        assert shown.session_state["made"] == kind()


def test_a_link_fills_in_a_form(own_home):
    shown = AppTest.from_function(one_form, default_timeout=120)
    given = {"study": "neurons.atlas", "k": "20", "weights": "up,down", "all_ids": "yes"}
    for name, value in {**given, "norm": "nonsense", "random": "x"}.items():
        shown.query_params[name] = value
    shown.run()
    assert not shown.exception
    expected = AtlasConfig(k=20, weights=("up", "down"), all_ids=True)
    assert shown.session_state["made"] == expected
    next(n for n in shown.number_input if n.label == "K").set_value(7)
    shown.run()
    assert shown.session_state["made"].k == 7


def test_a_form_names_no_file_outside_where_it_is_served_to_others(own_home, monkeypatch):
    monkeypatch.setenv(FOLDERS, str(own_home / "runs"))
    kind = form.config_kind("neurons.tars")
    with pytest.raises(UserError, match="corpus cannot be '/etc/passwd' here"):
        form.allowed_config(kind, {"corpus": "/etc/passwd"})
    shown = AppTest.from_function(one_form, default_timeout=120)
    shown.query_params["study"], shown.query_params["corpus"] = "neurons.tars", "/etc/passwd"
    shown.run()
    assert "corpus cannot be" in shown.error[0].value.replace("\\", "")
    assert "made" not in shown.session_state


@pytest.fixture
def model(model_folder, own_home):
    return str(model_folder("llama"))


def opened(page, **params):
    shown = AppTest.from_function(page, default_timeout=120)
    for name, value in params.items():
        shown.query_params[name] = value
    shown.session_state["chosen model"] = params.get("model", "smollm2-135m")
    return shown.run()


def test_a_study_is_checked_and_started(model, own_home, monkeypatch):
    started = []
    monkeypatch.setattr(queue, "start", lambda root, words: started.append((root, words)))
    shown = opened(new_page, study="neurons.atlas", model=model, k="3")
    assert not shown.exception
    assert not shown.error
    assert any(c.value.endswith("--k 3 --runs " + str(own_home / "runs")) for c in shown.code)
    assert any("A guess" in c.value or "unknown" in c.value for c in shown.caption)
    next(b for b in shown.button if b.label == "Start").click().run()
    words = ("neurons", "atlas", "--model", model, "--k", "3")
    assert started == [(own_home / "runs", words)]
    run_or_load(AtlasConfig(model=model, k=3))
    shown = opened(new_page, study="neurons.atlas", model=model, k="3")
    assert shown.success[0].value == "This run is there already."
    assert not [b for b in shown.button if b.label == "Start"]


def test_a_mistake_is_said_in_place_and_nothing_can_be_started(model):
    shown = opened(new_page, study="neurons.clamp", model=model, neuron="9.up.1")
    assert not shown.exception
    assert len(shown.error) == 1
    assert not [b for b in shown.button if b.label == "Start"]
    shown = opened(new_page, study="neurons.atlas", model="no/such:model")
    assert "no model" in shown.error[0].value


def test_code_that_a_link_names_never_runs(own_home, monkeypatch):
    def run(*_):
        raise AssertionError("it ran")

    monkeypatch.setattr("interp.linearscope.networks._own_network", run)
    shown = AppTest.from_function(new_page, default_timeout=120)
    shown.query_params["study"], shown.query_params["model"] = "linearscope.explain", "os:abort"
    shown.run()
    assert not shown.exception
    assert "os:abort is code" in shown.error[0].value.replace("\\", "")
    assert not [b for b in shown.button if b.label == "Start"]


def test_what_a_link_names_is_fetched_only_on_demand(model, monkeypatch):
    monkeypatch.setattr("interp.apps.new._checked", lambda *_: 1 / 0)
    shown = opened(new_page, study="saes.survey", model=model, saes="release:sae_id")
    assert not shown.exception
    assert [t.label.replace("\\", "") for t in shown.toggle if t.key.startswith("fetch")] == [
        "Fetch release:sae_id from the Hugging Face hub"
    ]
    shown = opened(new_page, study="neurons.atlas", model="some/model")
    assert not shown.exception
    assert any("some/model" in t.label.replace("\\", "") for t in shown.toggle)


def empty():
    from interp.apps.offering import make_one

    make_one("neurons.atlas", k=20, weights=("up", "down"), all_ids=True)


def test_where_nothing_is_there_is_its_command_and_a_form_that_is_filled_in(own_home):
    shown = AppTest.from_function(empty, default_timeout=120).run()
    assert "--weights up down --k 20 --all-ids --runs" in shown.code[0].value
    assert "study=neurons" in shown.markdown[0].value.replace("\\", "")
    assert "k=20" in shown.markdown[0].value.replace("\\", "")


def put(root, *words, **files):
    folder = new_folder(root, words or ("neurons", "atlas"), files.pop("title", ""))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_jobs_are_shown_cancelled_started_again_and_removed(own_home, monkeypatch):
    root = own_home / "runs"
    running, failed = put(root, title="[one](http://evil)"), put(root, title="two")
    lock = hold(running)
    (running / STARTED).write_text(json.dumps({"time": time.time(), "pid": os.getpid()}))
    step = {"label": "counting", "done": 3.0, "total": 12.0, "unit": "layers", "eta": 20.0}
    (running / FILE).write_text(json.dumps({"pid": os.getpid(), "step": step}))
    result = {"code": 2, "time": time.time(), "line": "no model 'x'", "run": None}
    (failed / "result.json").write_text(json.dumps(result))
    (root / ".jobs" / "nonsense").mkdir()
    shown = AppTest.from_function(jobs_page, default_timeout=120).run()
    assert not shown.exception
    texts = [each.value.replace("\\", "") for each in [*shown.markdown, *shown.caption]]
    assert "**[one](http://evil)**" in texts
    assert any("\\[one\\]" in each.value for each in shown.markdown), "escaped"
    assert "no model 'x'" in texts
    assert len(shown.warning) == 1
    keys = {button.key for button in shown.button}
    assert keys == {f"cancel {running.name}", f"again {failed.name}", f"remove {failed.name}"}
    shown.button(key=f"cancel {running.name}").click().run()
    assert (running / "cancelled").exists()
    started = []
    monkeypatch.setattr(queue, "start", lambda *given: started.append(given))
    shown.button(key=f"again {failed.name}").click().run()
    assert started == [(root, ("neurons", "atlas"), "two")]
    assert not failed.exists()
    os.close(lock)
    shown.run()
    shown.button(key=f"remove {running.name}").click().run()
    assert not running.exists()


def test_the_status_line_says_how_far_it_is_and_costs_nothing(own_home):
    root = own_home / "runs"
    assert not AppTest.from_function(line).run().markdown
    for _ in range(60):
        put(root, result={"code": 0, "time": 1.0, "line": "", "run": None})
    running, waiting = put(root), put(root)
    locks = [hold(folder) for folder in (running, waiting)]
    (running / STARTED).write_text(json.dumps({"time": time.time(), "pid": 1}))
    step = {"label": "x", "done": 12.0, "total": 30.0, "unit": "layers", "eta": 20.0}
    (running / FILE).write_text(json.dumps({"pid": 1, "step": step}))
    shown = AppTest.from_function(line).run()
    said = shown.markdown[0].value.replace("\\", "")
    assert said.startswith("[1 running: neurons.atlas 12/30 layers, ETA 20 s · 1 waiting]")
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        queue_of = jobs.active(Store().root)
        spent.append(time.perf_counter() - start)
    assert len(queue_of) == 2
    assert min(spent) < 0.01
    for lock in locks:
        os.close(lock)


def test_an_unfinished_run_is_resumed_and_a_damaged_one_is_explained(model, monkeypatch):
    store = Store()
    config = AtlasConfig(model=model, k=3)
    with monkeypatch.context() as patched:
        patched.setattr("interp.runs.writer.RunWriter.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_or_load(config)
    (folder,) = store.root.glob("neurons.atlas/*")
    damaged = run_or_load(AtlasConfig(model=model, k=4)).path
    (damaged / "manifest.json").write_text("{")
    started = []
    monkeypatch.setattr(queue, "start", lambda *given: started.append(given))
    shown = AppTest.from_function(jobs_page, default_timeout=120).run()
    assert any("manifest.json" in w.value.replace("\\", "") for w in shown.warning)
    shown.button(key=f"resume neurons.atlas {folder.name}").click().run()
    words = ("neurons", "atlas", "--model", model, "--k", "3")
    assert started == [(store.root, words)]
    cancelled = new_folder(store.root, words)
    result = {"code": 130, "time": 2.0, "line": "", "run": None}
    (cancelled / RESULT).write_text(json.dumps(result))
    shown.run()
    labels = [button.label for button in shown.button]
    assert "Start again" in labels
    assert "Resume" not in labels, "one way to go on with it is enough"


@pytest.mark.parametrize("plan", [{}, {"study": 3}, {"study": "neurons.atlas", "config": []}])
def test_a_strangers_unfinished_run_is_one_line(own_home, plan):
    folder = own_home / "runs" / "neurons.atlas" / "x"
    (folder / ".run.pieces").mkdir(parents=True)
    (folder / ".run.pieces" / "journal.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps(plan))
    shown = AppTest.from_function(jobs_page, default_timeout=120).run()
    assert not shown.exception
    assert len(shown.error) == 1
