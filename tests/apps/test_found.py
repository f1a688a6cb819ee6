"""What pages say was found, of tables without a largest row or without a number."""

from math import nan

import pandas as pd
import pytest

from interp.apps import agree, knob_measured, prompt_parts


def agreement(*values: float) -> str:
    rows = pd.DataFrame({"layer": range(len(values)), "kind": "up", "side": "top"})
    return agree._found(rows.assign(agreement=values))


def test_two_atlases_agree_most_where_they_do():
    said = agreement(nan, 0.5, 0.25)
    assert said == (
        "The highest agreement is in layer 1, up top: 50.0%. The lowest is in layer 2, up top: "
        "25.0%."
    )
    assert agreement(0.5, 0.5) == "The agreement is 50.0% everywhere."
    assert agreement(nan) == ""


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            {"learned": 0.78, "none": 0.87},
            "tuned: at most 0.78 of the pairs are right by the learned direction, 0.87 with the "
            "intent in the prompt.",
        ),
        (
            {"none": 0.5},
            "tuned: at most 0.50 of the pairs are right with the intent in the prompt.",
        ),
        ({"learned": nan}, ""),
    ],
)
def test_only_directions_that_were_measured_are_named(shares, said):
    assert knob_measured._right("tuned", pd.Series(shares, dtype=float)) == said


def test_parts_that_add_nothing_have_no_late_share():
    parts = pd.DataFrame({"layer": [0, 3], "contribution": [1.0, -3.0]})
    assert prompt_parts._late(parts) == 0.75
    assert prompt_parts._late(parts.assign(contribution=0.0)) == 0.0
