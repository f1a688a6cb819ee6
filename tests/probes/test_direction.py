"""Mean difference and least squares: the estimator contract, planted answers, naive twins."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from interp.probes.direction import LeastSquares, MeanDifference


@parametrize_with_checks([MeanDifference(), LeastSquares()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_mean_difference_finds_a_planted_direction():
    rng = np.random.default_rng(0)
    planted = rng.normal(size=50)
    y = np.repeat(["a", "b"], 200)
    X = rng.normal(size=(400, 50)) + np.outer(np.where(y == "b", 1.0, -1.0), planted) + 3.0
    probe = MeanDifference().fit(X, y)
    found = probe.coef_[0] / np.linalg.norm(probe.coef_)
    assert found @ planted / np.linalg.norm(planted) > 0.98
    assert probe.score(X, y) == 1.0
    middle = (X[y == "a"].mean(0) + X[y == "b"].mean(0)) / 2
    assert probe.decision_function(middle[None])[0] == pytest.approx(0, abs=1e-12)


def test_two_examples_are_enough_for_a_mean_difference():
    X = np.array([[1.0, 2.0], [4.0, 6.0]])
    probe = MeanDifference().fit(X, [0, 1])
    np.testing.assert_array_equal(probe.coef_, [[3.0, 4.0]])
    np.testing.assert_allclose(probe.decision_function(X), [-12.5, 12.5])


def test_least_squares_is_the_ordinary_one_and_the_shortest_one():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(80, 5)), rng.normal(size=80)
    np.testing.assert_allclose(
        LeastSquares().fit(X, y).predict(X), LinearRegression().fit(X, y).predict(X)
    )
    wide = rng.normal(size=(6, 40))
    fit = LeastSquares().fit(wide, y[:6])
    np.testing.assert_allclose(fit.predict(wide), y[:6])
    centred = wide - wide.mean(0)
    shortest = np.linalg.pinv(centred) @ (y[:6] - y[:6].mean())
    np.testing.assert_allclose(fit.coef_, shortest, atol=1e-10)
