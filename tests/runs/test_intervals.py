"""Intervals by resampling groups: coverage, definitions, mistakes."""

import numpy as np
import pytest
from scipy.stats import t as student

from interp.runs.intervals import (
    accuracy_by_group,
    bootstrap,
    group_weights,
    mean_of,
    median_of,
    middle,
    resampled,
)


def test_bootstrap_covers_and_knows_that_samples_of_a_group_go_together() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(60):
        rates = rng.beta(2, 2, 200)  # every game has its own rate; the mean rate is .5
        sums = rng.binomial(50, rates)
        found = bootstrap(sums, np.full(200, 50), 300, seed=trial)
        assert found.value == pytest.approx(sums.sum() / 10_000)
        inside += found.low <= 0.5 <= found.high
    assert inside >= 52  # 57 expected
    # one by one they would seem far more certain than they are
    assert found.high - found.low > 2 * 2 * 1.96 * (0.25 / 10_000) ** 0.5


def test_accuracy_by_group() -> None:
    right = np.array([[True, False], [True, True], [False, False]])
    sums, counts = accuracy_by_group(right, np.array([0, 0, 1]))
    assert sums.tolist() == [3, 0]
    assert counts.tolist() == [4, 2]
    with pytest.raises(ValueError, match="one sum and one count"):
        bootstrap([1.0], [1.0, 2.0])


def test_weights_and_the_middle_by_definition() -> None:
    times = group_weights(7, 500, seed=1)
    assert times.shape == (500, 7)
    assert (times.sum(1) == 7).all()
    assert abs(times.mean() - 1) < 1e-12
    assert not (times == group_weights(7, 500, seed=2)).all()
    assert middle(np.array([*np.arange(1001.0), np.nan])) == (25, 975)
    sums, counts = np.array([1.0, 5.0, 0.0]), np.array([2.0, 5.0, 4.0])
    found = bootstrap(sums, counts, 500, seed=3)
    drawn = group_weights(3, 500, seed=3)
    assert (found.low, found.high) == pytest.approx(middle((drawn @ sums) / (drawn @ counts)))
    with pytest.raises(ValueError, match="no group"):
        group_weights(0)


def test_resamples_without_a_count_have_no_ratio() -> None:
    """By hand: every ratio that exists is 1, and no resample of empty groups counts as 0."""
    assert bootstrap([5, 4, 0], [5, 4, 0]) == (1.0, 1.0, 1.0)


def test_groups_that_are_alike_can_be_given_once() -> None:
    values = np.repeat([0.0, 1.0, 3.0], [500, 300, 200])
    one_by_one = bootstrap(values, np.full(1000, 2.0), 4000)
    counted = bootstrap([0, 1, 3], [2, 2, 2], 4000, alike=np.array([500, 300, 200]))
    assert counted.value == one_by_one.value == 0.45
    np.testing.assert_allclose(counted[1:], one_by_one[1:], atol=0.003)


def test_one_unit_has_a_mean_and_no_interval() -> None:
    assert np.isnan(mean_of([3.0])[1:]).all()
    assert mean_of([3.0]).value == 3.0
    assert mean_of([2.0, 4.0]) == bootstrap([2.0, 4.0], [1, 1])
    assert mean_of([2.0, 4.0], [1, 4]).value == 6 / 5


