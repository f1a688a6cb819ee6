"""The wheel works outside the checkout, and a package of one's own adds an analysis to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .layers import ROOT

MEGABYTES = 80
ANALYSIS = '''"""Counts the letters of a word: an analysis of ten lines."""
from dataclasses import dataclass
from typing import ClassVar

import streamlit as st

from interp.analyses import Analysis, Page
from interp.apps.common import table
from interp.apps.picking import pick_run


@dataclass(frozen=True)
class LettersConfig:
    """Count the letters of a word."""

    STUDY: ClassVar[str] = "letters.count"
    VERSION: ClassVar[int] = 1
    word: str = "dog"
    """The word."""

    def fingerprints(self): return {}
    def check(self): pass
    def run(self, out):
        counts = [{"letter": x, "count": self.word.count(x)} for x in sorted(set(self.word))]
        return {"letters": len(out.table("letters", counts))}


def page():
    st.dataframe(table(pick_run("letters.count"), "letters"))


ENTRY = Analysis(
    "letters", "Letters of words.", studies=("outside_letters:LettersConfig",),
    pages=(Page("outside_letters", "Letters", "abc"),), label=("word",),
)
'''
PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "outside-letters"
version = "1"
[project.entry-points."interp.analyses"]
letters = "outside_letters:ENTRY"
[tool.setuptools]
py-modules = ["outside_letters"]
"""
LOOK = """
import json
from streamlit.testing.v1 import AppTest
import interp.data
from interp.analyses import analyses, label
from interp.cli import main

assert main(["letters", "count", "--word", "balloon", "--json"]) == 0
run = interp.run_or_load(interp.LettersConfig("balloon"))
shown = AppTest.from_string("import outside_letters; outside_letters.page()").run()
print(json.dumps({
    "interp": interp.__file__, "data": interp.data.FOLDER.joinpath("knob").is_dir(),
    "label": label(run.study, run.config),
    "counts": shown.dataframe[0].value["count"].tolist(),
    "errors": len(shown.exception), "options": shown.sidebar.selectbox[0].options,
    "addresses": [p.address for e in analyses().values() for p in e.pages],
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the workbench and the outside analysis, each installed from its wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    (folder / "outside").mkdir()
    (folder / "outside" / "outside_letters.py").write_text(ANALYSIS)
    (folder / "outside" / "pyproject.toml").write_text(PROJECT)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-build-isolation", "--no-index"]
    for source in (ROOT, folder / "outside"):
        subprocess.run([*pip, "wheel", *alone, "-w", folder, source], check=True)
    wheels = sorted(folder.glob("*.whl"))
    assert len(wheels) == 2
    target = ["--no-compile", "--target", folder / "site"]
    subprocess.run([*pip, "install", *alone, *target, *wheels], check=True)
    return folder


def test_the_wheel_is_small(installed: Path) -> None:
    (wheel,) = installed.glob("interp_workbench*.whl")
    assert wheel.stat().st_size < MEGABYTES * 2**20


def test_an_outside_analysis_has_its_command_its_page_and_its_runs(installed: Path) -> None:
    paths = {"PYTHONPATH": str(installed / "site"), "INTERP_RUNS": str(installed / "runs")}
    made = subprocess.run(
        [sys.executable, "-P", "-c", LOOK],
        env=os.environ | paths, cwd=installed, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    command, found = map(json.loads, made.stdout.splitlines()[-2:])
    assert command["study"] == "letters.count"
    assert command["metrics"] == {"letters": 5}
    assert found["interp"].startswith(str(installed / "site"))
    assert found["data"]
    assert found["label"] == "balloon"
    assert found["counts"] == [1, 1, 2, 1, 2]
    assert found["errors"] == 0
    assert "balloon" in found["options"][0]
    assert "outside_letters" in found["addresses"]
