"""Settings as a person fills them in: of every study that there is."""

import dataclasses

import pytest

from interp.analyses import analyses
from interp.cli import parse
from interp.errors import UserError
from interp.lens.fit import FitConfig
from interp.neurons.atlas import AtlasConfig
from interp.neurons.clamp import ClampConfig
from interp.obsprop.study import ObspropConfig
from interp.runs.command import command
from interp.runs.fields import config_of, settings_of

KINDS = [kind for entry in analyses().values() for kind in entry.configs()]
NEEDED = {"str": "x", "int": 3}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.STUDY)
def test_the_defaults_as_text_are_the_bare_command(kind):
    every = settings_of(kind)
    assert all(setting.about for setting in every), "each has its line below it"
    needed = {s.name: NEEDED[s.kind.__name__] for s in every if s.needed}
    shown = {s.name: s.written(s.usual) for s in every if not s.needed and s.kind is not bool}
    filled = config_of(kind, {**shown, **needed})
    values = {field.name: getattr(filled, field.name) for field in dataclasses.fields(kind)}
    usual = {s.name: s.usual for s in every if not s.needed}
    assert {name: values[name] for name in usual} == usual
    assert {name: type(values[name]) for name in usual} == {n: type(v) for n, v in usual.items()}
    words = command(kind.STUDY, values)
    if not needed:
        assert words == ["interp", *kind.STUDY.split(".")]
    parse([*words[1:], "--runs", "x", "--json"])  # as a job is started


def test_what_is_filled_in_is_what_the_command_line_says():
    config = config_of(ClampConfig, {
        "prompt": "One, two\nThree\\nfour", "value": "-1, 2.5,3", "tokens": "8", "chat": False,
    })  # fmt: skip
    assert config == ClampConfig(
        prompt=("One, two", "Three\nfour"), value=(-1.0, 2.5, 3.0), tokens=8, chat=False
    )
    assert config_of(AtlasConfig, {"weights": ["up", "gate"]}).weights == ("up", "gate")
    assert config_of(AtlasConfig, {"weights": "up, gate"}).weights == ("up", "gate")
    texts = ("a\\n", "b\nc", "\\")
    written = next(s for s in settings_of(ObspropConfig) if s.name == "texts").written(texts)
    assert config_of(ObspropConfig, {"texts": written}).texts == texts


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"k": "many"}, "k cannot be 'many': it is a whole number"),
        ({"k": 1.5}, "whole number"),
        ({"norm": "none"}, "norm cannot be 'none': it is one of raw, final, mlp"),
        ({"weights": ["up", "x"]}, "weights cannot be 'x'"),
        ({"modle": "x"}, "has no setting 'modle'"),
    ],
)
def test_what_is_no_value_is_said(given, says):
    with pytest.raises(UserError, match=says):
        config_of(AtlasConfig, given)


def test_a_number_that_is_none_is_said():
    with pytest.raises(UserError, match="lr|rate|number"):
        config_of(next(k for k in KINDS if k.STUDY == "lens.tune"), {"rate": "nan"})
    with pytest.raises(UserError, match="needed"):
        config_of(next(k for k in KINDS if k.STUDY == "directions.tokens"), {"layer": None})
    assert config_of(FitConfig, {"prompts": "12"}).prompts == 12
