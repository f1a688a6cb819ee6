"""Running scores against the whole stream at once, however it is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.kernels import RunningScores


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 50),
    count=st.integers(1, 6),
    size=st.integers(1, 50),
    keep=st.integers(1, 9),
    seed=st.integers(0, 10**6),
)
def test_equals_the_whole_stream(n, count, size, keep, seed):
    """Small whole numbers, so that many scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (n, 3), generator=generator).float()
    directions = torch.randint(-1, 2, (count, 3), generator=generator).float()
    running = RunningScores(directions, keep)
    places = torch.arange(n)
    for part in places.split(size):
        running.add(x[part], part // 4, part % 4)
    got, scores = running.result(), directions @ x.T
    order = scores.sort(dim=1, descending=True, stable=True)
    kept = min(keep, n)
    assert torch.equal(got.top, order.values[:, :kept])
    assert torch.equal(4 * got.rows + got.positions, order.indices[:, :kept])
    assert torch.equal(got.smallest, scores.min(1).values)
    assert torch.equal(got.largest, scores.max(1).values)
    torch.testing.assert_close(got.statistics.mean, scores.double().mean(1))
    torch.testing.assert_close(got.statistics.var, scores.double().var(1, correction=0))
    assert got.statistics.count == n


def test_wrong_arguments_are_named():
    places = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="keep at least 1"):
        RunningScores(torch.ones(1, 3), 0)
    with pytest.raises(ValueError, match=r"directions \[n, d\]"):
        RunningScores(torch.ones(3))
    with pytest.raises(ValueError, match="do not fit activations of 4"):
        RunningScores(torch.ones(1, 3)).add(torch.ones(2, 4), places, places)
    with pytest.raises(ValueError, match="not finite"):
        RunningScores(torch.ones(1, 3)).add(torch.full((2, 3), torch.inf), places, places)
    with pytest.raises(ValueError, match="no activations"):
        RunningScores(torch.ones(1, 3)).result()
