"""The page over a store with a run of each study, and its figures."""

import shutil

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from interp.directions.figures import coloured_tokens
from interp.obsprop import figures
from interp.obsprop.couple import CoupleConfig
from interp.runs.study import run_or_load

from .planted import planted, studied, write_task  # noqa: F401 - two fixtures


def page():
    from interp.apps import obsprop

    obsprop.page()


def test_nothing_yet_says_how_to_begin(own_home):
    shown = AppTest.from_function(page, default_timeout=60)
    shown.session_state["obs_model"] = "nonsense"
    shown.run()
    assert not shown.exception
    assert any("interp obsprop run" in code.value for code in shown.code)
    assert any("interp obsprop couple" in code.value for code in shown.code)
    assert any("no model" in error.value for error in shown.error), "a mistake is shown in place"


def test_runs_are_shown(planted, studied, own_home, tmp_path):  # noqa: F811
    shutil.copytree(studied[2], own_home / "runs")
    task = str(write_task(tmp_path))
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "planted.yaml").read_text().replace("w11:", "w12:"))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(" ".join(f"w{i % 210 + 1}" for i in range(300)))
    run_or_load(
        CoupleConfig(
            model=str(planted), observables=(task, str(other)), heads=1, tokens=128,
            corpus=str(corpus),
        )
    )  # fmt: skip
    shown = AppTest.from_function(page, default_timeout=60)
    shown.session_state["obs_model"] = str(planted)
    shown.session_state["plus"], shown.session_state["minus"] = "w10", "w11"
    shown.run()
    assert not shown.exception
    assert not shown.error
    assert [title.value for title in shown.title] == ["Observable propagation"]
    frames = [frame.value for frame in shown.dataframe]
    heads = next(frame for frame in frames if list(frame.columns) == ["name", "norm"])
    assert heads["name"].iloc[0] in ("1.2", "1.3")
    paths = next(frame for frame in frames if "effect" in frame and "tokens" in frame)
    assert "1.2" in set(paths["path"])
    assert any("kept" in frame for frame in frames), "what the run has of the checks"
    command = next(code.value for code in shown.code if "interp obsprop run" in code.value)
    assert "--labelled 2 8" in command


def test_coloured_tokens_escape_and_leave_the_first_token_out():
    tokens = pd.DataFrame(
        {
            "text": [0, 0, 0],
            "position": [0, 1, 2],
            "token": ["<b>", " she", "\n"],
            "score": [99.0, 2.0, -1.0],
        }
    )
    html = coloured_tokens(tokens)
    assert "&lt;b&gt;" in html
    assert "rgba(59,111,182,0.00)" in html, "an attention sink is not coloured"
    assert "rgba(59,111,182,1.00)" in html
    assert "rgba(217,130,43,0.50)" in html


def test_head_map_is_signed_where_the_numbers_are():
    heads = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "norm": [1.0, 2.0], "effect": [1, -3]})
    assert figures.head_map(heads, "norm", "n").data[0].zmin == 0
    assert figures.head_map(heads, "effect", "e").data[0].zmin == pytest.approx(-3)
