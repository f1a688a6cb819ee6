"""The whole study on a model with a planted circuit, its tasks' files, and the mistakes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from interp.cli import main
from interp.directions import Directions
from interp.errors import UserError
from interp.obsprop import code
from interp.obsprop.couple import CoupleConfig
from interp.obsprop.observables import make_observable
from interp.obsprop.parts import Parts
from interp.obsprop.paths import parse_path, path_feature
from interp.obsprop.scoring import as_directions, best_places, scores
from interp.obsprop.study import ObspropConfig
from interp.obsprop.tasks import draw_pairs, examples, read_task, shipped
from interp.obsprop.writers import writers
from interp.site import Site
from interp.study import run_or_load
from interp.subject import open_subject
from interp.weights import Weights

from .planted import NEGATIVE, POSITIVE, TASK, planted, write_task  # noqa: F401 - a fixture


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


def test_best_places_of_a_corpus_are_those_of_all_scores(planted):  # noqa: F811
    subject, parts = open_subject(planted), Parts(Weights(planted))
    observable = make_observable("planted", TASK["observable"], parts.weights)
    directions = as_directions(parts, [path_feature(parts, observable, parse_path("1.2"))], {})
    generator = torch.Generator().manual_seed(0)
    lengths = (9, 4, 7, 9, 5)
    rows = [torch.randint(1, 211, (n,), generator=generator).tolist() for n in lengths]
    every = []
    for r, row in enumerate(rows):
        x = subject.capture(subject.pad([row]), [directions.site])[directions.site][0]
        values = scores(directions, x, subject.spec)[:, 0].tolist()
        every += [(value, r, p) for p, value in enumerate(values)]
    found = best_places(subject, iter(rows), directions, keep=3, batch_size=2)
    for side, order in (("top", sorted(every, reverse=True)), ("bottom", sorted(every))):
        part = found[found["side"] == side]
        assert list(zip(part["row"], part["position"], strict=True)) == [e[1:] for e in order[:3]]
        np.testing.assert_allclose(part["score"], [e[0] for e in order[:3]], rtol=1e-4, atol=1e-5)


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
    with pytest.raises(UserError, match="at least two different"):
        run_or_load(CoupleConfig(model=str(planted), observables=(names[0], names[0])))


class TestTasks:
    @pytest.mark.parametrize("name", shipped())
    def test_shipped_ones_are_sound(self, name):
        task = read_task(name)
        assert task.about
        assert task.observable
        if task.sources is None:
            assert len(task.templates) >= 3
            positive, negative = task.words
            assert not set(positive) & set(negative)
            assert len(set(positive)) == len(positive) >= 60
            filled = {t.replace("[WORD]", w) for t in task.templates for w in positive}
            assert task.pair[0] in filled, "the pair is one of the task's own examples"

    def test_splits_share_no_word_and_read_it_at_its_last_token(self, planted):  # noqa: F811
        tokenizer = AutoTokenizer.from_pretrained(planted)
        task = read_task(str(write_task(planted)))
        split = examples(task, tokenizer)
        words = [{e.group for e in part} for part in split]
        assert not words[0] & words[1]
        assert words[0] | words[1] == {*POSITIVE, *NEGATIVE}
        assert {"w100", "w120"} <= words[0]
        for example in [*split.train, *split.held_out]:
            (at,) = example.reads
            assert f"w{example.ids[at]}" == example.group
            assert example.positive == (example.group in POSITIVE)
        for one, other in draw_pairs(split.train, 5, 0):
            assert one.positive
            assert not other.positive
            assert one.reads == other.reads
            assert len(one.ids) == len(other.ids)

    def test_people_of_one_name_are_on_one_side(self, planted, tmp_path):  # noqa: F811
        own = [[f"w{i} w{i % 7 + first}" for i in range(20, 50)] for first in (100, 120)]
        task = read_task(str(write_task(tmp_path, words=own)))
        split = examples(task, AutoTokenizer.from_pretrained(planted))
        names = [{e.group for e in part} for part in split]
        assert not names[0] & names[1]
        assert names[0] | names[1] == {f"w{i + first}" for i in range(7) for first in (100, 120)}
        assert all(f"w{e.ids[e.reads[0]]}" == e.group for part in split for e in part)

    def test_code_of_both_languages_is_here_and_files_are_not_split(self):
        for language, ending in (("C", (".c", ".h")), ("Python", (".py",))):
            files = code.source_files(language)
            assert len(files) > 20
            assert all(path.suffix in ending for path in files)
        assert not any("std::" in code.text(path) for path in code.source_files("C"))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"templates": ["no slot"]}, "needs a .WORD."),
            ({"pair": ["one"]}, "is no task"),
            ({"words": ["nobody", "male names"]}, "is no task"),
            ({"observable": {"w10": "much"}}, "is no task"),
        ],
    )
    def test_files_that_are_no_tasks(self, change, says, tmp_path):
        with pytest.raises(UserError, match=says):
            read_task(str(write_task(tmp_path, **change)))

    def test_unknown_names_say_which_there_are(self):
        with pytest.raises(UserError, match="choose one of c-vs-python, object-pronoun"):
            read_task("nonsense")


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

    def test_words_that_cancel_are_a_mistake(self, planted):  # noqa: F811
        with pytest.raises(UserError, match="cancel"):
            make_observable("o", {"w7 w8": 1, "w7": -1}, Weights(planted))

    def test_she_without_a_space_is_warned_of(self):
        from interp.weights import open_weights

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


def test_mistakes_are_one_line(config, capsys):
    assert main(["obsprop", "run", "--observable", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("interp: no observable 'nonsense'")
    assert main(["obsprop", "run", "--labelled", "3", "--model", config.model]) == 2
    assert "half of each class" in capsys.readouterr().err
