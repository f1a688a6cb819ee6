"""Figures against scikit-learn and numpy; splits that leak nothing; planted data."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from interp.model.site import Site
from interp.obsprop.evaluate import (
    ReadExamples,
    auc,
    baseline_scores,
    r2,
    summary,
    within_templates,
)

SITE = Site("resid_pre", 1)


@given(seed=st.integers(0, 10**6), n=st.integers(4, 60))
@settings(max_examples=30, deadline=None)
def test_auc_is_scikit_learns_with_ties_and_weights(seed, n):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, n).astype(float)
    positive = np.arange(n) % 2 == 0
    weights = rng.integers(1, 4, (3, n)).astype(float)
    want = [roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auc(scores, positive, weights), want)


def test_r2_is_the_squared_correlation_of_the_drawn_examples():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30))
    counts = rng.integers(0, 3, 30)
    drawn = np.repeat(np.arange(30), counts)
    want = np.corrcoef(a[drawn], b[drawn])[0, 1] ** 2
    assert r2(a, b, counts[None].astype(float))[0] == pytest.approx(want)


def test_intervals_draw_groups_whole():
    """One group of eight decides: its examples come and go together, so the interval is wide."""
    scores, positive = np.repeat([[0.0, 1.0]], 40, axis=0).ravel(), np.arange(80) % 2 == 1
    scores[:10] = 1 - scores[:10]  # one word's templates are all in the wrong order
    whole = ReadExamples({}, positive, np.full(80, np.nan), np.arange(80) // 10)
    single = whole._replace(groups=np.arange(80) // 2)
    wide, narrow = (summary(scores[None], read, 400, 0) for read in (whole, single))
    assert wide["auc"] == narrow["auc"]
    assert wide["auc_high"] == 1.0, "the group is left out of one draw in three"
    assert wide["auc_high"] - wide["auc_low"] > 1.5 * (narrow["auc_high"] - narrow["auc_low"])
    assert wide["unit"] == "held-out group"


def test_what_a_template_adds_is_taken_out():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=40)
    table = pd.DataFrame(
        [
            {"template": template, "score": x, "observable": 2 * x + shift}
            for template, shift in ((0, 50.0), (1, -50.0))
            for x in signal
        ]
    )
    assert table["score"].corr(table["observable"]) ** 2 < 0.1
    assert within_templates(table) == pytest.approx(1.0)
    table["observable"] = rng.normal(size=80)
    assert within_templates(table) < 0.2


@pytest.fixture
def parts():
    """Two classes along a planted direction, the observable a noisy multiple of it."""
    rng = np.random.default_rng(0)

    def read(n):
        positive = np.arange(n) % 2 == 0
        X = rng.normal(size=(n, 20))
        X[:, 0] += np.where(positive, 2.0, -2.0)
        observable = 3 * X[:, 0] + 0.1 * rng.normal(size=n)
        return ReadExamples({SITE: X}, positive, observable, np.arange(n) // 2)

    return read(200), read(80)


def test_probes_get_better_with_labels(parts):
    train, held_out = parts
    found = baseline_scores(train, held_out, SITE, (2, 200, 500), draws=10, seed=0)
    sizes = {size for _, size in found}
    assert sizes == {2, 200}, "sizes beyond the training part are left out"
    figures = {key: summary(scores, held_out, 200, 0) for key, scores in found.items()}
    for name in ("logistic", "least squares", "mean difference"):
        assert figures[name, 200]["auc"] > figures[name, 2]["auc"]
        assert figures[name, 200]["auc"] > 0.98
        assert figures[name, 200]["auc_low"] <= figures[name, 200]["auc"]
    assert figures["least squares", 200]["r2"] > 0.99
    again = baseline_scores(train, held_out, SITE, (2,), draws=10, seed=0)
    np.testing.assert_array_equal(again["logistic", 2], found["logistic", 2])


def test_without_an_observable_there_is_no_r2(parts):
    train, held_out = parts
    blank = held_out._replace(observable=np.full(80, np.nan))
    assert "r2" not in summary(blank.activations[SITE][:, 0][None], blank, 50, 0)
    plain = train._replace(observable=np.full(200, np.nan))
    found = baseline_scores(plain, blank, SITE, (50,), draws=3, seed=0)
    assert summary(found["least squares", 50], blank, 50, 0)["auc"] > 0.9


def test_chance_is_inside_the_interval_of_a_random_score(parts):
    _, held_out = parts
    noise = np.random.default_rng(3).normal(size=(1, 80))
    found = summary(noise, held_out, 500, 0)
    assert found["auc_low"] < 0.5 < found["auc_high"]
