"""The studies on a planted model: the two neurons that carry the target are found, and enough."""

import numpy as np
import pandas as pd
import pytest

from interp.circuits import curves
from interp.circuits.ablate import Patch, patched
from interp.circuits.prepared import prepared
from interp.circuits.rules import PREDICTING, RULES
from interp.circuits.scores import order, scores
from interp.circuits.steering import SteerConfig
from interp.circuits.summaries import enough, measurable
from interp.circuits.tasks import read_task
from interp.circuits.truth import TruthConfig
from interp.cli import circuits_truth as cli_truth
from interp.errors import UserError
from interp.model.subject import open_subject
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..figures import figure_names
from ..workers import assert_same_by_two
from .two_neurons import FIRST, LAYER, SECOND, TASK, plant


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory):
    return plant(model_folder("llama"), tmp_path_factory.mktemp("planted") / "model")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "planted.yaml"
    path.write_text(TASK)
    return path


@pytest.fixture(scope="module")
def config(model, task):
    return TruthConfig(
        str(model), task=(str(task),), counts=(1, 2, 8, 64), top=2, random=3, least_gap=0.5
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return run_or_load(config, Store(tmp_path_factory.mktemp("runs")))


def test_pairs_that_do_not_fit_are_left_out_and_named(run):
    pairs = run.table("pairs")
    reasons = list(pairs["reason"])
    assert reasons[:3] == ["", "", ""]
    assert reasons[3] == "the gap is 0.00, less than 0.5"
    assert reasons[4] == "the prompts are 3 and 2 tokens"
    assert run.metrics["pairs"] == 5
    assert run.metrics["used"] == 3
    assert (pairs["gap"][:3] > 1).all()


@pytest.mark.parametrize("ablation", ["resample", "mean"])
@pytest.mark.parametrize("rule", [*PREDICTING])
def test_two_neurons_carry_all(run, rule, ablation):
    shares = run.table("shares")
    rows = shares[(shares["rule"] == rule) & (shares["ablation"] == ablation)]
    for part in ("kept", "moved"):
        medians = rows[rows["part"] == part].set_index("n")["median"]
        assert medians[1] == pytest.approx(2 / 3, abs=1e-3)  # the final norm is no line
        for n in (2, 8, 64):
            assert medians[n] == pytest.approx(1, abs=1e-5)


def test_all_neurons_at_once_move_all(run):
    rows = run.table("shares").query("rule == 'all'")
    assert len(rows) == 2
    np.testing.assert_allclose(rows["median"], 1, atol=1e-5)


def test_how_many_are_needed(run):
    needed = run.table("needed").set_index(["rule", "ablation", "part"])
    for rule in PREDICTING:
        found = needed.loc[(rule, "resample", "kept")]
        assert found["reached"] == found["pairs"] == 3
        assert 1 < found["neurons"] < 2
    assert needed.loc[("random", "resample", "kept"), "neurons"] == np.inf


def test_predictions_agree_with_real_patching(run):
    effects = run.table("patched")
    single = effects[effects["what"] == "neuron"]
    planted = single[(single["layer"] == LAYER) & single["neuron"].isin([FIRST, SECOND])]
    assert (planted["position"] == 2).all()
    assert len(planted) == 6
    pair = planted[planted["pair"] == 0].set_index("neuron")["real"]
    assert pair[FIRST] == pytest.approx(2 * pair[SECOND], rel=0.02)
    np.testing.assert_allclose(single.drop(planted.index)["real"], 0, atol=1e-5)
    mlps = effects[effects["what"] == "MLP"]
    assert set(mlps["position"]) == {2}  # nothing differs before
    correlations = run.table("correlations")
    assert (correlations["r"] > 0.99).all()
    assert set(correlations["rule"]) == set(PREDICTING)


def test_figures(run):
    names = figure_names(run)
    assert {"kept planted", "moved planted", "needed", "correlations"} <= names


def test_a_stopped_run_goes_on_pair_by_pair(config, run, tmp_path, monkeypatch):
    done = []
    plain = curves.pair_curves

    def stopping(subject, pair, *rest):
        if len(done) == 1:
            done.append(None)
            raise KeyboardInterrupt
        done.append(pair.number)
        return plain(subject, pair, *rest)

    monkeypatch.setattr(curves, "pair_curves", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, Store(tmp_path))
    again = run_or_load(config, Store(tmp_path))
    assert done == [0, None, 1, 2]
    for name in ("curves", "shares", "patched", "correlations"):
        pd.testing.assert_frame_equal(again.table(name), run.table(name))


def test_two_workers_make_the_same_to_the_byte(config, run, tmp_path):
    assert_same_by_two(config, run, tmp_path)


def test_random_neurons_move_their_share_of_all(model, task):
    """Of n random neurons among N each planted one is a member with the chance n / N."""
    subject = open_subject(model)
    pair = prepared(subject, subject.weights, [read_task(str(task))], 0.5)[0]
    neurons, own = pair.state(subject)
    n, sets = neurons.total // 2, 300
    patches = []
    for seed in range(sets):
        drawn = scores(subject, pair.coded, neurons, own, pair.read, ["random"], seed=seed)
        patches.append(Patch(order(drawn["random"])[:n]))
    values = patched(subject, pair.coded.ids[0], neurons, own[1], patches, pair.read)
    moved = (pair.value - values) / pair.gap
    assert abs(float(moved.mean()) - 0.5) < 4 * 0.373 / sets**0.5  # 0.373: sd of 2/3 a + 1/3 b


def test_where_little_falls_there_is_no_share():
    pairs = pd.DataFrame({"task": "t", "pair": [0, 1], "value": [3.0, 3.0]})
    row = {"task": "t", "rule": "all", "part": "moved", "n": 9, "share": 1.0}
    rows = [
        {**row, "pair": pair, "ablation": ablation, "value": value}
        for pair, ablation, value in [(0, "mean", 1.5), (0, "resample", 0), (1, "mean", 1.0)]
    ]
    left = measurable(pd.DataFrame(rows), pairs, 2.0)
    assert list(zip(left["pair"], left["ablation"], strict=True)) == [(0, "resample"), (1, "mean")]


def test_enough_lies_between_two_counts():
    curve = pd.DataFrame({"n": [1, 10, 100], "share": [0.2, 0.6, 1.0]})
    assert enough(curve) == pytest.approx(10**1.5)
    assert enough(curve.assign(share=[0.9, 0.1, 0.2])) == 1
    assert enough(curve.assign(share=0.7)) == np.inf


def test_clamps_do_what_rows_say(model, task, tmp_path):
    config = SteerConfig(str(model), task=str(task), pairs=2, neurons=2, least_gap=0.5)
    run = run_or_load(config, Store(tmp_path))
    sweep = run.table("sweep")
    assert set(sweep["neuron"]) == {FIRST, SECOND}
    assert len(sweep) == 2 * 2 * len(config.factors)
    fits = run.table("fits")
    assert set(fits["rule"]) == set(PREDICTING)
    np.testing.assert_allclose(fits.query("rule == 'gradient'")["slope"], 1, atol=0.05)
    assert (fits["r2"] > 0.99).all()
    figure_names(run)


def test_clamps_by_two_workers_are_the_same_to_the_byte(model, task, tmp_path):
    config = SteerConfig(str(model), task=str(task), pairs=5, neurons=2, least_gap=0.5)
    one = run_or_load(config, Store(tmp_path / "one"))
    assert one.metrics["pairs"] == 3, "two are left out"
    assert_same_by_two(config, one, tmp_path / "two")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rules": ("best",)}, "no rule 'best': choose among half"),
        ({"rules": ()}, "no rule is given"),
        ({"counts": (0, 3)}, "--counts needs different numbers from 1 up"),
        ({"least_gap": 0.0}, "--least-gap must be more than 0"),
        ({"least_gap": 1e6}, "no pair of the task 'planted' can be used"),
        ({"top": 0}, "--compared, --top"),
        ({"task": ("nothing",)}, "there is no task 'nothing': choose one of capital"),
    ],
)
def test_mistakes_are_told(model, task, tmp_path, changes, said):
    config = TruthConfig(str(model), **{"task": (str(task),), **changes})
    with pytest.raises(UserError, match=said):
        run_or_load(config, Store(tmp_path))


def test_rules_are_all_there(run):
    assert set(run.table("curves")["rule"]) == {*RULES, "all"}


def test_what_the_commands_print(run, model, task, tmp_path, capsys):
    cli_truth.truth(run)
    printed = capsys.readouterr().out
    assert "left out of planted: 'w5 w6 w7', the gap is 0.00, less than 0.5" in printed
    assert "resample" not in printed
    for title in (
        "moved by the first n neurons, the counterfactual's activations",
        "kept by the first n neurons, the task's means",
    ):
        assert f"median share {title}:" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["planted", "half", "0.67", "1.00", "1.00", "1.00"] in lines
    assert any(line[:4] == ["planted", "random", "kept", "the"] for line in lines)
    assert " inf" not in printed
    assert f"> {max(run.config['counts'])}" in printed
    config = SteerConfig(str(model), task=str(task), pairs=1, neurons=1, least_gap=0.5)
    cli_truth.steer(run_or_load(config, Store(tmp_path)))
    assert "planted  within  half" in capsys.readouterr().out.replace("   ", "  ")
