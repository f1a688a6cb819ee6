"""The page over a store with a run of each study, and its figures."""

import shutil

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from interp.directions.figures import coloured_tokens
from interp.obsprop import figures
from interp.obsprop.couple import CoupleConfig
from interp.runs.study import run_or_load

from ..apps.views import in_each
from .planted import planted, studied, write_task  # noqa: F401 - two fixtures

TABS = ("An observable", "Type one", "Coupling")


def page():
    from interp.apps import obsprop

    obsprop.page()


def test_nothing_yet_says_how_to_begin(own_home):
    shown = AppTest.from_function(page, default_timeout=120)
    shown.session_state["?of"] = "nonsense"
    said = {"code": "", "error": ""}
    for view in in_each(shown, *TABS):
        assert not view.exception
        said["code"] += " ".join(code.value for code in view.code)
        said["error"] += " ".join(error.value for error in view.error)
    assert "interp obsprop run" in said["code"]
    assert "interp obsprop couple" in said["code"]
    assert "no model" in said["error"], "a mistake is shown in place"


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
    shown = AppTest.from_function(page, default_timeout=120)
    typed = {"?of": str(planted), "?plus": "w10", "?minus": "w11"}
    for key, value in typed.items():
        shown.session_state[key] = value
    frames, commands = [], []
    for view in in_each(shown, *TABS):
        assert not view.exception
        assert not view.error
        assert [title.value for title in view.title] == ["Observable propagation"]
        frames += [frame.value for frame in view.dataframe]
        commands += [code.value for code in view.code]
    heads = next(frame for frame in frames if list(frame.columns) == ["name", "norm"])
    assert heads["name"].iloc[0] in ("1.2", "1.3")
    paths = next(frame for frame in frames if "effect" in frame and "runs" in frame)
    assert "1.2" in set(paths["path"])
    assert any("kept" in frame for frame in frames), "what the run has of the checks"
    command = next(code for code in commands if "interp obsprop run" in code)
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


def test_one_head_far_above_the_others_does_not_wash_them_out():
    heads = pd.DataFrame(
        {"layer": range(100), "head": 0, "norm": [1.0 + i / 99 for i in range(100)]}
    )
    assert figures.head_map(heads, "norm", "n").data[0].zmax == 2
    heads.loc[7, "norm"] = 1000.0
    drawn = figures.head_map(heads, "norm", "n")
    assert drawn.data[0].zmax == pytest.approx(heads["norm"].quantile(0.98))
    assert "The most is head 7.0 with 1e+03" in drawn.layout.meta["found"]
    assert "The colours end at 1.99" in drawn.layout.meta["found"]