def sums(n: int, ratio: float, whole: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of n groups: `whole` on average, with a spread of 1, and `ratio` times that with another."""
    rng = np.random.default_rng(seed)
    bottom = whole + rng.normal(size=n)
    return ratio * bottom + 0.3 * rng.normal(size=n), bottom


def test_a_ratio_by_the_textbook() -> None:
    """Fieller's interval of two means, from sums of squares (Fieller 1954), without resamples."""
    top, bottom = sums(40, 0.7, 3.0, 1)
    a, b, s = top.mean(), bottom.mean(), np.cov(top, bottom) / 40
    g = student.ppf(0.975, 39) ** 2
    roots = np.roots([b**2 - g * s[1, 1], -2 * (a * b - g * s[0, 1]), a**2 - g * s[0, 0]])
    drawn = resampled(np.ones(40), 20_000)
    found = drawn.ratio(drawn.weights @ top, drawn.weights @ bottom)
    assert found.value == pytest.approx(a / b)
    assert found[1:] == pytest.approx(sorted(roots), abs=0.004)
    plain = drawn.interval((drawn.weights @ top) / (drawn.weights @ bottom))
    assert found[1:] == pytest.approx(plain[1:], abs=0.02), "far from 0 both say the same"


@pytest.mark.parametrize("scale", [1e-165, 1e-150, 1e-82, 1e77, 1e150])
def test_a_ratio_has_no_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 1, 60), rng.normal(1, 0.2, 60)
    drawn = resampled(np.ones(60))
    want = drawn.ratio(drawn.weights @ a, drawn.weights @ b)
    got = drawn.ratio(drawn.weights @ (a * scale), drawn.weights @ (b * scale))
    assert got == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("noise", [1e-3, 1e-7, 1e-9, 1e-11])
def test_a_ratio_that_hardly_varies_lies_in_its_interval(noise: float) -> None:
    """The ends are those of a percentile bootstrap, to half of their distance."""
    rng = np.random.default_rng(0)
    b, e = rng.normal(1, 0.2, 60), rng.normal(size=60)
    drawn = resampled(np.ones(60))
    top, bottom = drawn.weights @ (2 * b + noise * e), drawn.weights @ b
    found = drawn.ratio(top, bottom)
    ends = noise * np.quantile((drawn.weights @ e / bottom)[1:], [0.025, 0.975])
    assert found.low < found.value < found.high
    rounding = 1e-14
    width = ends[1] - ends[0]
    assert found.low - 2 == pytest.approx(ends[0], abs=width / 4 + rounding)
    assert found.high - 2 == pytest.approx(ends[1], abs=width / 4 + rounding)


def test_a_ratio_whose_denominator_may_be_zero_has_no_ends() -> None:
    """As an SAE's whose loss is the model's: 1079.8 % (992 to 1168) was recovered."""
    rng = np.random.default_rng(0)
    drawn = resampled(np.full(30, 100.0))
    gained, whole = (drawn.weights @ rng.normal(size=30) for _ in range(2))
    assert drawn.ratio(100 * gained, whole)[1:] == (-np.inf, np.inf)
    found = drawn.ratio(gained, np.zeros(len(gained)))
    assert np.isnan(found.value)
    assert found[1:] == (-np.inf, np.inf)
    assert drawn.ratio(np.zeros(len(whole)), 5 + 0 * whole) == (0, 0, 0)
    assert np.isnan(resampled([3, 0, 4]).ratio(np.ones(401), np.ones(401))[1:]).all()


@pytest.mark.parametrize("whole", [0.1, 1.0])
def test_ratios_are_covered(whole: float) -> None:
    """Also where the denominator is hardly told from 0."""
    inside = unbounded = 0
    for seed in range(200):
        top, bottom = sums(20, 0.7, whole, seed)
        drawn = resampled(np.ones(20), seed=seed)
        found = drawn.ratio(drawn.weights @ top, drawn.weights @ bottom)
        inside += found.low <= 0.7 <= found.high
        unbounded += np.isinf(found.low)
    assert inside >= 180  # 190 expected
    assert (unbounded > 150) == (whole < 1)


def test_a_median_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        found = median_of(rng.exponential(size=41))
        inside += found.low <= np.log(2) <= found.high
    assert 53 <= inside <= 60  # 57 of 60 at 95 %
    assert median_of([3.0, 1.0, 2.0]).value == 2


def test_a_median_takes_infinite_values_for_what_they_are() -> None:
    found = median_of([1.0, 2.0, np.inf, np.inf, np.inf])
    assert found.value == np.inf
    assert found.low in (1, 1.5, 2)
    assert found.high == np.inf
    alone = median_of([2.0])
    assert alone.value == 2
    assert np.isnan(alone.low)
    for none in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="at least one value, and no NaN"):
            median_of(none)
