"""What figures say of themselves: the numbers are those of their data."""

from types import SimpleNamespace

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


def test_a_part_of_a_lens_grid_counts_positions_from_the_text_s_start():
    cells = pd.DataFrame(
        {
            "layer": [0, 0, 1, 1], "position": [7, 8, 7, 8], "token": list("abab"),
            "said": list("wxyz"), "tops": [["t"]] * 4, "probabilities": [[0.5]] * 4, "p": 0.5,
            "entropy": 1.0, "kl": 1.0,
        }
    )  # fmt: skip
    drawn = lens.grid(cells)
    assert list(drawn.data[0].x) == [7, 8] == list(drawn.layout.xaxis.tickvals)
    assert found(drawn).startswith("After b (position 8), the last shown, the model says z")


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


def test_a_clamp_over_several_prompts_compares_means_with_the_mean():
    values = pd.DataFrame(
        {
            "value": [None, None, 40.0, 40.0], "prompt": list("abab"),
            "probability": [0.0009, 0.0001, 0.3, 0.1],
        }
    )  # fmt: skip
    with pytest.raises(ValueError, match="means"):
        neurons.clamp_curve(values, "1.down.2", "dog")
    means = pd.DataFrame({"value": [None, 40.0], "probability": [0.0005, 0.2]})
    of_both = {"curve/values": values, "curve/means": means}
    for tables, ratio in ((of_both, "400"), ({"curve/values": values.iloc[::2]}, "333")):
        run = SimpleNamespace(
            study="neurons.clamp", config={"neuron": "1.down.2"}, manifest={"word": "dog"},
            has=tables.__contains__, table=tables.__getitem__,
        )  # fmt: skip
        assert f"{ratio} times the" in found(neurons.of_run(run)["curve"]())


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        ([0.0, 0.1, 0.2], "The most is at 5: 0.2, beside the 0 of the model as it is."),
        ([0.2, 0.1, 0.1], "It is the same at every value: 0.1, 0.5 times the 0.2 of the"),
        ([0.2, float("nan"), 0.1], "The most is at 5: 0.1, 0.5 times"),
        ([0.2, float("nan"), float("nan")], ""),
    ],
)
def test_a_clamp_that_has_no_ratio_no_most_or_no_number(probability, said):
    rows = pd.DataFrame({"value": [None, 0.0, 5.0], "probability": probability})
    made = found(neurons.clamp_curve(rows, "1.down.2", "dog"))
    assert made.startswith(said)
    assert bool(made) == bool(said)


@pytest.mark.parametrize(("last", "parted"), [(0.2, False), (0.1, False), (0.3, True)])
def test_two_means_part_ways_only_where_both_move(last, parted):
    rows = pd.DataFrame(
        {
            "concept": "dog", "neurons": "closest", "edits": [0, 10], "logprob": [-2.0, -3.0],
            "probability": [0.2, last], "neighbour": " cat", "neighbour_logprob": [-3.0, -3.5],
            "kl_median": [0.0, 0.02],
        }
    )  # fmt: skip
    assert ("part ways" in found(neurons.removal_curves(rows, "dog"))) == parted


def faults(*cells):
    rows = [
        {"measure": "fvu", "sae": f"absent {a:g}, noise {z:g}", "value": v} for a, z, v in cells
    ]
    return found(darkmatter.fault_map(pd.DataFrame(rows), "fvu", "t"))


def test_nothing_planted_is_said_only_where_it_was_measured():
    grid = [(0, 0.05, 0.05), (0.1, 0, 0.1), (0.1, 0.05, 0.15)]
    assert faults(*grid) == "From 0.050 to 0.150."
    assert faults((0, 0, 0.02), *grid) == "From 0.020 to 0.150; with nothing planted 0.020."
    assert faults((0.1, 0.01, 0.11), (0.3, 0.01, 0.31)) == "From 0.110 to 0.310."
    assert faults((0, 0, float("nan")), *grid) == "From 0.050 to 0.150."
    assert faults((0, 0, float("nan"))) == ""
