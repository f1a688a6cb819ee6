"""The batched probe against scikit-learn, task by task, and against its own definition."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from interp.probes import LinearProbe
from interp.probes.linear import _loss


def problem(n=600, d=12, tasks=5, seed=0):
    """Labels that depend on stretched, shifted, correlated features and some noise."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) * np.geomspace(0.1, 30, d)
    x = (rng.normal(size=(n, d)) @ mix + rng.normal(size=d) * 5).astype(np.float32)
    white = (x - x.mean(0)) / x.std(0)
    logits = white @ rng.normal(size=(d, 3 * tasks)) + rng.gumbel(size=(n, 3 * tasks))
    return x, logits.reshape(n, tasks, 3).argmax(-1)


def test_equals_scikit_learn_task_by_task() -> None:
    x, y = problem()
    ridge = 1e-3
    probe = LinearProbe(ridge, max_iter=500, tol=1e-6).fit(x, y)
    for task in range(y.shape[1]):
        twin = LogisticRegression(C=1 / (ridge * len(x)), solver="newton-cholesky", tol=1e-9)
        twin.fit(x.astype(np.float64), y[:, task])
        p = probe.predict_proba(x)[:, task]
        np.testing.assert_allclose(p, twin.predict_proba(x), atol=2e-3)
        np.testing.assert_allclose(
            probe.coef_[task], twin.coef_, atol=0.01 * np.abs(twin.coef_).max()
        )


def test_two_classes_are_the_logistic_regression_of_half_the_ridge() -> None:
    x, y = problem()
    labels, ridge = y[:, 0] == y[0, 0], 1e-2
    probe = LinearProbe(ridge, max_iter=500, tol=1e-6).fit(x, labels)
    twin = LogisticRegression(C=2 / (ridge * len(x)), solver="newton-cholesky", tol=1e-9)
    twin.fit(x.astype(np.float64), labels)
    np.testing.assert_allclose(
        probe.coef_[1] - probe.coef_[0], twin.coef_[0], atol=0.01 * np.abs(twin.coef_).max()
    )


def test_tasks_do_not_see_each_other() -> None:
    x, y = problem()
    together = LinearProbe(1e-2, max_iter=300, tol=1e-6).fit(x, y)
    alone = LinearProbe(1e-2, max_iter=300, tol=1e-6).fit(x, y[:, 2])
    np.testing.assert_allclose(together.coef_[2], alone.coef_, atol=1e-3)


def test_gradient_is_that_of_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 7, generator=generator)
    codes = torch.randint(0, 3, (50, 4), generator=generator)
    weights = torch.randn(12, 8, generator=generator, dtype=torch.float64)
    counts = 2 * torch.rand(50, generator=generator, dtype=torch.float64)
    loss, gradient = _loss(x, codes + 3 * torch.arange(4), counts, weights, 4, torch.float32)
    free = weights.clone().requires_grad_()
    logits = (x.double() @ free[:, :-1].T + free[:, -1]).view(50, 4, 3)
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), codes.flatten(), reduction="none"
    )
    twin = (counts[:, None] * each.view(50, 4)).sum() / 50
    twin.backward()
    assert loss == pytest.approx(twin.item(), rel=1e-5)
    torch.testing.assert_close(gradient, free.grad, rtol=1e-4, atol=1e-5)


def test_the_contract_of_scikit_learn() -> None:
    x, y = problem()
    names = np.array(["ann", "bob", "eve"])[y[:, 0]]
    probe = LinearProbe(ridge=1e-2)
    assert clone(probe).get_params() == {"ridge": 1e-2, "max_iter": 200, "tol": 1e-4}
    probe.fit(x, names)
    assert probe.classes_.tolist() == ["ann", "bob", "eve"]
    assert probe.coef_.shape == (3, 12)
    assert probe.predict(x).shape == (len(x),)
    assert probe.score(x, names) == pytest.approx((probe.predict(x) == names).mean())
    search = GridSearchCV(LinearProbe(), {"ridge": [1e-3, 1e3]}, cv=3).fit(x, names)
    assert search.best_params_ == {"ridge": 1e-3}


def test_many_labels_and_gaps_in_them() -> None:
    x, y = problem()
    probe = LinearProbe(1e-3).fit(torch.from_numpy(x), torch.from_numpy(2 * y - 1))
    assert probe.classes_.tolist() == [-1, 1, 3]
    assert probe.coef_.shape == (5, 3, 12)
    np.testing.assert_allclose(probe.coef_.sum(1), 0, atol=1e-4)
    assert probe.score(x, 2 * y - 1) == pytest.approx((probe.predict(x) == 2 * y - 1).mean())
    assert probe.score(x, 2 * y - 1) > 0.7


def test_the_same_data_give_the_same_probe() -> None:
    x, y = problem()
    one, two = (LinearProbe().fit(x, y) for _ in range(2))
    assert (one.coef_ == two.coef_).all()


def test_a_constant_feature_does_no_harm() -> None:
    x, y = problem()
    x[:, 3] = 1.0
    probe = LinearProbe(1e-3, tol=1e-6, max_iter=500).fit(x, y)
    assert np.isfinite(probe.coef_).all()
    without = LinearProbe(1e-3, tol=1e-6, max_iter=500).fit(np.delete(x, 3, 1), y)
    np.testing.assert_allclose(
        probe.predict_proba(x), without.predict_proba(np.delete(x, 3, 1)), atol=5e-3
    )


