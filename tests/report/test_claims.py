"""What figures say of tables that have no largest row, no number, one row or none: a claim is true
of all that was measured, or it is not made."""

from math import nan

import numpy as np
import pandas as pd
import pytest

from interp.bench import figures as bench
from interp.circuits import figures as circuits
from interp.circuits import figures_heads as heads
from interp.circuits import figures_truth as truth
from interp.darkmatter import figures as darkmatter
from interp.directions import figures as directions
from interp.latents import figures as latents
from interp.lens import figures as lens
from interp.linearscope import figures as linearscope
from interp.obsprop import figures as obsprop
from interp.othello import figures as othello
from interp.plots import sentences

from ..house.test_labels import rows, table


def found(figure):
    return sentences(figure)[1]


def methods(reach, **logistic):
    """One pair reaches `reach`; the probe of n examples what `n_…` says."""
    at = {int(name[1:]): auc for name, auc in logistic.items()}
    made = [{"method": "ObsProp", "labelled": 0, "auc": reach}]
    made += [{"method": "logistic", "labelled": n, "auc": auc} for n, auc in at.items()]
    made += [{"method": "pair difference", "labelled": 2, "auc": 0.99}]
    frame = pd.DataFrame(made)
    return frame.assign(auc_low=frame["auc"], auc_high=frame["auc"])


@pytest.mark.parametrize(
    ("auc", "said"),
    [
        (
            {"n2": 0.81, "n8": 0.6, "n64": 0.7},
            "passes it with 2 labelled examples, and not with 64",
        ),
        ({"n2": 0.81, "n8": 0.6, "n64": 0.9}, "the best probe passes it from 64 labelled"),
        ({"n2": 0.6, "n8": 0.85, "n64": 0.9}, "the best probe passes it from 8 labelled"),
        ({"n2": 0.81, "n8": 0.85}, "the best probe passes it from 2 labelled"),
        ({"n2": 0.8, "n8": 0.8}, "no probe passes it with up to 8 labelled"),
        ({"n2": 0.81, "n8": nan}, "the best probe passes it from 2 labelled"),
        ({"n8": nan}, "no probe was trained"),
        ({}, "no probe was trained"),
    ],
)
def test_a_probe_passes_one_pair_from_a_number_on_if_it_does_at_all_larger_ones(auc, said):
    assert said in found(obsprop.method_curves(methods(0.8, **auc), "auc"))


def test_the_best_of_several_probes_is_what_passes():
    other = methods(0.8, n2=0.7, n8=0.9).assign(method="least squares").iloc[1:3]
    both = pd.concat([methods(0.8, n2=0.9, n8=0.5), other])
    assert "passes it from 2 labelled" in found(obsprop.method_curves(both, "auc"))
    assert found(obsprop.method_curves(methods(nan, n2=0.9), "auc")) == ""


def falls(layers, entropy):
    cells = pd.DataFrame({"layer": layers, "entropy": entropy, "said": "a"})
    return found(lens.column(cells, "entropy"))


def test_a_largest_fall_is_one():
    assert falls([0, 1, 2, 3], [1.0, 2.0, 3.0, 4.5]) == "It falls at no layer."
    assert falls([0, 1], [2.0, 2.0]) == "It falls at no layer."
    assert falls([2, 10, 29], [3.0, 3.5, 1.5]) == "The largest fall is at layer 29: 2 nats."
    assert falls([3, 1], [1.0, 3.0]) == "The largest fall is at layer 3: 2 nats."
    assert falls([0, 1, 2], [3.0, nan, 2.5]) == "The largest fall is at layer 2: 0.5 nats."
    assert falls([0], [1.0]) == ""
    assert falls([0, 1], [nan, nan]) == ""


@pytest.mark.parametrize(
    ("layers", "answers", "first"),
    [
        ((2, 10, 29), ("x", "the", "the"), 10),
        ((2, 10, 29), ("the", "x", "the"), 29),
        ((2, 10, 29), ("the", "the", "the"), 2),
        ((29, 2, 10), ("the", "x", "the"), 10),
        ((29,), ("the",), 29),
    ],
)
def test_the_layer_that_an_answer_is_there_from_is_one_of_the_lens(layers, answers, first):
    none = [[] for _ in layers]
    cells = pd.DataFrame({"layer": layers, "said": answers, "tops": none, "probabilities": none})
    cells = cells.assign(position=0, token="a", p=0.1)
    assert found(lens.grid(cells)).endswith(f"the lens says so from layer {first} on.")


def test_only_what_is_raised_raises_its_words():
    made = pd.DataFrame(
        {"gain": [2.0, -0.5, 0.1, 0.0, nan], "control_mean": -1.0,
         "control_max": [1.0, -0.9, 0.2, -0.1, 0.0]}
    )  # fmt: skip
    said = found(directions.gains(made, list("abcde"), "latents"))
    assert said == "1 of 4 raise their words, and more than every control."
    assert found(directions.gains(made.assign(control_max=nan), list("abcde"), "latents")) == ""


def test_a_pair_has_the_other_sign_only_where_both_have_one():
    pairs = rows("coupling", 0.5, 0.0, -0.5, nan, prompts_slope=0.2)
    said = found(obsprop.coupling_scatter(pairs))
    assert said == "Half of the 3 pairs are within 0.3 of the line; 1 have the other sign."


