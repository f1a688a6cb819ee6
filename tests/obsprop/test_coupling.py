"""Coupling: the theorem by Monte Carlo, its interval, and the study on a tiny model."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.directions import Directions
from interp.model.site import Site
from interp.obsprop.coupling import coupling_interval, pair_row


def pair(seed, d=24):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, d, generator=generator, dtype=torch.float64), generator


def sphere_slice(y1, k, s, count, generator):
    """Random x [count, d], uniform on the sphere |x| = s where x.y1 = k."""
    unit = y1.double() / y1.double().norm()
    along = k / float(y1.double().norm())
    x = torch.randn(count, len(y1), generator=generator, dtype=torch.float64)
    x = x - (x @ unit)[:, None] * unit
    x = x / x.norm(dim=1, keepdim=True) * (s**2 - along**2) ** 0.5
    return x + along * unit


@pytest.mark.parametrize("seed", range(8))
def test_mean_on_the_slice_is_k_times_the_coupling(seed):
    (y1, y2), generator = pair(seed)
    k, s = 3.0, 5.0
    x = sphere_slice(y1, k, s, 20_000, generator)
    torch.testing.assert_close(x @ y1, torch.full((20_000,), k, dtype=torch.float64))
    torch.testing.assert_close(x.norm(dim=1), torch.full((20_000,), s, dtype=torch.float64))
    scores = x @ y2
    error = float(scores.std() / len(scores) ** 0.5)
    directions = Directions(
        Site("resid_pre", 0), torch.stack([y1, y2]), pd.DataFrame({"name": [1, 2]})
    )
    coupling = float(directions.coupling(directions)[0, 1])
    assert abs(float(scores.mean()) - k * coupling) < 3 * error
    low, high = coupling_interval(y1, y2, k, s)
    assert float(low + high) / 2 == pytest.approx(k * coupling)


@given(seed=st.integers(0, 10**6), share=st.floats(-0.99, 0.99), s=st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_extremes_hold_and_are_reached(seed, share, s):
    (y1, y2), generator = pair(seed, d=5)
    k = share * s * float(y1.norm())
    low, high = coupling_interval(y1, y2, k, s)
    scores = sphere_slice(y1, k, s, 500, generator) @ y2
    slack = 1e-9 * float(y2.norm()) * s
    assert bool((scores >= low - slack).all() & (scores <= high + slack).all())
    # the extremes lie in the plane of y1 and y2
    unit = y1 / y1.norm()
    across = y2 - (y2 @ unit) * unit
    radius = (s**2 - (k / float(y1.norm())) ** 2) ** 0.5
    furthest = k / float(y1.norm()) * unit + radius * across / across.norm()
    assert float(furthest @ y2) == pytest.approx(float(high), abs=slack)
    middle = k * float(y1 @ y2) / float(y1 @ y1)
    assert middle == pytest.approx(float(low + high) / 2, abs=slack)


def test_couplings_there_and_back_multiply_to_the_squared_cosine():
    (y1, y2), _ = pair(3)
    directions = Directions(
        Site("resid_pre", 0), torch.stack([y1, y2]), pd.DataFrame({"name": [1, 2]})
    )
    there = directions.coupling(directions)
    torch.testing.assert_close(there * there.T, directions.cosine(directions) ** 2)


def test_a_score_that_no_vector_has_is_refused():
    (y1, y2), _ = pair(0)
    with pytest.raises(ValueError, match="no vector of that length"):
        coupling_interval(y1, y2, 2 * float(y1.norm()), 1.0)


def test_slopes_are_polyfits():
    y, generator = pair(1)
    directions = Directions(Site("resid_pre", 0), y, pd.DataFrame({"name": [1, 2]}))
    x = torch.randn(100, 24, generator=generator, dtype=torch.float64).numpy() + 1
    row = pair_row(directions, 0, 1, x, x[:50])
    for name, part in (("prompts", x), ("corpus", x[:50])):
        a, b = part @ y[0].numpy(), part @ y[1].numpy()
        assert row[f"{name}_slope"] == pytest.approx(np.polyfit(a, b, 1)[0])
        assert row[f"{name}_r2"] == pytest.approx(np.corrcoef(a, b)[0, 1] ** 2)
    assert row["inside"] == 1.0