def objective(weight, intercept, x, y, ridge) -> float:
    """Of two classes, in float64, as scikit-learn's LogisticRegression with C = 2 / (ridge n)."""
    margins = (2 * y - 1) * (x @ weight + intercept)
    return float(np.logaddexp(0, -margins).mean() + ridge / 4 * weight @ weight)


@pytest.mark.parametrize("seed", range(3))
def test_a_few_samples_far_out(seed) -> None:
    """Five of 2,000 are 100,000 times longer than the others."""
    rng = np.random.default_rng(seed)
    x, true = rng.normal(size=(2000, 20)), rng.normal(size=20)
    y = (x @ true + 2 * rng.normal(size=2000) > 0).astype(int)
    x[:5] *= 1e5
    twin = LogisticRegression(C=2 / (1e-4 * 2000), solver="newton-cholesky", tol=1e-9).fit(x, y)
    best = objective(twin.coef_[0], twin.intercept_[0], x, y, 1e-4)
    probe = LinearProbe(1e-4, max_iter=500).fit(x, y)
    assert probe.converged_
    own = probe.coef_[1] - probe.coef_[0], probe.intercept_[1] - probe.intercept_[0]
    assert objective(*own, x, y, 1e-4) == pytest.approx(best, abs=2e-6)
    assert probe.score(x, y) == pytest.approx(twin.score(x, y), abs=1e-3)


def test_an_offset_that_float32_does_not_hold() -> None:
    x, y = problem(n=300)
    far = x.astype(np.float64) + 1e8
    near, moved = (LinearProbe(1e-2, tol=1e-6, max_iter=500).fit(z, y) for z in (x, far))
    np.testing.assert_allclose(moved.coef_, near.coef_, atol=1e-3)
    np.testing.assert_allclose(moved.predict_proba(far), near.predict_proba(x), atol=2e-3)


def test_too_few_passes_are_said() -> None:
    x, y = problem()
    with pytest.warns(ConvergenceWarning, match="stopped after 3 passes, before it converged"):
        probe = LinearProbe(max_iter=3).fit(x, y)
    assert not probe.converged_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LinearProbe(max_iter=500).fit(x, y).converged_


def test_a_weight_of_two_is_the_sample_twice() -> None:
    x, y = problem(n=300)
    weights = np.random.default_rng(0).integers(0, 4, 300)
    settings = {"ridge": 1e-2, "max_iter": 500, "tol": 1e-6}
    weighted = LinearProbe(**settings).fit(x, y, sample_weight=weights)
    twice = LinearProbe(**settings).fit(np.repeat(x, weights, 0), np.repeat(y, weights, 0))
    np.testing.assert_allclose(weighted.coef_, twice.coef_, atol=1e-4)
    twin = LogisticRegression(C=1 / (1e-2 * weights.sum()), solver="newton-cholesky", tol=1e-9)
    twin.fit(x.astype(np.float64), y[:, 1], sample_weight=weights)
    scale = np.abs(twin.coef_).max()
    np.testing.assert_allclose(weighted.coef_[1], twin.coef_, atol=0.01 * scale)


def test_what_an_unfitted_probe_and_another_width_say() -> None:
    x, y = problem(n=60)
    with pytest.raises(NotFittedError):
        LinearProbe().predict(x)
    probe = LinearProbe(1.0).fit(x, y)
    for method in (probe.predict, probe.predict_proba, probe.decision_function):
        with pytest.raises(ValueError, match="x has 11 features, but the probe was fitted on 12"):
            method(x[:, 1:])
        with pytest.raises(ValueError, match="x holds a NaN or an infinity"):
            method(np.where(x == x.max(), np.inf, x))


HALF = np.arange(4) % 2


@pytest.mark.parametrize(
    ("x", "y", "ridge", "weights", "says"),
    [
        (np.zeros((4, 2)), np.zeros(3), 1.0, None, "do not match"),
        (np.zeros((4, 2)), np.zeros(4), 1.0, None, "all the same"),
        (np.zeros((4, 2)), HALF, 0.0, None, "must be positive"),
        (np.zeros((0, 2)), HALF[:0], 1.0, None, "with something in it"),
        (np.full((4, 2), np.nan), HALF, 1.0, None, "x holds a NaN or an infinity"),
        (np.full((4, 2), np.inf), HALF, 1.0, None, "x holds a NaN or an infinity"),
        (np.zeros((4, 2)), np.array([0, 1, np.nan, 0]), 1.0, None, "y holds a NaN"),
        (np.zeros((4, 2)), HALF, 1.0, np.zeros(4), "at least one non-zero"),
        (np.zeros((4, 2)), HALF, 1.0, -np.ones(4), "[Nn]egative"),
        (np.zeros((4, 2)), HALF, 1.0, np.ones(3), "sample_weight"),
    ],
)
def test_mistakes(x, y, ridge, weights, says) -> None:
    with pytest.raises(ValueError, match=says):
        LinearProbe(ridge).fit(x, y, weights)
