"""One of each kind of file that ended in a traceback, a hang or a signal: the line it gets now."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from interp.cli import main
from interp.directions import Directions
from interp.directions.reading import Coordinate
from interp.directions.sources import open_directions
from interp.directions.vectors import checked_vectors, read_vectors
from interp.errors import UserError
from interp.linearscope.pictures import open_picture
from interp.model.site import Site
from interp.model.weights import open_weights
from interp.plain_json import check, parsed, record
from interp.plain_path import found, plain_path
from interp.plain_yaml import read_yaml
from interp.runs.store import Store

from ..manifests import finish_by_hand, seal_again
from .mutate import ALIASES


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[" * 100_000 + "]" * 100_000, "x is nested more than 100 deep: mend"),
        ('{"a":' * 101 + "1" + "}" * 101, "x is nested more than 100 deep: mend"),
        ('{"a": 1, "b": 2, "a": 3}', "x has the key 'a' twice: mend"),
        (r'{"a": "\ud83d"}', "x has half of a character (a lone surrogate): mend"),
        ("[1]", "x holds a list, not an object: mend"),
        ("", "x is broken JSON (Expecting value: line 1 column 1 (char 0)): mend"),
    ],
    ids=("lists", "objects", "twice", "surrogate", "list", "empty"),
)
def test_json(text, line):
    with pytest.raises(UserError) as caught:
        parsed(text, "x", "mend")
    assert str(caught.value) == line


def test_json_of_a_hundred_levels_and_a_whole_character():
    deep = '{"a":' * 99 + r'"\ud83d\ude00"' + "}" * 99
    assert parsed(deep, "x") == json.loads(deep)


def test_a_number_of_ten_thousand_digits():
    with pytest.raises(UserError, match=r"x is broken JSON \(Exceeds the limit .*\): mend"):
        parsed('{"a": ' + "9" * 10_000 + "}", "x", "mend")


@pytest.mark.parametrize(
    ("value", "kind", "line"),
    [
        (True, int, "x is true or false, not a whole number: mend"),
        (None, str | int, "x is missing or null, not a text or a whole number: mend"),
        ("1", float, "x is a text, not a number: mend"),
        ({"a": [1, "b"]}, dict[str, list[int]], "entry 2 of 'a' of x is a text, not a whole"),
    ],
)
def test_kinds_of_values(value, kind, line):
    with pytest.raises(UserError) as caught:
        check(value, kind, "x", "mend")
    assert str(caught.value).startswith(line)
    check({"a": [1, 2], "b": []}, dict[str, list[float]], "x")


def test_records():
    assert record(Coordinate, {"at": "0.mlp_post"}, "x") == Coordinate("0.mlp_post")
    for given, line in (
        ([], "x is a list, not an object: mend"),
        ({}, "x lacks the entry 'at': mend"),
        ({"at": "a", "b": 1}, "x has an entry 'b' that is not known: mend"),
        ({"at": 3}, "'at' of x is a whole number, not a text: mend"),
    ):
        with pytest.raises(UserError) as caught:
            record(Coordinate, given, "x", "mend")
        assert str(caught.value) == line


CHAIN = "- &x0 []\n" + "".join(f"- &x{i + 1} [*x{i}]\n" for i in range(60))


def test_yaml_with_aliases_of_little(tmp_path):
    """As `yaml.safe_dump` writes what stands in two places."""
    path, words = tmp_path / "x.yaml", ["a", "b"]
    path.write_text(yaml.safe_dump({"one": words, "other": [words, words]}))
    assert "*id001" in path.read_text()
    assert read_yaml(path) == {"one": words, "other": [words, words]}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (ALIASES, "line 6: stands for more than 100,000 values: mend it"),
        ("a: &a [*a]\n", "line 1: *a is in what it stands for: mend it"),
        ("[" * 50_000, "line 1: nested more than 50 deep: mend it"),
        ("- " * 51 + "x", "line 1: nested more than 50 deep: mend it"),
        (CHAIN, "line 50: nested more than 50 deep: mend it"),
        ('a: "\\ud800"', "line 1: half of a character (a lone surrogate): mend it"),
        ("? [a, b]\n: 1\n", "line 1: while constructing a mapping, found unhashable key: mend it"),
        ("a: b: c", "line 1: mapping values are not allowed here: mend it"),
    ],
    ids=("aliases", "itself", "lists", "items", "chain", "surrogate", "key", "colon"),
)
def test_yaml(text, line, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"cannot read {path}: {line}"


def test_yaml_that_takes_minutes(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("- [a, b]\n" * 60_000)
    with pytest.raises(UserError, match="x.yaml is larger than 256 KiB: give a shorter file"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("é" * 128, "is too long for a file's name: give another"),
        ("x/" * 3000, "is too long for a file's name: give another"),
        ("~nobody-of-that-name/x", "begins with a home that is not there: write it out"),
        ("a\0b", "can be no file's name: give another"),
        ("\ud800", "can be no file's name: give another"),
    ],
    ids=("name", "path", "home", "nul", "surrogate"),
)
def test_names_that_are_none(name, line):
    with pytest.raises(UserError, match=line):
        plain_path(name)
    assert found(name) is None


def test_a_home_and_a_long_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plain_path("~/x") == tmp_path / "x"
    assert found("~") == tmp_path
    assert plain_path("é" * 127) == Path("é" * 127)


def test_many_neurons_are_no_path(model_folder, own_home):
    """Their names together are longer than any file's."""
    names = [f"0.down.{i}" for i in range(40)]
    opened = open_directions(",".join(names), str(model_folder("llama")))
    assert opened.names == names


