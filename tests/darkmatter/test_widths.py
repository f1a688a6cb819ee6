"""Width laws: planted ones are found, and the bands add up to the FVU."""

import numpy as np
import pandas as pd
import pytest

from interp.darkmatter.figures import error_bands, error_measures
from interp.darkmatter.widths import bands, fits, group, power_law


@pytest.mark.parametrize(("c", "a", "m"), [(0.1, 0.3, 0.5), (0.0, 0.5, 1.2), (0.25, 0.05, 0.2)])
def test_a_planted_law_is_found(c, a, m):
    widths = 1000 * 2.0 ** np.arange(6)
    law = power_law(widths, c + a * (widths / 1000) ** -m)
    assert law == pytest.approx((c, a, m), abs=1e-4)


def test_two_widths_are_not_enough():
    with pytest.raises(ValueError, match="2 widths do not determine"):
        power_law([1, 2, 2], [0.3, 0.2, 0.2])


def measures(widths, pursued=True):
    rows = []
    for width in widths:
        for name, fvu, rest in (
            (f"w{width}-k8", 0.1 + 100 / width, 0.05),
            (f"w{width}-k8 pursued", 0.08 + 90 / width, 0.04),
        ):
            if pursued or not name.endswith("pursued"):
                rows += [(name, width, "fvu", fvu), (name, width, "fvu_nonlinear", rest)]
    return pd.DataFrame(rows, columns=["sae", "d_sae", "measure", "value"])


@pytest.mark.parametrize("pursued", [True, False])
def test_bands_add_up(pursued):
    table = bands(measures([1000, 2000, 4000, 8000], pursued))
    parts = table[["absent", "linear", "nonlinear", "encoder"]].sum(axis=1)
    np.testing.assert_allclose(parts, table["fvu"], rtol=1e-12)
    assert table["encoder"].isna().all() != pursued
    assert (table["absent"].diff().dropna() < 0).all()
    laws = fits(measures([1000, 2000, 4000, 8000], pursued)).set_index("quantity")
    floor = 0.04 if pursued else 0.05
    assert laws.loc["linear", "c"] == pytest.approx(floor, abs=1e-3)
    assert laws.loc["nonlinear", "c"] == pytest.approx(floor, abs=1e-6)


def test_two_widths_leave_absent_unknown():
    table = bands(measures([1000, 2000], pursued=False))
    assert table["absent"].isna().all()
    np.testing.assert_allclose(table["linear"] + table["nonlinear"], table["fvu"])
    assert fits(measures([1000, 2000])).empty


def test_a_linear_part_below_0_has_no_law_and_is_drawn_below_0():
    """Few tokens make a map that is worse than none."""
    rows = measures([1000, 2000, 4000], pursued=False)
    worse = rows["measure"] == "fvu_nonlinear"
    rows.loc[worse, "value"] = [0.15, 0.16, 0.11]  # of an FVU of .2, .15 and .125
    table = bands(rows)
    assert table["absent"].isna().all()
    np.testing.assert_allclose(table["linear"], [0.05, -0.01, 0.015])
    assert list(fits(rows)["quantity"]) == ["fvu", "nonlinear"]
    figure = error_bands(table)
    assert figure.layout.barmode == "relative", "a stack would draw it over the nonlinear part"
    assert "worse than none" in figure.layout.title.text
    assert "worse than none" not in error_bands(table[table["linear"] > 0]).layout.title.text


@pytest.mark.parametrize(("low", "says"), [(0.1, "95 % intervals"), (np.nan, "too few documents")])
def test_a_title_speaks_of_intervals_where_there_are_any(low, says):
    rows = measures([1000], pursued=False).assign(low=low, high=0.9)
    assert says in error_measures(rows, {"fvu": "FVU"}).layout.title.text


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [("w768-k32", 768, "k32"), ("topk-L2-S0", 1024, "topk-L2-S0"), ("16384", 16384, "all")],
)
def test_group(name, width, expected):
    assert group(name, width) == expected
