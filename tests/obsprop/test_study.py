"""The whole study on a model with a planted circuit, its tasks' files, and the mistakes."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from interp.cli import main
from interp.directions import Directions
from interp.errors import UserError
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.obsprop import session
from interp.obsprop.couple import CoupleConfig
from interp.obsprop.observables import make_observable
from interp.obsprop.parts import Parts
from interp.obsprop.paths import parse_path, path_feature
from interp.obsprop.scoring import as_directions, scores
from interp.obsprop.study import ObspropConfig
from interp.obsprop.tasks import shipped
from interp.obsprop.writers import writers
from interp.runs.study import plan, run_or_load

from .planted import TASK, planted, write_task  # noqa: F401 - a fixture


@pytest.fixture
def config(planted, own_home, tmp_path):  # noqa: F811
    task = write_task(tmp_path)
    small = {"labelled": (2, 8), "draws": 3, "boots": 50, "paths": 4, "pairs": 2}
    return ObspropConfig(model=str(planted), observable=str(task), texts=("w1 w100 w2",), **small)


def test_planted_head_is_found_and_tells_the_classes_apart(config):
    run = run_or_load(config)
    assert run.metrics["path"] == "1.2"
    assert run.metrics["site"] == "1.resid_pre"
    assert run.metrics["auc"] == 1.0
    assert run.metrics["r2"] > 0.5
    assert run.metrics["gap kept without it"] < 0.2
    assert run.metrics["gap kept, random"] > 0.8
    heads = pd.read_parquet(run.path / "heads" / "heads.parquet")
    best = heads.loc[heads["effect"].idxmax()]
    assert (best["layer"], best["head"]) == (1, 2)
    paths = pd.read_parquet(run.path / "paths" / "paths.parquet")
    assert paths.iloc[0]["path"] == "1.2"
    assert paths.iloc[0]["read"]
    assert list(paths.iloc[0]["tokens"]) == ["w100", "w3"]
    pairs = pd.read_parquet(run.path / "scores" / "pairs.parquet")
    assert set(pairs["path"]) == {"1.2"}
    steering = pd.read_parquet(run.path / "checks" / "steering.parquet").set_index("name")
    own = steering.loc["1.2"].set_index("strength")["observable"]
    assert own[2.0] > own[1.0] > float(steering.loc["unsteered"]["observable"]) > own[-1.0]


def test_bare_difference_of_the_pair_is_scored_beside_it(config):
    """The naive twin: activations of the two prompts at the word, behind the norm, subtracted."""
    run = run_or_load(config)
    methods = pd.read_parquet(run.path / "scores" / "methods.parquet").set_index("method")
    table = pd.read_parquet(run.path / "scores" / "examples.parquet")
    subject, site = open_subject(config.model), Site("resid_pre", 1)

    def read(text, word):
        batch = subject.tokens(text)
        at = batch.ids[0].tolist().index(int(word[1:]))
        x = subject.capture(batch, [site])[site][0, at].double()
        return (x / (x.square().mean() + subject.spec.eps).sqrt()).numpy()

    difference = read(TASK["pair"][0], "w100") - read(TASK["pair"][1], "w120")
    scores = [
        read(text.replace("w", " w"), word) @ difference
        for text, word in table[["text", "group"]].itertuples(index=False)
    ]
    want = np.corrcoef(scores, table["observable"])[0, 1] ** 2
    assert methods.loc["pair difference", "r2"] == pytest.approx(want, abs=1e-4)


def test_saved_features_score_as_the_tables_say(config):
    run = run_or_load(config)
    directions = Directions.load(run.path / "directions" / "1.resid_pre")
    assert "1.2" in set(directions.index["name"])
    row = list(directions.index["name"]).index("1.2")
    subject = open_subject(config.model)
    tokens = pd.read_parquet(run.path / "texts" / "tokens.parquet")
    stream = subject.capture(subject.tokens("w1 w100 w2"), [directions.site])[directions.site][0]
    got = scores(directions, stream, subject.spec)[:, row]
    np.testing.assert_allclose(got, tokens["score"], rtol=1e-4, atol=1e-5)
    table = pd.read_parquet(run.path / "scores" / "examples.parquet")
    assert not (set(table["group"]) & {"w100", "w120"}), "the pair's words are not held out"
    assert table[table["positive"]]["score"].min() > table[~table["positive"]]["score"].max()


def test_score_is_the_vector_behind_the_norm(planted):  # noqa: F811
    """The naive twin: feature.vector @ norm(x) + offset."""
    subject, parts = open_subject(planted), Parts(Weights(planted))
    observable = make_observable("planted", TASK["observable"], parts.weights)
    feature = path_feature(parts, observable, parse_path("1.2"))
    directions = as_directions(parts, [feature], {})
    x = subject.capture(subject.tokens("w3 w110 w8"), [directions.site])[directions.site]
    want = parts.norm("attn", 1)(x) @ feature.vector + feature.offset
    torch.testing.assert_close(scores(directions, x, subject.spec)[..., 0], want)


def test_writers_are_the_neurons_nearest_to_the_feature(planted):  # noqa: F811
    parts = Parts(Weights(planted))
    observable = make_observable("planted", TASK["observable"], parts.weights)
    directions = as_directions(parts, [path_feature(parts, observable, parse_path("1.2"))], {})
    found = writers(parts, directions, keep=5)
    down = parts.weights.W_down(0)
    cosines = torch.nn.functional.cosine_similarity(down, directions.vectors[0][None])
    best = int(cosines.abs().argmax())
    assert found["name"].iloc[0] == f"0.down.{best}"
    assert found["cosine"].iloc[0] == pytest.approx(float(cosines[best]), rel=1e-4)


def test_gradient_features_have_no_score(planted):  # noqa: F811
    parts = Parts(Weights(planted))
    observable = make_observable("planted", TASK["observable"], parts.weights)
    feature = path_feature(parts, observable, parse_path("1.2"))
    true = type(feature)(feature.path, feature.vector, 0.0, "gradient")
    with pytest.raises(UserError, match="zero by construction"):
        as_directions(parts, [true], {})


def test_coupling_study(planted, own_home, tmp_path):  # noqa: F811
    other = tmp_path / "other.yaml"
    other.write_text(write_task(tmp_path, observable={"w10": 2, "w12": -1}).read_text())
    corpus = tmp_path / "corpus.txt"
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(1, 211, (600,), generator=generator).tolist()
    corpus.write_text(" ".join(f"w{i}" for i in drawn))
    names = (str(write_task(tmp_path)), str(other))
    settings = {"heads": 2, "tokens": 512, "corpus": str(corpus)}
    run = run_or_load(CoupleConfig(model=str(planted), observables=names, **settings))
    pairs = pd.read_parquet(run.path / "pairs" / "pairs.parquet")
    assert len(pairs) == 4
    assert run.metrics["inside the interval"] == 1.0
    there = pairs.groupby("head")["coupling"].prod()
    np.testing.assert_allclose(there, pairs.groupby("head")["cosine"].first() ** 2, rtol=1e-5)
    copy = tmp_path / "copy.yaml"
    copy.write_text(other.read_text())
    wrong = {
        "no two of them the same": {"observables": (names[0], names[0])},
        "at least two observables, no two of": {"observables": (names[1], str(copy))},
        "1 to 8 heads": {"observables": names, "heads": 9},
        "from 0 up": {"observables": names, "seed": -1},
    }
    for says, settings in wrong.items():
        with pytest.raises(UserError, match=says):
            run_or_load(CoupleConfig(model=str(planted), **settings))


def test_words_of_several_tokens_are_read_where_examples_are(planted, own_home, tmp_path):  # noqa: F811
    """All words end in the same token, where examples are read: the feature is one read there,
    though the planted circuit reads the first token, the last that differs."""
    words = [[f"{word}-w5" for word in side] for side in TASK["words"]]
    pair = ["w1 w100-w5 w2 w3", "w1 w120-w5 w2 w3"]
    task = write_task(tmp_path, words=words, pair=pair, templates=["w1 [WORD] w2 w3"])
    small = {"labelled": (2,), "draws": 2, "boots": 20, "pairs": 0}
    run = run_or_load(ObspropConfig(model=str(planted), observable=str(task), **small))
    paths = pd.read_parquet(run.path / "paths" / "paths.parquet")
    assert paths["read"].any()
    assert {positions[0] for positions in paths[paths["read"]]["positions"]} == {3}
    assert run.metrics["path"] in set(paths[paths["read"]]["path"])


def test_without_a_trained_probe_nothing_is_beaten(config):
    run = run_or_load(dataclasses.replace(config, labelled=(2000,)))
    assert run.metrics["auc"] == 1.0
    assert run.metrics["auc beats every probe with"] == 0


def test_an_edited_file_or_tokenizer_is_another_run(config, planted, tmp_path):  # noqa: F811
    before = plan(config)["key"]
    first = run_or_load(config)
    write_task(tmp_path, observable={"w10": 1, "w12": -1})
    second = run_or_load(config)
    assert second.path != first.path, "the config object has read the old file"
    assert second.manifest["words"] == {"w10": 1.0, "w12": -1.0}
    write_task(tmp_path)
    model = tmp_path / "other"
    shutil.copytree(planted, model)
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text.replace('"w100"', '"x"').replace('"w101"', '"w100"'))
    assert plan(dataclasses.replace(config, model=str(model)))["key"] != before


def test_a_drawn_pair_without_a_path_is_a_row_of_nothing(config, monkeypatch):
    """After the search, and nothing else is lost."""
    own = session._strongest
    asked = iter([own])  # for the task's own pair

    def strongest(found, told):
        return next(asked, lambda found, told: None)(found, told)

    monkeypatch.setattr(session, "_strongest", strongest)
    run = run_or_load(config)
    pairs = pd.read_parquet(run.path / "scores" / "pairs.parquet")
    assert len(pairs) == 2
    assert pairs[["path", "site", "effect", "auc", "r2"]].isna().all(axis=None)


class TestObservables:
    def test_words_are_looked_up_exactly(self, planted):  # noqa: F811
        weights = Weights(planted)
        found = make_observable("o", {"w7": 2, "w9": -1}, weights)
        dense = found.dense(weights.spec.d_vocab)
        assert dense[7] == 2
        assert dense[9] == -1
        assert dense.abs().sum() == 3
        logits = torch.randn(4, 211, dtype=torch.float64)
        torch.testing.assert_close(found.value(logits), logits @ dense)
        torch.testing.assert_close(found.start(weights.W_U()), weights.W_U().double().T @ dense)

    def test_a_word_of_several_tokens_stands_by_its_first(self, planted):  # noqa: F811
        found = make_observable("o", {"w7 w8": 1}, Weights(planted))
        assert found.ids.tolist() == [7]
        assert "is 2 tokens: its first, 'w7', stands for it" in found.notes[0]

    def test_a_soft_cap_is_said_to_be_left_out(self, model_folder, own_home):
        weights = Weights(model_folder("gemma2", final_logit_softcapping=30.0))
        (note,) = make_observable("o", {"#7": 1}, weights).notes
        assert "before the model's soft cap of 30" in note

    def test_words_that_cancel_are_a_mistake(self, planted):  # noqa: F811
        with pytest.raises(UserError, match="cancel"):
            make_observable("o", {"w7 w8": 1, "w7": -1}, Weights(planted))

    def test_she_without_a_space_is_warned_of(self):
        from interp.model.weights import open_weights

        weights = open_weights("smollm2-135m")
        assert make_observable("o", {" she": 1}, weights).notes == ()
        assert (
            "inside a sentence the model says ' she'"
            in make_observable("o", {"she": 1}, weights).notes[0]
        )


def test_commands(config, capsys):
    command = ["obsprop", "run", "--model", config.model, "--observable", config.observable]
    small = ["--labelled", "2", "--draws", "2", "--boots", "20", "--pairs", "0", "--json"]
    assert main([*command, *small]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["study"] == "obsprop.run"
    assert found["metrics"]["path"] == "1.2"
    heads = [
        "obsprop",
        "heads",
        "--plus",
        "w10",
        "--minus",
        "w11",
        "--model",
        config.model,
        "--json",
    ]
    assert main(heads) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert rows[0]["name"] in ("1.2", "1.3")
    assert main(["obsprop", "tasks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["tasks"] == len(shipped())


def test_mistakes_are_one_line(config, capsys, monkeypatch):
    assert main(["obsprop", "run", "--observable", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("interp: no observable 'nonsense'")
    command = ["obsprop", "run", "--model", config.model, "--observable", config.observable]
    wrong = {
        "half of each class": ["--labelled", "3"],
        "a number from 0 up": ["--seed", "-1"],
        "an empty prompt": ["--texts", ""],
        "more than the model's context": ["--texts", " w1" * 70],
        "device 'nonsense' cannot be used": ["--device", "nonsense"],
    }
    monkeypatch.setattr(session.Session, "search", None)  # noticed before it
    for says, options in wrong.items():
        assert main([*command, *options]) == 2
        assert says in capsys.readouterr().err
    assert main(["obsprop", "heads", "--plus", "w10", "--minus", "w10"]) == 2
    assert "'w10' is on both sides" in capsys.readouterr().err
