"""Two texts side by side."""

import pandas as pd
import pytest
import torch

from interp.errors import UserError
from interp.microscope.differences import differences
from interp.microscope.direct import Asked, Direct
from interp.microscope.pair import aligned, place_of, side_by_side
from interp.microscope.passed import seen_of
from interp.microscope.tables import every_neuron


@pytest.mark.parametrize(
    ("ids", "others", "position", "there", "how"),
    [
        ([1, 2, 3], [1, 9, 3], 1, 1, "as many tokens"),
        ([1, 2, 3], [1, 8, 9, 3], 2, 3, "equal tokens"),
        ([1, 2, 3], [1, 8, 9, 3], 0, 0, "equal tokens"),
        ([1, 2, 3], [1, 8, 9, 3], 1, 2, "from the end"),
    ],
)
def test_where_a_position_is_in_the_other_text(ids, others, position, there, how):
    place = place_of(ids, others, position)
    assert place.position == there
    assert how in place.how


def test_a_token_without_a_counterpart():
    with pytest.raises(UserError, match="no counterpart"):
        place_of([1, 2, 3, 4], [9, 4], 0)


def test_texts_of_other_lengths_are_aligned_by_equal_tokens():
    assert aligned([1, 2, 3], [1, 8, 9, 3]) == [(0, 0), (1, 1), (-1, 2), (2, 3)]
    assert aligned([1, 2], [3, 4]) == [(0, 0), (1, 1)]


def test_side_by_side():
    def table(ids):
        columns = {"id": ids, "token": [f"w{i}" for i in ids], "position": range(len(ids))}
        return pd.DataFrame(columns).assign(probability=0.5, surprise=0.7)

    rows = side_by_side(table([1, 3]), table([1, 2, 3]))
    assert rows["position"].tolist() == [0, -1, 1]
    assert rows["other_token"].tolist() == ["w1", "w2", "w3"]
    assert rows["equal"].tolist() == [True, False, True]
    assert rows["probability"].isna().tolist() == [False, True, False]


def test_differences_add_up_to_that_of_the_logits(open_here):
    opened = open_here("gemma3_text", torch.float64)
    asked = Asked(11, against=12)
    here, there = (
        Direct.one(seen_of(opened, opened.subject.pad([ids])), 3, asked)
        for ids in ([3, 17, 5, 99], [3, 18, 5, 99])
    )
    rows = differences(here, there, keep=7)
    parts = rows[rows["of"] == "part"]
    expected = float(here.values - there.values)
    assert parts["difference"].sum() == pytest.approx(expected, abs=1e-9)
    assert rows["difference"].abs().is_monotonic_decreasing
    neurons = rows[rows["of"] == "neuron"]
    every = every_neuron(here).contributions - every_neuron(there).contributions
    largest = every[0].abs().sort(descending=True).values[:7]
    assert neurons["difference"].abs().tolist() == pytest.approx(largest.tolist())
