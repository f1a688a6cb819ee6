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
from interp.model import edits
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.obsprop import checks, search
from interp.obsprop.couple import CoupleConfig
from interp.obsprop.coupling import read_prompts_and_corpus
from interp.obsprop.model_weights import StackedWeights
from interp.obsprop.observables import make_observable
from interp.obsprop.opened import open_task
from interp.obsprop.parts import pair_found
from interp.obsprop.paths import parse_path, path_feature
from interp.obsprop.scoring import as_directions
from interp.obsprop.study import ObspropConfig
from interp.obsprop.tables import pair_table
from interp.obsprop.task_files import read_task, shipped
from interp.obsprop.tasks import Example, draw_pairs
from interp.obsprop.writers import writers
from interp.runs.store import Store
from interp.runs.study import plan, run_or_load

from ..figures import figure_names
from ..workers import assert_same_by_two
from .planted import CHEAP, TASK, planted, studied, write_task  # noqa: F401 - two fixtures


def test_planted_head_is_found_and_tells_the_classes_apart(studied):  # noqa: F811
    run = studied[1]
    assert run.metrics["path"] == "1.2"
    assert run.metrics["site"] == "1.resid_pre"
    assert run.metrics["auc"] == 1.0
    assert run.metrics["r2"] > 0.5
    assert run.metrics["gap kept without it"] < 0.2
    assert run.metrics["gap kept, random"] > 0.8
    heads = run.table("heads/heads")
    best = heads.loc[heads["effect"].idxmax()]
    assert (best["layer"], best["head"]) == (1, 2)
    paths = run.table("paths/paths")
    assert paths.iloc[0]["path"] == "1.2"
    assert paths.iloc[0]["read"]
    assert list(paths.iloc[0]["tokens"]) == ["w100", "w3"]
    assert set(run.table("scores/pairs")["path"]) == {"1.2"}
    for table in (paths, run.table("scores/methods")):
        assert set(table["unit"]) == {"held-out group"}
    steering = run.table("checks/steering").set_index("name")
    own = steering.loc["1.2"].set_index("strength")["observable"]
    assert own[2.0] > own[1.0] > float(steering.loc["unsteered"]["observable"]) > own[-1.0]


def test_its_figures_are_drawn(studied):  # noqa: F811
    assert figure_names(studied[1]) == {"heads-norm", "heads-effect", "auc", "r2", "scores"}


def test_bare_difference_of_the_pair_is_scored_beside_it(studied):  # noqa: F811
    """The naive twin: activations of the two prompts at the word, behind the norm, subtracted."""
    config, run, _ = studied
    methods = run.table("scores/methods").set_index("method")
    table = run.table("scores/examples")
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


def test_saved_features_score_as_the_tables_say(studied):  # noqa: F811
    config, run, _ = studied
    directions = Directions.load(run.path / "directions" / "1.resid_pre")
    assert "1.2" in set(directions.index["name"])
    row = list(directions.index["name"]).index("1.2")
    subject = open_subject(config.model)
    stream = subject.capture(subject.tokens("w1 w100 w2"), [directions.site])[directions.site][0]
    got = directions.scores(stream)[:, row]
    np.testing.assert_allclose(got, run.table("texts/tokens")["score"], rtol=1e-4, atol=1e-5)
    table = run.table("scores/examples")
    assert not (set(table["group"]) & {"w100", "w120"}), "the pair's words are not held out"
    assert table[table["positive"]]["score"].min() > table[~table["positive"]]["score"].max()


def test_score_is_the_vector_behind_the_norm(planted):  # noqa: F811
    """The naive twin: feature.vector @ norm(x) + offset."""
    subject, weights = open_subject(planted), StackedWeights(Weights(planted))
    observable = make_observable("planted", TASK["observable"], weights.stored)
    feature = path_feature(weights, observable, parse_path("1.2"))
    directions = as_directions(weights, [feature], "test")
    x = subject.capture(subject.tokens("w3 w110 w8"), [directions.site])[directions.site]
    want = weights.norm("attn", 1)(x) @ feature.vector + feature.offset
    torch.testing.assert_close(directions.scores(x)[..., 0], want, check_dtype=False)