def test_a_thousand_words(capsys):
    assert main(["obsprop", *["--json"] * 2000]) == 2
    assert "2001 words are more than this command takes" in capsys.readouterr().err


def test_a_complaint_where_the_output_is_ascii(capsys):
    """A capture is such an output: tyro draws no box there."""
    assert main(["obsprop", "tasks", "x", "y"]) == 2
    assert capsys.readouterr().err == "interp: Unrecognized options: x, y (see --help)\n"


def saved(folder, **index):
    frame = pd.DataFrame({"name": ["a", "b"], **index})
    Directions(Site.parse("1.resid_post"), torch.eye(2, 8), frame).save(folder)
    return folder


@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"site": ["x"]}, "'site' of {}/directions.json is a list, not a text: make them anew"),
        ({"site": 3}, "'site' of {}/directions.json is a whole number, not a text: make them anew"),
        ({"site": "9" * 5000}, "names no site: write layer.kind"),
        ({"provenance": []}, "'provenance' of {}/directions.json is a list, not an object"),
        ({"provenance": {"model": {}}}, "'model' of the provenance of {} is an object, not a text"),
        ({"reading": None}, "the reading of {} is missing or null, not an object: make them anew"),
        ({"reading": {"kind": []}}, "the reading of {} is of no kind that is known: make them"),
        (
            {"reading": {"kind": "product", "centred": True, "eps": float("nan")}},
            "the reading of {} has the epsilon nan, which no norm has: make them anew",
        ),
        ({"reading": {"kind": "coordinate", "at": "0.mlp_post"}}, "lacks the column unit: make"),
    ],
)
def test_directions_of_wrong_types(about, line, tmp_path):
    path = saved(tmp_path) / "directions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | about))
    with pytest.raises(UserError) as caught:
        Directions.load(tmp_path)
    assert line.format(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("constants", "line"),
    [(["1", "2"], "holds no finite numbers"), ([1.0, float("nan")], "holds no finite numbers")],
)
def test_constants_that_are_no_numbers(constants, line, tmp_path):
    with pytest.raises(UserError, match=f"the column 'constant' of .*index.parquet {line}"):
        Directions.load(saved(tmp_path, constant=constants))


