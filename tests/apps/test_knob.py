"""The knob's page: what ships in an empty store, and three visitors at once."""

import shlex
import threading
from functools import partial
from shutil import copy

import pytest
from streamlit.testing.v1 import AppTest

from interp.apps import answers, offering, pool, take
from interp.apps.lending import Pool, limit
from interp.cli import parse
from interp.knob.steer_prompt import read_knob
from interp.report.tables import markup

PAGE = "from interp.apps.knob import page\npage()"


@pytest.fixture(autouse=True)
def empty(own_home, monkeypatch):
    monkeypatch.setattr(pool, "POOL", Pool(limit))
    monkeypatch.setattr(answers, "_kept", type(answers._kept)())


def at(**params):
    """The page at an address, not run yet."""
    page = AppTest.from_string(PAGE, default_timeout=120)
    for name, value in params.items():
        page.query_params[name] = value
    return page


def shown(**params):
    return at(**params).run()


def test_what_ships_is_shown_in_an_empty_store():
    page = shown(view="Measured")
    assert not page.exception
    assert not page.error
    said = " ".join(each.value for each in (*page.markdown, *page.caption)).replace("\\", "")
    assert "At layer 20 one dimension swaps 96% of the answers" in said
    assert "tuned: at most 0.78 of the pairs are right by the learned direction, 0.87" in said
    assert "r = 0.99" in said
    heads = page.dataframe[0].proto.columns
    assert '"PairAcc"' in heads
    stored = [block.value for block in page.code if "run = interp.open_run" in block.value]
    assert stored
    for call in stored:  # the stored run alone
        exec(call, {})
    decoded = next(frame.value for frame in page.dataframe if "top_z" in frame.value)
    assert not {"context", "prior"} & set(decoded), "means of u·h, and no shares of right answers"


def test_a_report_of_it_has_the_same_words(monkeypatch):
    sections = []

    def noted(section):
        sections.append(section)
        return take.taken(section)

    monkeypatch.setattr(offering, "taken", noted)
    assert not shown(view="Measured").exception
    assert "PairAcc, low end" in markup(sections[0].rows, sections[0].of)


def test_the_slider_opens_at_prior_knowledge():
    page = shown()
    assert not page.exception
    index = read_knob("shipped").index.iloc[0]
    slider = page.slider[0]
    assert slider.value == pytest.approx(index["prior_c"], abs=0.1)
    assert slider.min < index["context_c"] < slider.value < slider.max
    assert len(pool.POOL) == 0, "nothing is loaded yet"


class TestThreeAtOnce:
    """One model for three visitors with wishes of their own: every answer is its own."""

    @pytest.fixture
    def run(self, talking_model, tmp_path, monkeypatch):
        import pandas as pd

        from interp.directions import Directions
        from interp.directions.provenance import Provenance
        from interp.model.site import Site
        from interp.model.weights import open_weights
        from interp.runs.store import Run

        from ..manifests import finish_by_hand

        weights = open_weights(str(talking_model))
        index = pd.DataFrame({"name": ["learned"], "context_c": [-90.0], "prior_c": [90.0]})
        vector, about = weights.W_U()[[123]], Provenance.of("knob", weights)
        Directions(Site("resid_post", 1), vector, index, about).save(tmp_path / "knob")
        parts = {f"knob/{file.name}": partial(copy, file) for file in (tmp_path / "knob").iterdir()}
        config = {"model": str(talking_model), "template": "plain", "adapter": "none"}
        return Run(finish_by_hand(tmp_path / "runs", "knob.learn", config, made=parts), {})

    def test_each_gets_the_answer_of_its_own_wish(self, run, talking_model):
        from interp.knob.items import Item
        from interp.knob.steer_prompt import pick_direction, steering_curve
        from interp.model.subject import open_subject

        direction = pick_direction(read_knob(str(run.path / "knob")), "learned")
        subject = open_subject(talking_model)
        wishes, want = (-60.0, 0.0, 80.0), {}
        for c in wishes:
            item = Item("own", "own", "w1 w2", f"w3 w{int(abs(c))}", "", "")
            rows = steering_curve(subject, item, direction, [None, c], template="plain")
            want[c] = [row["text"] or "—" for row in rows]

        # made beforehand, since each writes the same script file
        pages = {
            c: at(context="w1 w2", query=f"w3 w{int(abs(c))}", live="yes", **{"c learned": str(c)})
            for c in wishes
        }
        threads = [threading.Thread(target=page.run) for page in pages.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        for c, page in pages.items():
            assert not page.exception
            assert not page.error
            assert [metric.value.replace("\\", "") for metric in page.metric] == want[c]
        assert len({tuple(texts) for texts in want.values()}) == 3
        assert len(pool.POOL) == 1


def test_its_command_is_one_of_interp():
    commands = [block.value for block in shown(view="Measured").code if block.language == "bash"]
    assert len(commands) >= 2
    for command in commands:
        parse(shlex.split(command)[1:])
