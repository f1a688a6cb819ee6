"""What other people's files say reaches the terminal as text, not as commands to it."""

import ast
import io
import json
import logging
import unicodedata

import pandas as pd
import pytest

from interp import citing
from interp.cli import common, main
from interp.errors import readable
from interp.model.vocabulary import visible
from interp.plain_text import printable
from interp.progress import log, progress, waiting
from interp.runs.store import Run, Store

from ..house.layers import ROOT
from ..manifests import finish_by_hand

EVIL = "m\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202egpj\u2028next\r\nline\x7f"
SHOWN = r"m\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202egpj\u2028next\r\nline\x7f"


def steers(text: str) -> set[str]:
    """The characters of a text, but newlines, that a terminal obeys."""
    kinds = {"Cc", "Cs", "Zl", "Zp"}
    turns = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    return {
        sign
        for sign in text.replace("\n", "")
        if unicodedata.category(sign) in kinds or unicodedata.bidirectional(sign) in turns
    }


def test_every_character_that_steers_is_an_escape_and_letters_stay():
    every = "".join(map(chr, range(0x110000)))
    assert steers(every)
    assert not steers(printable(every).replace("\n", ""))
    assert "\n" not in printable(every)
    assert printable(EVIL) == SHOWN
    words = "naïve ش\u200cم 👩\u200d💻 ␣⏎ 日本 \\x1b"
    assert printable(words) == words


def test_a_token_shows_every_control_character():
    assert visible(" a\n\t\r") == "␣a⏎⇥␍"
    assert visible("\x1b[31mRED\x9b\x7f\x00\u202e\u200b") == r"\x1b[31mRED\x9b\x7f\x00\u202e\u200b"
    assert visible("") == "(empty)"


def test_a_mistakes_line_is_one_line_of_text():
    assert readable("a\r\n\tb") == "a b"
    assert readable("C1 \x9b31m, \u202eturned\u2028") == r"C1 \x9b31m, \u202eturned\u2028"


def test_what_is_logged_is_one_line_whatever_prints_it():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    try:
        log.warning("passed over: %s", EVIL)
    finally:
        log.removeHandler(handler)
    assert stream.getvalue() == f"passed over: {SHOWN}\n"


@pytest.mark.parametrize("show", [lambda: waiting(EVIL), lambda: progress(EVIL, 2, "rows")])
def test_a_bar_shows_text(show, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with show() as advance:
        if advance:
            advance(1, "[/red] [link=http://evil]x")
    shown = capsys.readouterr().err
    assert "PWNED" in shown
    assert not {"\x07", "\x9b", "\u202e", "\u2028"} & set(shown)
    assert "\x1b]0" not in shown


def test_what_a_command_prints_is_text(capsys):
    common.say(EVIL, "next")
    assert capsys.readouterr().out == f"{SHOWN}\nnext\n"
    common.print_metrics({EVIL: EVIL})
    common.print_rows(pd.DataFrame({EVIL: [EVIL], "t": [[EVIL, "b"]]}))
    common.print_table([EVIL], [[EVIL]])
    common.print_markdown([EVIL], [[EVIL]])
    common.answered(True, "a.b", {EVIL: EVIL})
    shown = capsys.readouterr().out
    assert not steers(shown), shown
    assert shown.count("PWNED") == 11
    assert json.loads(shown.splitlines()[-1])["metrics"] == {EVIL: EVIL}


def test_a_strangers_run_is_listed_and_cited_as_text(tmp_path, capsys):
    for number in "12":
        finish_by_hand(tmp_path, "a.b", {"model": f"{EVIL}{number}"})
    folder = finish_by_hand(tmp_path, "a.\x1b[31mc", {"model": "m"})
    (folder / "manifest.json").write_text("{}")
    for rest in ([], ["--json"]):
        assert main(["cite", "a.b", "--runs", str(tmp_path), *rest]) == 0
        out, err = capsys.readouterr()
        assert "PWNED" in out
        assert not steers(out + err)
        assert r"a.\x1b[31mc" in err
    assert main(["cite", "zzz\x1b", "--runs", str(tmp_path)]) == 2
    assert not steers(capsys.readouterr().err)


def test_only_the_printing_functions_print():
    """Whatever else printed would have to remember to."""
    found = {
        f"{path.relative_to(ROOT)}: {function.name}"
        for path in (ROOT / "interp").rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id == "print"
    }
    assert found == {
        "interp/cli/common.py: say",
        "interp/cli/common.py: answered",  # one JSON object
        "interp/cli/__init__.py: main",  # a mistake's line, made readable
    }


NAMES = [
    (r"\input /etc/hostname \ ", r"\textbackslash{}input /etc/hostname \textbackslash{}"),
    ("a~b^c", r"a\textasciitilde{}b\textasciicircum{}c"),
    ("50 %_&#$", r"50 \%\_\&\#\$"),
    ("x}}, @misc{y, title={{", r"x\textbraceright{}\textbraceright{}, @misc\textbraceleft{}y"),
    ("a\nb\x1b", r"a\textbackslash{}nb\textbackslash{}x1b"),
]


@pytest.mark.parametrize(("name", "written"), NAMES)
def test_a_models_name_is_no_tex(name, written, tmp_path):
    finish_by_hand(tmp_path, "a.b", {"model": name})
    (run,) = Store(tmp_path).runs()
    entries = citing.citation(run)
    assert f"title = {{{{{written}" in entries
    assert entries.count("\n@") == 2, "no entry more than the three"
    depth = 0
    for sign in entries:  # as BibTeX reads it: a brace counts behind a backslash too
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0 or sign != "}"
        assert depth or sign in "}\n@" or sign.isalnum()
    assert depth == 0


def test_the_heading_of_a_table_is_one_line(tmp_path, capsys):
    folder = finish_by_hand(tmp_path, "a.b", {"model": EVIL})
    run = Run(folder, {**Store(tmp_path).runs()[0].manifest})
    common.print_frame("a.b", pd.DataFrame({"x": [1]}), json=False, run=run)
    assert capsys.readouterr().out.splitlines()[0] == f"{SHOWN} ({folder})"