def test_writers_are_the_neurons_nearest_to_the_feature(planted):  # noqa: F811
    weights = StackedWeights(Weights(planted))
    observable = make_observable("planted", TASK["observable"], weights.stored)
    directions = as_directions(
        weights, [path_feature(weights, observable, parse_path("1.2"))], "test"
    )
    found = writers(weights, directions, keep=5)
    down = weights.stored.neurons("down", 0)
    cosines = torch.nn.functional.cosine_similarity(down, directions.vectors[0][None])
    best = int(cosines.abs().argmax())
    assert found["name"].iloc[0] == f"0.down.{best}"
    assert found["cosine"].iloc[0] == pytest.approx(float(cosines[best]), rel=1e-4)


def test_dot_is_what_a_unit_of_activation_adds(model_folder):
    """Measured: the neuron is held 1 higher, in a family that scales what is added (Granite)."""
    subject = open_subject(model_folder("granite"))
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    feature = Directions(Site("resid_post", 1), vector, pd.DataFrame({"name": ["v"]}))
    found = writers(StackedWeights(subject.weights), feature, keep=1).iloc[0]
    hidden, stream, ids = Site("mlp_post", 0), Site("resid_post", 0), torch.tensor([[1, 9, 44]])
    higher = torch.zeros(subject.spec.d_mlp)
    higher[int(found["name"].split(".")[2])] = 1.0
    before = subject.capture(ids, [stream])[stream]
    with subject.edited(edits.add(hidden, higher)):
        moved = subject.capture(ids, [stream])[stream] - before
    assert float(moved[0, -1] @ vector[0]) == pytest.approx(found["dot"], rel=1e-3)
    cosine = torch.cosine_similarity(moved[0, -1], vector[0], dim=0)
    assert found["cosine"] == pytest.approx(float(cosine), rel=1e-3)


def test_gradient_features_have_no_score(planted):  # noqa: F811
    weights = StackedWeights(Weights(planted))
    observable = make_observable("planted", TASK["observable"], weights.stored)
    feature = path_feature(weights, observable, parse_path("1.2"))
    true = type(feature)(feature.path, feature.vector, 0.0, "gradient")
    with pytest.raises(UserError, match="zero by construction"):
        as_directions(weights, [true], "test")


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
    assert {"prompts", "corpus"} < figure_names(run)
    pairs = run.table("pairs/pairs")
    assert len(pairs) == 4
    assert run.metrics["inside the interval"] == 1.0
    there = pairs.groupby("head")["coupling"].prod()
    np.testing.assert_allclose(there, pairs.groupby("head")["cosine"].first() ** 2, rtol=1e-5)
    copy = tmp_path / "copy.yaml"
    copy.write_text(other.read_text())
    wrong = {
        "no two of them the same": {"observables": (names[0], names[0])},
        "at least two observables, no two of": {"observables": (names[1], str(copy))},
        "--heads must be 1 to 8": {"heads": 9},
        "--tokens must be at least 128": {"tokens": 127},
        "--seed must be at least 0": {"seed": -1},
    }
    right = {"observables": names, **settings}
    for says, settings in wrong.items():
        with pytest.raises(UserError, match=says):
            run_or_load(CoupleConfig(model=str(planted), **(right | settings)))