def share(**median):
    made = [
        {
            "task": "t",
            "part": "moved",
            "ablation": "resample",
            "rule": rule,
            "n": n,
            "median": value,
        }
        for rule, (n, value) in median.items()
    ]
    frame = pd.DataFrame(made)
    return found(truth.shares(frame.assign(median_low=0.0, median_high=1.0), "t", "moved"))


def test_a_rule_gets_furthest_if_it_alone_does():
    said = share(half=(10, 0.5), gate=(10, 0.7), random=(10, 0.9), gradient=(10, nan))
    assert said == "gate gets furthest: 0.70 with 10 neurons."
    assert (
        share(half=(10, 1.0), gate=(10, 1.0)) == "half, gate get equally far: 1.00 with 10 neurons."
    )
    said = share(half=(9, 1.0), gate=(9, 1.0), gradient=(9, 0.5))
    assert said == "half, gate get furthest: 1.00 with 9 neurons."
    assert share(half=(10, nan)) == ""


def test_a_tile_is_the_highest_if_it_alone_is():
    one = np.zeros(64)
    one[9] = 0.5
    said = found(othello.tile_maps({"a": one, "b": np.zeros(64)}, "t"))
    assert said == "The highest: a 0.50 at b2; b 0.00 at 64 tiles."


def test_the_best_length_of_an_edit_is_no_edit_at_none():
    made = pd.DataFrame(
        {"layers": "0", "reader": ["probe"] * 2 + ["random"] * 2, "scale": [0.0, 1.0] * 2,
         "errors": [2.0, 0.5, 2.0, 3.0], "errors_own": 0.1}
    )  # fmt: skip
    said = found(othello.edit_errors(made, "0"))
    assert said == "Errors without an edit 2.00; at the best length: probe 0.50; random 3.00."


def test_of_several_saes_as_wide_the_group_is_named():
    bands = rows("group", "one", "two", linear=0.0, absent=0.0, encoder=0.0, nonlinear=0.2)
    said = found(darkmatter.error_bands(bands))
    assert said == "At width 8 (one) the FVU is 0.200, 100% of it nonlinear."
    none = found(darkmatter.error_bands(bands.iloc[:1].assign(nonlinear=nan, linear=0.1)))
    assert none == "At width 8 the FVU is 0.100."


def test_a_single_value_has_no_last():
    made = pd.DataFrame({"rank": [1, 2], "value": [3.0, 1.0], "energy": [0.9, 1.0]})
    assert "the 2 together have 100.0% of" in found(linearscope.singular_values(made))
    assert found(linearscope.singular_values(made.iloc[:1])) == (
        "The first is 3 and has 90.0% of the energy."
    )


def test_a_hill_is_the_highest_if_it_alone_is(monkeypatch):
    class Card:
        title = "a"

    for counts, said in (((1, 4), "Most often between 2 and 4."), ((3, 3), ""), ((), "")):
        drawn = [(2.0**n, 2.0 ** (n + 1), count) for n, count in enumerate(counts)]
        monkeypatch.setattr(latents, "bars", lambda _, drawn=drawn: drawn)
        assert found(latents.histogram(Card())) == said


ONE = {
    "patched": (lambda t: heads.patched(t.assign(head=-1)), "moved"),
    "heads": (lambda t: obsprop.head_map(t.assign(head=0), "score", "t"), "score"),
    "matrix": (lambda t: obsprop.coupling_matrix(t, t["head"].iloc[0]), "coupling"),
    "coupling": (obsprop.coupling_scatter, "prompts_slope"),
    "pattern": (heads.pattern, "weight"),
    "copying": (lambda t: heads.roles(t.assign(head=0, copying=t["score"]), "copying"), "score"),
    "constants": (lambda t: linearscope.layer_constants(t, "t"), "value"),
    "biases": (linearscope.bias_shares, "share"),
    "tokens": (linearscope.token_contributions, "contribution"),
    "kinds": (lambda t: circuits.by_layer(t.assign(absolute=1.0, nodes=1)), "attribution"),
    "cuts": (lambda t: circuits.cut_errors(t.assign(sum=1.0)), "error"),
    "sae tokens": (
        lambda t: darkmatter.token_scatter(t, t["sae"].iloc[0], t["sae"].iloc[0], "error"), "error"
    ),
    "measures": (lambda t: darkmatter.error_measures(t, {"r2": "R²"}), "value"),
    "ratios": (lambda t: bench.kernel_ratios(t.assign(variant="tiled")), "ratio"),
    "agreement": (lens.agreement, "agreement"),
    "tuned": (lens.before_and_after, "kl"),
}  # fmt: skip
"""Figures of one row, and the column that the sentence is about."""


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("value", [nan, 0.0, -0.5])
def test_of_one_row_no_number_is_said_that_is_not_there(name, value):
    draw, column = ONE[name]
    extra = {"attribution": 1.0, "kl": 0.1, "logit_kl": 0.2, "moved": 0.1}
    said = found(draw(table(**{**extra, column: value})))
    assert "nan" not in said
    assert said == "" or said.endswith(".")
    if value != value:
        assert said == ""
