"""Vector instructions against numpy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from interp.kernels.lanes import LANES, any_outside, outside


@njit
def _both(array, start, low, high):
    return any_outside(array, start, low, high), outside(array, start, low, high)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), start=st.integers(0, 50), bound=st.sampled_from([0.5, 2, 4, 99]))
def test_outside_is_what_numpy_says(seed: int, start: int, bound: float) -> None:
    array = np.random.default_rng(seed).standard_normal((2, LANES)).astype(np.float32)
    array[0, :3] = [-np.inf, np.inf, np.nan]
    low, high = np.float32(-bound), np.float32(bound + 0.1)
    part = array.ravel()[start : start + LANES]
    beyond = (part < low) | (part > high)
    some, mask = _both(array, start, low, high)
    assert some == beyond.any()
    assert [bool(mask >> i & 1) for i in range(LANES)] == beyond.tolist()
