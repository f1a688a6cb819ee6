"""The study, its command, its figures, and the words beside neurons and heads."""

import json
from dataclasses import replace

import pytest
import torch

from interp.cli import parse
from interp.directions import Directions
from interp.errors import UserError
from interp.microscope import figures
from interp.microscope.direct import Direct, ask
from interp.microscope.live import compared, direct_of, explained, prefix
from interp.microscope.look import LookConfig, look_with
from interp.microscope.names import Question
from interp.microscope.passed import Opened
from interp.microscope.tables import head_table, neuron_table
from interp.microscope.words import Words, atlas_of, heads_with_words, of_atlas, with_words
from interp.model.subject import open_subject
from interp.neurons.atlas import AtlasConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..figures import figure_names

TEXT, OTHER = "w3 dog w5 w9", "w3 dog w6 w9"


@pytest.fixture(scope="module")
def opened(dog_model):
    return Opened(open_subject(str(dog_model), attention="eager"))


@pytest.fixture(scope="module")
def config(dog_model):
    asked = {"position": 2, "target": "dog", "against": "w7"}
    return LookConfig(
        str(dog_model), TEXT, **asked, other=OTHER, direction="1.down.17", k=4, keep=5
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("looks"))


@pytest.fixture(scope="module")
def run(config, store):
    return run_or_load(config, store)


def test_the_chosen_position_has_the_target_and_the_others_the_likeliest(run):
    values, tokens = run.table("values"), run.table("tokens")
    assert values["target"][2] == "'dog' - 'w7'"
    likeliest = [f"{said[0]!r} - mean" for said in tokens["next"]]
    assert values["target"].drop(2).tolist() == [likeliest[0], likeliest[1], likeliest[3]]
    sums = run.table("parts").groupby("position")["contribution"].sum()
    assert sums.tolist() == pytest.approx(values["value"].tolist(), abs=1e-4)
    assert run.metrics["largest error of a sum"] < 1e-4
    assert run.metrics["value"] == values["value"][2]


def test_what_is_stored_is_what_a_question_to_the_open_model_answers(run, config, opened):
    question = Question(TEXT, 2, "dog", "w7")
    found = explained(opened, question, keep=5)
    stored = figures.of_position(run.table("neurons"), 2)
    assert found.neurons["name"].tolist() == stored["name"].tolist()
    assert found.neurons["raises"].map(list).tolist() == stored["raises"].map(list).tolist()
    assert found.value == pytest.approx(run.metrics["value"])
    other = compared(opened, question, OTHER, keep=5)
    assert other.rows["difference"].tolist() == pytest.approx(
        run.table("differences")["difference"].tolist(), abs=1e-5
    )
    assert other.position == run.metrics["position in the other text"] == 2


def test_an_open_model_makes_the_same_run(run, config, opened, tmp_path):
    made = look_with(config, opened, Store(tmp_path))
    assert made.path.name == run.path.name
    for name in ("tokens", "values", "differences", "scores", "cells"):
        assert made.table(name).round(5).equals(run.table(name).round(5))


def test_every_figure_is_drawn(run):
    names = figure_names(run)
    assert {"surprise", "next", "parts", "heads", "neurons", "lens", "differing neurons"} <= names
    bars = figures.waterfall(figures.of_position(run.table("parts"), 2), "'dog' - 'w7'")
    last = bars.data[-1]
    assert float(last.y[0]) == pytest.approx(run.metrics["value"], abs=1e-4)


def test_its_command(config, run, store, capsys):
    words = ["prompt", "look", TEXT, "--model", config.model, "--position", "2"]
    words += ["--target", "dog", "--against", "w7", "--other", OTHER, "--direction", "1.down.17"]
    words += ["--k", "4", "--keep", "5", "--runs", str(store.root)]
    parse(words)()
    printed = capsys.readouterr().out
    assert "After 'w5' (position 2), direct contributions to 'dog' - 'w7':" in printed
    assert "1.down.17" in printed
    assert "In the other text" in printed
    parse([*words, "--json"])()
    answer = json.loads(capsys.readouterr().out)
    assert answer["run"] == str(run.path)
    assert answer["metrics"]["explained"] == "'dog' - 'w7'"