def test_a_number_that_the_activation_lacks(tmp_path):
    path = saved(tmp_path, unit=[7, 8]) / "directions.json"
    about = {**json.loads(path.read_text()), "reading": {"kind": "coordinate", "at": "0.mlp_post"}}
    path.write_text(json.dumps(about))
    loaded = Directions.load(tmp_path)
    assert loaded.scores(torch.arange(9.0)).tolist() == [7, 8]
    with pytest.raises(UserError, match="read the number 8 of 8: make them anew"):
        loaded.scores(torch.arange(8.0))


def test_one_bad_set_does_not_stop_the_list(tmp_path, capsys):
    """Its run is sealed as it is: the set was bad when the run was finished."""
    for study, site in (("a.b", "1.resid_post"), ("a.c", ["x"])):
        finds = saved(tmp_path / "finds")
        about = json.loads((finds / "directions.json").read_text())
        (finds / "directions.json").write_text(json.dumps(about | {"site": site}))
        made = {f"finds/{p.name}": p.rename for p in finds.iterdir()}
        finish_by_hand(tmp_path / "runs", study, made=made)
    assert main(["directions", "list", "--json", "--runs", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["metrics"] == {"rows": 1}
    assert "'site' of" in printed.err
    assert "is a list, not a text: make them anew" in printed.err


def test_a_sealed_manifest_without_fields_is_passed_over(tmp_path, caplog):
    kept = finish_by_hand(tmp_path, "a.b")
    bad = finish_by_hand(tmp_path, "a.c")
    manifest = json.loads((bad / "manifest.json").read_text())
    seal_again(bad, {name: manifest[name] for name in manifest if name != "wall_s"})
    assert [run.path for run in Store(tmp_path).runs()] == [kept]
    assert "manifest.json is damaged: it has no proper 'wall_s'" in caplog.text


def test_pictures_whose_format_is_broken(tmp_path):
    """Pillow raises SyntaxError, ValueError and its own; one format would start Ghostscript."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    png = (tmp_path / "a.png").read_bytes()
    pixels = png.index(b"IDAT") + 9
    (tmp_path / "a.png").write_bytes(png[:pixels] + bytes(64) + png[pixels:])
    (tmp_path / "a.ppm").write_bytes(b"P6 8 8 25%\n" + bytes(192))
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    large = b"P6 100000 100000 255\n"
    (tmp_path / "b.ppm").write_bytes(large)
    for name, line in (
        ("a.png", r"a.png cannot be read as a picture \(broken PNG file .*\): save it anew"),
        ("a.ppm", r"a.ppm cannot be read as a picture .*: save it anew"),
        ("a.eps", "a.eps cannot be read as a picture: give one of PNG, JPEG, WEBP"),
        ("b.ppm", "b.ppm .*pixels"),
    ):
        with pytest.raises(UserError, match=line):
            open_picture(str(tmp_path / name))


def test_an_array_whose_header_is_broken_or_lies(tmp_path):
    path = tmp_path / "v.npy"
    np.save(path, np.ones(4))
    content = path.read_bytes()
    assert read_vectors(path).tolist() == [1, 1, 1, 1]
    path.write_bytes(content.replace(b"(4,)", b"(4, "))
    with pytest.raises(UserError, match="cannot read .*v.npy"):
        read_vectors(path)
    path.write_bytes(content.replace(b"(4,), }           ", b"(4000000000000,), }"))
    with pytest.raises(UserError, match="cannot read .*v.npy: mmap length is greater than file"):
        read_vectors(path)


def test_vectors_that_are_one_number(model_folder, own_home, tmp_path):
    """A file of a hundred bytes stands for 120 GB."""
    torch.save(torch.ones(1, 1).expand(1_000_000_000, 32), tmp_path / "v.pt")
    site, weights = Site.parse("0.resid_post"), open_weights(str(model_folder("llama")))
    with pytest.raises(UserError, match="share their numbers with each other"):
        checked_vectors(read_vectors(tmp_path / "v.pt"), site, weights)


def test_commands_name_a_name_that_is_too_long(capsys):
    long = "x" * 300
    for words in (["directions", "list", "--runs", long], ["directions", "decode", f"./{long}"]):
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1
