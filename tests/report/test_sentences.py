"""What figures say of themselves: the numbers are those of their data."""

import pandas as pd
import pytest

from interp.circuits import figures_heads as heads
from interp.darkmatter import figures as darkmatter
from interp.lens import figures as lens
from interp.linearscope import figures as linearscope
from interp.neurons import figures as neurons
from interp.plots import row_at_most, sentences

from ..house.test_labels import FIGURES

BY_OTHERS = {"neuron", "standing", "agreement", "next", "answers", "votes", "logits"}
"""Figures whose pages say it, or which belong to other tests."""
BY_OTHERS |= {"search", "bars", "curve", "cost", "positions", "separation", "strip"}


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - BY_OTHERS))
def test_every_figure_says_what_would_be_a_surprise(name):
    shows, found = sentences(FIGURES[name]())
    assert "surprise" in shows or "A check" in shows
    assert "nan" not in found
    assert found == "" or found.endswith(".")


def found(figure):
    return sentences(figure)[1]


def test_a_clamp_says_where_it_does_most():
    rows = pd.DataFrame({"value": [None, -5.0, 0.0, 5.0], "probability": [0.01, 0.001, 0.01, 0.2]})
    said = found(neurons.clamp_curve(rows, "1.down.2", "dog"))
    assert said == "The most is at 5: 0.2, 20 times the 0.01 of the model as it is."


def test_a_removal_says_where_the_two_means_part_ways():
    rows = pd.DataFrame(
        {
            "concept": "dog", "neurons": "closest", "edits": [0, 10], "logprob": [-2.0, -4.0],
            "probability": [0.2, 0.3], "neighbour": " cat", "neighbour_logprob": [-3.0, -3.5],
            "kl_median": [0.0, 0.02],
        }
    )  # fmt: skip
    said = found(neurons.removal_curves(rows, "dog"))
    assert "10 neurons move the log probability of the concept by -2.00 nats and of ␣cat by" in said
    assert "goes from 0.2 to 0.3. The two part ways" in said
    same = found(neurons.removal_curves(rows.assign(probability=[0.2, 0.1]), "dog"))
    assert "part ways" not in same


def test_patching_names_the_place_that_moves_most():
    cells = pd.DataFrame(
        {
            "layer": [0, 0, 1, 1], "head": -1, "position": [0, 1, 0, 1], "token": list("abab"),
            "other": list("abab"), "value": 1.0, "moved": [0.1, 0.5, -0.9, 0.2],
        }
    )  # fmt: skip
    said = found(heads.patched(cells))
    assert said.startswith("The most is at layer 1, position 0: -0.90 of the gap. 2 of 4 places")


def test_a_lens_says_from_which_layer_on_it_has_the_answer():
    cells = pd.DataFrame(
        {
            "layer": [0, 1, 2, 3], "position": 0, "token": "a", "said": [" x", " y", " z", " z"],
            "tops": [["t"]] * 4, "probabilities": [[0.5]] * 4, "p": [0.1, 0.2, 0.3, 0.75],
            "entropy": 1.0, "kl": 1.0,
        }
    )  # fmt: skip
    said = found(lens.grid(cells))
    assert said.endswith("says ␣z (probability 0.75); the lens says so from layer 2 on.")


def test_a_network_of_many_layers_names_the_largest():
    layers = pd.DataFrame(
        {"module": [f"net.blocks.{i}.norm" for i in range(60)], "value": [0.1] * 59 + [-3.0]}
    )
    drawn = linearscope.layer_constants(layers, "r")
    assert "The most is of net.blocks.59.norm: -3" in found(drawn)
    assert "59.norm" in drawn.layout.xaxis.ticktext
    assert len(drawn.layout.xaxis.ticktext) <= 8


def test_dots_that_are_alike_stand_beside_each_other():
    rows = [{"sae": "s", "measure": m, "value": 0.5, "low": 0.4, "high": 0.6}
            for m in (*darkmatter.VECTORS, *darkmatter.NORMS)]  # fmt: skip
    figures = [
        darkmatter.error_measures(pd.DataFrame(rows), shown)
        for shown in (darkmatter.VECTORS, darkmatter.NORMS)
    ]
    titles = {figure.layout.title.text for figure in figures}
    assert len(titles) == 2
    assert all(figure.layout.scattermode == "group" for figure in figures)


def test_the_largest_row_is_none_that_is_not_there():
    rows = pd.DataFrame({"a": ["x", "y", "z"], "b": [1.0, float("nan"), 2.0]}, index=[5, 5, 7])
    assert row_at_most(rows, rows["b"])["a"] == "z"
    assert row_at_most(rows, -rows["b"])["a"] == "x"
