"""The house's own rules: no circle of files, one registry, every offered name exists."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import interp
from interp.analyses import BUILT_IN, Analysis, Page, analyses
from interp.cli import parse
from interp.errors import UserError
from interp.model.families import FAMILIES, UNFIT, WRAPPERS
from interp.model.families.outside import outside_families

from .layers import ELSEWHERE, HOUSE, ROOT
from .layers import analyses as folders_of_analyses

ENTRIES = analyses().values()


@cache
def _parsed(path: Path) -> ast.Module:
    """A file of the product, which several rules look through."""
    return ast.parse(path.read_text())


def _files() -> dict[str, Path]:
    """Every file of the product by its module's name."""
    found = {}
    for top in ("interp", *ELSEWHERE):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            inside = parts if top == "interp" else ("interp", *parts)
            found[".".join(inside).removesuffix(".__init__")] = path
    return found


def _imports(module: str, path: Path, files: dict[str, Path]) -> Iterator[str]:
    """The modules that a file imports, inside functions and for types alone too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            for name in node.names:
                whole = f"{start}.{name.name}"
                yield whole if whole in files else str(start)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def _circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_files_import_each_other_in_a_circle() -> None:
    files = _files()
    graph = {
        # a package's face only hands names on
        module: {name for name in _imports(module, path, files) if name in files}
        for module, path in files.items()
        if path.name != "__init__.py"
    }
    assert _circle(graph) == []


def test_a_circle_would_be_seen() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_code_that_comes_with_a_model_never_runs() -> None:
    """transformers asks on standard input where it is not told so."""
    loads = [
        (module, call)
        for module, path in _files().items()
        for call in ast.walk(_parsed(path))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("Auto")
        if ast.unparse(call.func).endswith(".from_pretrained")
    ]
    assert len(loads) > 2
    for module, call in loads:
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert given.get("trust_remote_code") == "False", module


def test_no_python_is_started_with_the_current_folder_on_its_import_path() -> None:
    starts = [
        (module, ast.unparse(part))
        for module, path in _files().items()
        for part in ast.walk(_parsed(path))
        if isinstance(part, ast.List | ast.Tuple) and "sys.executable" in ast.unparse(part)
    ]
    assert starts
    for module, command in starts:
        assert command.startswith("[sys.executable, '-P', "), module


def test_every_folder_of_an_analysis_is_registered() -> None:
    rooms = {name for line in HOUSE for name in line.split(" | ")}
    # `saes` is also the room that opens them, below Directions; what needs these is `latents`.
    # `prompt` is in the room `microscope`, above the other analyses
    named = {e.name for e in ENTRIES} - rooms - {"prompt"}
    assert set(folders_of_analyses()) == named | {"latents"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_studies_labels_and_pages_of_an_entry_exist(entry, capsys) -> None:
    configs = entry.configs()
    assert {config.STUDY.partition(".")[0] for config in configs} <= {entry.name}
    assert set(entry.label) <= {field.name for c in configs for field in dataclasses.fields(c)}
    for page in entry.pages:
        assert callable(importlib.import_module(page.module).page)
    for config in configs:
        with pytest.raises(SystemExit, match="0"):
            parse([entry.name, config.STUDY.partition(".")[2], "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.startswith(f"usage: interp {config.STUDY.replace('.', ' ')} [-h]")


def test_offered_names_exist() -> None:
    for name in dir(interp):
        assert getattr(interp, name)
    assert interp.AtlasConfig().STUDY == "neurons.atlas"
    assert interp.edits.clamp
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = interp.nonsense


def test_an_unknown_command_is_told_the_known_ones() -> None:
    with pytest.raises(UserError, match="no command 'neuron': the commands are prompt, neurons, "):
        parse(["neuron"])


class _Point:
    """An entry point of an outside package."""

    dist = None
    value = name = "outside"

    def __init__(self, load) -> None:
        self.load = load


def _fails():
    raise RuntimeError("no GPU driver")


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (_fails, "RuntimeError: no GPU driver"),
        (lambda: "text", "it is no interp.analyses.Analysis"),
        (lambda: Analysis("models", "."), "the name 'models' is taken"),
        (lambda: Analysis("x", ".", studies="m:A"), "studies and label are tuples"),
        (lambda: Analysis("x", ".", label="kind"), "studies and label are tuples"),
        (lambda: Analysis("x", ".", studies=("no_such:X",)), "No module named 'no_such'"),
        (
            lambda: Analysis("x", ".", pages=(Page("interp.apps.atlas", "", ""),)),
            "'atlas' is taken",
        ),
        (
            lambda: Analysis("x", ".", studies=("interp.knob.run:RunConfig",)),
            "the config name 'RunConfig' is taken",
        ),
    ],
)
def test_an_outside_entry_that_does_not_fit_is_left_out(load, says, monkeypatch, caplog) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [_Point(load)])
    assert analyses.__wrapped__().keys() == {entry.name for entry in BUILT_IN}
    assert says in caplog.text


def _names_compared(file: ast.Module) -> Iterator[str]:
    """String constants that a file compares with something, or branches or looks up by."""
    for node in ast.walk(file):
        if isinstance(node, ast.Compare | ast.MatchValue):
            yield from (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))


TOKENIZERS = ROOT / "interp" / "model" / "gguf" / "tokenizer.py"
"""GGUF names kinds of tokenizer after families."""


def test_no_familys_name_decides_anything_outside_the_table() -> None:
    names = {*FAMILIES, *WRAPPERS, *UNFIT}
    found = {
        f"{path}: {name}"
        for path in _files().values()
        if path.parent.name != "families" and path != TOKENIZERS
        for name in _names_compared(_parsed(path))
        if name in names
    }
    assert found == set()


def test_a_familys_name_in_an_if_would_be_seen() -> None:
    for line in ("a = b == 'gpt2'", "if m in ('llama', 'phi3'): pass", "match m:\n case 'phi3': 0"):
        assert {"gpt2", "phi3"} & set(_names_compared(ast.parse(line)))


@pytest.mark.parametrize(
    ("load", "name", "says"),
    [
        (_fails, "mine", "RuntimeError: no GPU driver"),
        (lambda: "text", "mine", "it is no interp.model.families.Family"),
        (lambda: FAMILIES["llama"], "llama", "the name is taken"),
        (lambda: replace(FAMILIES["llama"], defaults={}), "mine", "its defaults lack"),
    ],
)
def test_an_outside_family_that_does_not_fit_is_left_out(load, name, says, monkeypatch, caplog):
    point = _Point(load)
    point.name = name
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    assert outside_families(dict(FAMILIES)) == {}
    assert says in caplog.text


def test_an_outside_family_is_taken_in(monkeypatch) -> None:
    mine = replace(FAMILIES["llama"], mlp_norm="ffn_norm")
    point = _Point(lambda: mine)
    point.name = "mine"
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    assert outside_families(dict(FAMILIES)) == {"mine": mine}
