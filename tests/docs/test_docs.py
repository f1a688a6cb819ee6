"""What the documentation shows exists: links, commands, code, analyses, generated parts."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import yaml
from markdown.extensions.toc import slugify

import interp
from interp.analyses import BUILT_IN
from interp.cli import parse
from interp.errors import UserError
from interp.model.conformance import NOT_OPENED, Row, architectures

ROOT = Path(__file__).resolve().parents[2]
generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
SOURCES = [ROOT / "README.md", *generate["pages"](), *sorted(ROOT.glob("data/**/README.md"))]
WRITTEN = {page: page.read_text() for page in SOURCES if page.suffix == ".md"}
filled = cache(generate["filled"])
"""A page with its generated parts; where no page is asked for, none takes its seconds."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize(
    "page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@cache
def anchors(text: str) -> set[str]:
    """Those of a page's headings and of the modules that mkdocstrings documents on it."""
    prose = BLOCK.sub("", text)
    headings = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    return {slugify(h, "-") for h in headings} | set(re.findall(r"^::: (\S+)$", prose, re.M))


def commands(text: str) -> list[list[str]]:
    """The words after `interp` of every command line, in blocks and between backticks."""
    lines = [
        line for kind, body in BLOCK.findall(text) if kind != "python" for line in body.splitlines()
    ]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
    found = [re.match(r"(?:\$ )?(?:\.venv/bin/)?interp (.+)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def check_command(words: list[str]) -> None:
    """It is the name of a command or group, or its arguments bind; nothing is run."""
    with suppress(SystemExit):  # --help
        if f"interp-{'-'.join(words)}" not in anchors(filled(ROOT / "docs" / "commands.md")):
            parse(words)


def check_code(code: str) -> None:
    """It compiles, and the names that it takes from the workbench exist."""
    for node in ast.walk(compile(code, "docs", "exec", ast.PyCF_ONLY_AST)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("interp"):
            exec(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "interp":
            getattr(interp, node.attr)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", BLOCK.sub("", filled(page)))
    for path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), path
        assert target.is_file(), path
        assert not anchor or anchor in anchors(filled(target)), f"{path}#{anchor}"


@each_page
def test_commands_parse(page: Path) -> None:
    for words in commands(WRITTEN[page]):
        check_command(words)


@each_page
def test_python_compiles_and_its_names_exist(page: Path) -> None:
    for kind, code in BLOCK.findall(WRITTEN[page]):
        if kind == "python":
            check_code(code)


def test_the_names_that_draw_the_pictures_exist() -> None:
    check_code((ROOT / "docs" / "pictures.py").read_text())


def test_the_checks_see_mistakes() -> None:
    assert commands("`interp knob run` and\n```sh\n$ .venv/bin/interp app  # x\n```\n") == [
        ["app"],
        ["knob", "run"],
    ]
    for wrong in (["neurons", "atlas", "--modle", "x"], ["nothing"], ["neurons", "nothing"]):
        with pytest.raises(UserError):
            check_command(wrong)
    for code in ("from interp.saes import nothing", "import interp\ninterp.nothing"):
        with pytest.raises((AttributeError, ImportError)):
            check_code(code)


def test_the_index_links_every_analysis() -> None:
    index = WRITTEN[ROOT / "docs" / "index.md"]
    for entry in BUILT_IN:
        assert f"[`interp {entry.name}`](" in index


FOLDER = {"prompt": "microscope"}
"""Of analyses whose folder has another name, under which their tables stand."""


def test_every_command_and_every_study_is_in_the_reference() -> None:
    reference, runs = (anchors(filled(ROOT / "docs" / f"{n}.md")) for n in ("commands", "runs"))
    tables = filled(ROOT / "docs" / "runs.md")
    for entry in BUILT_IN:
        assert f"interp-{entry.name}" in reference
        assert not entry.studies or FOLDER.get(entry.name, entry.name) in runs
        for config in entry.configs():
            assert config.STUDY in tables
    for entry in ("interp-models-add", "interp-app", "interp-neurons-atlas"):
        assert entry in reference


def test_generated_parts_are_what_the_code_says() -> None:
    help_of = filled(ROOT / "docs" / "commands.md")
    assert "--k INT " in help_of
    assert not set("│╭╰") & set(help_of)
    tables = filled(ROOT / "docs" / "runs.md")
    assert "`curve/values" in tables
    assert "\nsteer.sweep:\n" in tables  # of a neighbour that a module refers to
    assert "\nchecks.ablation:\n" in tables
    assert "\nladder.parquet:\n" not in tables
    assert "<!-- generated" not in "".join(map(filled, WRITTEN))


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == interp.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_table_of_architectures_has_them_all_and_a_word_on_each() -> None:
    page = (ROOT / "docs" / "families.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    assert lines[0] == list(Row._fields)
    rows = [Row(*line) for line in lines[2:]]
    assert [row.architecture for row in rows] == architectures()
    assert all(all(row) for row in rows)
    opened = [row for row in rows if row.generation != NOT_OPENED]
    assert len(opened) >= 30
    assert {row.atlas for row in opened} == {"0"}
    assert max(max(float(row.parity), float(row.sites)) for row in opened) < 1e-6
    assert {row.generation for row in opened} == {"12 of 12"}