def test_another_constant_is_another_run(dog_model, config, own_home, tmp_path):
    """Scores of the same vector differ by the two constants, which is all that tells them apart."""
    found = []
    for constant in (0.0, 5.0):
        made = Directions.of([1.0] * 32, "1.resid_post", str(dog_model), "probe", "", constant)
        made.save(tmp_path / str(constant))
        found.append(run_or_load(replace(config, direction=str(tmp_path / str(constant)))))
    assert found[0].path != found[1].path
    scores = [run.table("scores")["score"] for run in found]
    assert (scores[1] - scores[0]).tolist() == pytest.approx([5.0] * 4, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": "   "}, "empty"),
        ({"other": TEXT}, "the same"),
        ({"alone": True}, "--against"),
        ({"keep": 0}, "--keep"),
        ({"k": 0}, "--k must be 1 to 211, not 0"),
        ({"k": 212}, "--k must be 1 to 211, not 212"),
        ({"position": 9}, "0 to 3"),
        ({"target": "w7"}, "same token"),
        ({"target": "w1 w2"}, "2 tokens"),
        ({"other": "w1"}, "no counterpart"),
        ({"direction": "9.down.1"}, "no layer 9"),
    ],
)
def test_what_cannot_be_asked(config, changes, says, own_home):
    with pytest.raises(UserError, match=says):
        run_or_load(replace(config, **changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"position": 9}, "0 to 3"),
        ({"target": "w7"}, "same token"),
        ({"target": "w1 w2"}, "2 tokens"),
        ({"other": "w1"}, "no counterpart"),
    ],
)
def test_what_the_tokenizer_alone_shows_is_refused_before_the_model_is_opened(
    config, changes, says, monkeypatch
):
    monkeypatch.setattr("interp.model.subject.open_subject", None)
    with pytest.raises(UserError, match=says):
        replace(config, **changes).check()


def test_the_key_is_another_where_the_direction_is(config, dog_model):
    same = replace(config, direction=" 1.down.17")
    assert same.fingerprints() == config.fingerprints()
    assert replace(config, direction="1.down.3").fingerprints() != config.fingerprints()


def test_a_negative_activation_turns_the_words_round(opened):
    """The planted 1.down.17 writes 'dog' with a positive activation and against it with a
    negative one."""
    rows = neuron_table(direct_of(opened, Question(TEXT, 2, "dog")), keep=3)
    own = rows[rows["name"] == "1.down.17"].iloc[[0]]
    for sign, side in ((1.0, "raises"), (-1.0, "lowers")):
        told = with_words(opened, own.assign(activation=sign))
        assert told[side].iloc[0][0] == "dog"
    assert Words(["a"], ["b"]).times(0.0) == Words([], [])


def test_an_atlas_of_the_model_gives_the_same_words(opened, dog_model, own_home):
    assert atlas_of(opened, Store()) is None
    atlas = run_or_load(AtlasConfig(str(dog_model), k=8))
    assert atlas_of(opened, Store()).path == atlas.path
    rows = neuron_table(direct_of(opened, Question(TEXT, 2, "dog")), keep=6)
    with_one, without = with_words(opened, rows, atlas), with_words(opened, rows)
    assert with_one["raises"].tolist() == without["raises"].tolist()
    assert set(of_atlas(atlas, ["1.down.17", "0.down.3"])) == {"1.down.17", "0.down.3"}


def test_a_head_s_words_are_those_of_what_it_writes(opened):
    direct = direct_of(opened, Question(TEXT, 2, "dog"))
    rows = heads_with_words(direct, head_table(direct, 4))
    model = opened.subject.network
    first = rows.iloc[0]
    x = opened.subject.capture(direct.passed.batch, [f"{first['layer']}.head_z"])
    z = next(iter(x.values()))[0, 2, first["head"]]
    width = len(z)
    matrix = model.model.layers[first["layer"]].self_attn.o_proj.weight
    written = matrix[:, first["head"] * width : (first["head"] + 1) * width] @ z
    best = int((model.lm_head.weight @ written).argmax())
    assert first["raises"][0] == ("dog" if best == 123 else f"w{best}")


def test_the_text_up_to_a_token(opened):
    assert prefix(opened, Question(TEXT, 1)) == ""  # 'w3dog', of another token
    assert prefix(opened, Question(TEXT, -1)) == TEXT
    assert prefix(opened, Question(TEXT, 0)) == "w3"


def test_the_likeliest_is_asked_for_without_a_target(opened):
    seen = opened.passed(TEXT)
    asked = ask(seen, 1)
    assert asked.token == int(seen.logits(1).argmax())
    assert asked.mean
    assert not ask(seen, 1, alone=True).mean
    direct = Direct.one(seen, 1, ask(seen, 1, alone=True))
    assert float(direct.values) == pytest.approx(float(seen.logits(1).max()))
    assert torch.isfinite(direct.u).all()