def test_slopes_are_measured_at_words_and_not_at_first_tokens(planted):  # noqa: F811
    """The naive twin: every activation of the model's own pass, behind the norm, one by one."""
    subject, site = open_subject(planted), Site("resid_pre", 1)
    rows = [[3, 110, 8, 9], [5, 7, 120, 2]]
    word = Example([1, 100, 2], [1], True, "w100")
    prompts, corpus = read_prompts_and_corpus(subject, [site], [word], rows)[site]

    def read(ids, positions):
        x = subject.capture(torch.tensor(ids), [site])[site][0, positions].double()
        return (x / (x.square().mean(-1, keepdim=True) + subject.spec.eps).sqrt()).numpy()

    np.testing.assert_allclose(prompts, read(word.ids, [1]), rtol=1e-5)
    want = np.concatenate([read(row, [1, 2, 3]) for row in rows])
    np.testing.assert_allclose(corpus, want, rtol=1e-4, atol=1e-6)


def test_words_of_several_tokens_are_read_where_examples_are(planted, own_home, tmp_path):  # noqa: F811
    """All words end in the same token, where examples are read: the feature is one read there,
    though the planted circuit reads the first token, the last that differs."""
    words = [[f"{word}-w5" for word in side] for side in TASK["words"]]
    pair = ["w1 w100-w5 w2 w3", "w1 w120-w5 w2 w3"]
    task = write_task(tmp_path, words=words, pair=pair, templates=["w1 [WORD] w2 w3"])
    settings = {**CHEAP, "paths": 12, "depth": 3}
    run = run_or_load(ObspropConfig(model=str(planted), observable=str(task), **settings))
    paths = run.table("paths/paths")
    assert paths["read"].any()
    assert {positions[0] for positions in paths[paths["read"]]["positions"]} == {3}
    assert run.metrics["path"] in set(paths[paths["read"]]["path"])


def test_without_a_trained_probe_nothing_is_beaten(studied, own_home):  # noqa: F811
    run = run_or_load(dataclasses.replace(studied[0], **CHEAP | {"labelled": (2000,)}))
    assert run.metrics["auc"] == 1.0
    assert run.metrics["auc beats every probe with"] == 0


def test_an_edited_file_or_tokenizer_is_another_run(planted, own_home, tmp_path):  # noqa: F811
    config = ObspropConfig(str(planted), str(write_task(tmp_path)), **CHEAP)
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


def test_a_drawn_pair_without_a_path_is_a_row_of_nothing(studied, monkeypatch):  # noqa: F811
    config = studied[0]
    task, stored = read_task(config.observable), config.stored_weights
    subject = open_subject(config.model, attention="eager")
    opened = open_task(task, stored, subject, seed=0, windows=1)
    held_out = opened.read(opened.split.held_out, [Site("resid_pre", 1)], "examples")
    monkeypatch.setattr(search, "search_paths", lambda *given, **sizes: [])
    drawn = draw_pairs(opened.split.train, 2, seed=0)
    pairs = pair_table([pair_found(config, opened, pair) for pair in drawn], held_out, 0)
    assert len(pairs) == 2
    assert set(pairs["prompt"]) <= {
        opened.subject.text(torch.tensor(e.ids)) for e in opened.split.train
    }
    assert pairs[["path", "site", "effect", "auc", "r2"]].isna().all(axis=None)


class TestObservables:
    def test_words_are_looked_up_exactly(self, planted):  # noqa: F811
        weights = Weights(planted)
        found = make_observable("o", {"w7": 2, "w9": -1}, weights)
        assert dict(zip(found.ids.tolist(), found.weights.tolist(), strict=True)) == {7: 2, 9: -1}
        dense = torch.zeros(211, dtype=torch.float64)
        dense[[7, 9]] = torch.tensor([2.0, -1.0], dtype=torch.float64)
        logits = torch.randn(4, 211, dtype=torch.float64)
        torch.testing.assert_close(found.value(logits), logits @ dense)
        torch.testing.assert_close(found.start(weights.W_U()), weights.W_U().double().T @ dense)

    def test_of_a_word_of_several_tokens_the_first_counts(self, planted):  # noqa: F811
        found = make_observable("o", {"w7 w8": 1}, Weights(planted))
        assert found.ids.tolist() == [7]
        assert "is 2 tokens: only the first, 'w7', counts" in found.notes[0]

    def test_a_soft_cap_is_said_to_be_left_out(self, model_folder, own_home):
        weights = Weights(model_folder("gemma2", final_logit_softcapping=30.0))
        (note,) = make_observable("o", {"#7": 1}, weights).notes
        assert "before the model's soft cap of 30" in note

    def test_words_that_cancel_are_a_mistake(self, planted):  # noqa: F811
        with pytest.raises(UserError, match="add up to 0"):
            make_observable("o", {"w7 w8": 1, "w7": -1}, Weights(planted))

    def test_she_without_a_space_is_warned_of(self):
        from interp.model.weights import open_weights

        weights = open_weights("smollm2-135m")
        assert make_observable("o", {" she": 1}, weights).notes == ()
        assert "in a sentence it is ' she'" in make_observable("o", {"she": 1}, weights).notes[0]


