"""A stored run's config and facts are of the types that its study's config class says."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar, Literal, get_type_hints

import pytest

from interp.analyses import analyses, config_class
from interp.cli import main
from interp.errors import UserError
from interp.neurons.clamp import ClampConfig
from interp.runs import fit
from interp.runs.store import Store, open_run

from ..manifests import finish_by_hand

SOUND = json.loads(json.dumps({**dataclasses.asdict(ClampConfig()), "model": "mine"}))
CLAMP = "neurons.clamp"


def stored(root: Path, config: dict, **facts) -> Path:
    return finish_by_hand(root, CLAMP, SOUND | config, version=2, **{"word": " dog", **facts})


WRONG = {
    "a number for a text": (
        {"model": 3},
        {},
        "'model' of the config",
        "a whole number, not a text",
    ),
    "a list for a text": ({"model": ["a"]}, {}, "'model' of the config", "a list, not a text"),
    "null for a text": (
        {"model": None},
        {},
        "'model' of the config",
        "missing or null, not a text",
    ),
    "a choice": ({"where": 1}, {}, "'where' of the config", "a whole number, not a text"),
    "a number for a list": ({"prompt": 3}, {}, "'prompt' of the config", "not a list or a text"),
    "in a list": ({"prompt": ["a", 3]}, {}, "entry 2 of 'prompt' of the config", "not a text"),
    "a text for numbers": ({"value": ["x"]}, {}, "entry 1 of 'value' of the config", "a text"),
    "more than 64 bits": ({"tokens": 2**63}, {}, "'tokens' of the config", "over 64 bits"),
    "a fact of the study": ({}, {"word": 3}, "'word' of the manifest", "not a text"),
    "a fact of all": ({}, {"parity": "x"}, "'parity' of the manifest", "a text, not a number"),
    "a vast fact": ({}, {"parity": 10**400}, "'parity' of the manifest", "over 64 bits"),
    "packages": ({}, {"packages": []}, "'packages' of the manifest", "a list, not an object"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_strangers_run_of_other_types_is_one_line_and_the_others_open(wrong, tmp_path, caplog):
    config, facts, *says = WRONG[wrong]
    bad = stored(tmp_path, config, **{"finished": "9999-01-01T00:00:00Z", **facts})
    good = stored(tmp_path, {"neuron": "0.up.1"})
    with pytest.raises(UserError) as refused:
        open_run(bad, CLAMP)
    assert str(bad) in str(refused.value)
    for part in says:
        assert part in str(refused.value)
    assert [run.path for run in Store(tmp_path).runs(CLAMP)] == [good]
    assert Store(tmp_path).newest(CLAMP, "none").path == good
    assert "passed over: " in caplog.text
    assert str(bad) in caplog.text


def test_runs_of_earlier_versions_and_of_unknown_studies_open(tmp_path):
    earlier = {"model": "m", "neuron": "1.up.2", "prompt": "one text", "gone": [1]}
    first = finish_by_hand(tmp_path, CLAMP, earlier, version=1)
    assert open_run(first, CLAMP).config == earlier
    other = finish_by_hand(tmp_path, "no_such.study", {"model": 3})
    assert open_run(other, "no_such.study").config == {"model": 3}
    assert config_class("no_such.study") is None
    assert config_class("neurons.no_such") is None


def test_a_run_of_another_study_in_the_folder_is_passed_over(tmp_path):
    made = finish_by_hand(tmp_path, "a.b", {})
    (tmp_path / CLAMP).mkdir()
    made.rename(tmp_path / CLAMP / made.name)
    runs, complaints = Store(tmp_path).looked_through(CLAMP)
    assert not runs
    assert "holds a run of a.b, not of neurons.clamp" in complaints[0]


@pytest.mark.parametrize("entry", analyses().values(), ids=lambda entry: entry.name)
def test_a_config_as_it_is_stored_fits(entry, tmp_path):
    """Every default is of its field's type, and each type is one that is checked."""
    for kind in entry.configs():
        fields, facts = fit._types(kind)
        assert not [name for name, each in {**fields, **facts}.items() if each is fit.Any]
        hints = get_type_hints(kind)
        needed = {
            f.name: {int: 1, str: "x"}.get(hints[f.name], ("x",))
            for f in dataclasses.fields(kind)
            if f.default is dataclasses.MISSING
        }
        config = json.loads(json.dumps(dataclasses.asdict(kind(**needed))))
        fit.check_fits(tmp_path, {"study": kind.STUDY, "config": config, "fingerprints": {}})


def test_entries_in_objects_and_types_of_outside_packages(monkeypatch, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Outside:
        FACTS: ClassVar[dict] = {"shapes.*.ratio": float}
        where: Path = Path()
        how: Literal["a", "b"] = "a"
        much: float | None = None

    monkeypatch.setattr(fit, "_lookups", [lambda study: Outside])
    about = {"study": "x.y", "config": {"where": 1, "how": "earlier choice", "much": 2}}
    fit.check_fits(tmp_path, {**about, "shapes": {"a": {"ratio": 1.5, "more": "x"}, "b": {}}})
    fit.check_fits(tmp_path, {**about, "shapes": "none"})
    with pytest.raises(UserError, match=r"'shapes\.\*\.ratio' of the manifest .* is a text"):
        fit.check_fits(tmp_path, {**about, "shapes": {"a": {}, "b": {"ratio": "x"}}})
    with pytest.raises(UserError, match="'much' of the config .* not a number or null"):
        fit.check_fits(tmp_path, {**about, "config": {"much": "x"}})


def test_a_config_is_rebuilt_without_what_its_class_does_not_know():
    stored = {"model": "m", "tokens": 3, "gone": [1]}
    assert fit.rebuilt(ClampConfig, stored, tokens=4) == ClampConfig("m", tokens=4)


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    bad = stored(tmp_path, {"prompt": 3})
    assert main(["figure", str(bad), "curve"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "'prompt' of the config of" in line