def test_commands(studied, capsys):  # noqa: F811
    config, run, store = studied
    command = ["obsprop", "run", "--model", config.model, "--observable", config.observable]
    settings = ["--labelled", "2", "8", "--draws", "3", "--boots", "50", "--paths", "4"]
    own = ["--pairs", "2", "--texts", *config.texts, "--runs", str(store)]
    assert main([*command, *settings, *own, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["study"] == "obsprop.run"
    assert printed["run"] == str(run.path), "the options are the config's fields"
    assert main([*command, *settings, *own]) == 0
    shown = capsys.readouterr().out
    assert "'w100' > 'w3'" in shown
    assert "pair difference" in shown
    assert "r2 within a template" in shown
    heads = ["obsprop", "heads", "--plus", "w10", "--minus", "w11", "--model", config.model]
    assert main([*heads, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert rows[0]["name"] in ("1.2", "1.3")
    assert main(["obsprop", "tasks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["tasks"] == len(shipped())


def test_mistakes_are_one_line(studied, own_home, capsys, monkeypatch):  # noqa: F811
    assert main(["obsprop", "run", "--observable", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("interp: there is no observable 'nonsense'")
    config = studied[0]
    command = ["obsprop", "run", "--model", config.model, "--observable", config.observable]
    wrong = {
        "half of the examples of each class": ["--labelled", "3"],
        "--boots at least 10": ["--boots", "9"],
        "--pairs and --seed must be at least 0": ["--seed", "-1"],
        "an empty prompt": ["--texts", ""],
        "more than the model's context": ["--texts", " w1" * 70],
        "device 'nonsense' cannot be used": ["--device", "nonsense"],
    }
    monkeypatch.setattr(search, "search_paths", None)  # noticed before it
    for says, options in wrong.items():
        assert main([*command, *options]) == 2
        assert says in capsys.readouterr().err
    assert main(["obsprop", "heads", "--plus", "w10", "--minus", "w10"]) == 2
    assert "'w10' is on both sides" in capsys.readouterr().err


def test_a_study_that_was_stopped_runs_no_part_again(studied, tmp_path, monkeypatch):  # noqa: F811
    config, whole, _ = studied
    kept, done = checks.changed, []

    def stopping(opened, kind, change, *rest):
        if len(done) == 9:
            done.append(None)
            raise KeyboardInterrupt
        done.append((kind, change.direction, change.strength))
        return kept(opened, kind, change, *rest)

    monkeypatch.setattr(checks, "changed", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, Store(tmp_path))
    again = run_or_load(config, Store(tmp_path))
    assert len(done) == 1 + (1 + 1 + 5) + (1 + 6 * 5)
    assert len(set(done)) == len(done), "each once"
    assert again.metrics == whole.metrics
    assert again.manifest["files"] == whole.manifest["files"]


def test_two_workers_make_the_same_to_the_byte(studied, tmp_path):  # noqa: F811
    assert_same_by_two(*studied[:2], tmp_path)
