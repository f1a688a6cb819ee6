"""What one pass accumulates against naive code over all tokens, and the method's identities."""

import numpy as np
import pandas as pd
import pytest
import torch

from interp.darkmatter import report
from interp.darkmatter.accumulators import ScalarSums, shrinkage
from interp.darkmatter.downstream import ReplacementCosts
from interp.darkmatter.figures import downstream_bars
from interp.darkmatter.report import _downstream
from interp.darkmatter.results import bounded
from interp.errors import UserError
from interp.kernels.gram import Gram
from interp.runs.intervals import resampled

from .planted import D, Planted, gathered, gaussian, noise


def measured(sums, at):
    weights = resampled(sums.vectors.count).weights
    measures = sums.vectors.measures(at, sums.shrinkages[at], weights)
    return {name: float(values[0]) for name, values in measures.items()}


def test_measures_equal_naive_code_over_all_tokens():
    made = noise(0.3)
    sums, parts = gathered(Planted(mixed=lambda x: 0.2 * x + 0.1 * x.square() + made(x)), 4000)
    x, e, n = parts.x, parts.error[:, 0], parts.nonlinear[:, 0]
    measures, total = measured(sums, 0), (x - x.mean(0)).square().sum()
    spread = (e - e.mean(0)).square()
    assert measures["fvu"] == pytest.approx(float(e.square().sum() / total), rel=1e-12)
    assert measures["fvu_nonlinear"] == pytest.approx(float(n.square().sum() / total), rel=1e-12)
    r2 = 1 - n.square().sum(0) / spread.sum(0)
    assert measures["r2_vector"] == pytest.approx(float(r2.mean()), rel=1e-12)
    weighted = 1 - n.square().sum() / spread.sum()
    assert measures["r2_vector_weighted"] == pytest.approx(float(weighted), rel=1e-12)
    corrected = sums.shrinkages[0].corrected(x, e)
    rest = sums.shrinkages[0].scale * n
    centred = (corrected - corrected.mean(0)).square().sum()
    assert measures["fvu_corrected"] == pytest.approx(
        float(corrected.square().sum() / total), rel=1e-9
    )
    assert measures["r2_vector_weighted_corrected"] == pytest.approx(
        float(1 - rest.square().sum() / centred), rel=1e-9
    )


def test_error_is_its_two_parts_exactly():
    made = noise(0.5)
    _, parts = gathered(Planted(noisy=lambda x: 0.3 * x + made(x)), 2000)
    torch.testing.assert_close(
        parts.linear + parts.nonlinear, parts.error, rtol=0, atol=4 * torch.finfo(torch.double).eps
    )


@pytest.mark.parametrize("alpha", [0.0, 0.6, 0.95])
def test_an_sae_that_scales_has_only_linear_error(alpha):
    """Also at alpha = 0, the SAE that gives 0: there is no scale then, and all of x is error."""
    sums, parts = gathered(Planted(scaling=lambda x: (1 - alpha) * x), 2000)
    measures = measured(sums, 0)
    expected = (1 - alpha) * torch.eye(D, dtype=torch.float64)
    torch.testing.assert_close(sums.fit.weights, expected, rtol=0, atol=1e-10)
    assert measures["r2_vector"] == pytest.approx(1, abs=1e-12)
    assert measures["fvu_nonlinear"] == pytest.approx(0, abs=1e-12)
    if alpha:
        assert measures["scale"] == pytest.approx(1 / alpha)
        assert measures["fvu_corrected"] == pytest.approx(0, abs=1e-6)
        return
    assert np.isnan(measures["scale"])
    around, own = parts.x - sums.shrinkages[0].x_mean, parts.x - parts.x.mean(0)
    whole = float(around.square().sum() / own.square().sum())
    assert measures["fvu_corrected"] == pytest.approx(whole, rel=1e-9)
    assert measures["r2_vector_weighted_corrected"] == pytest.approx(1, abs=1e-12)


def test_an_sae_that_gives_one_vector_is_reported():
    sums, _ = gathered(Planted(constant=lambda x: x - 3), 2000)
    table = pd.DataFrame(report._measures(sums)).set_index("measure")["value"]
    assert np.isnan(table["scale"])
    assert table["r2_vector_weighted"] == pytest.approx(1, abs=1e-12)
    assert table["fvu_nonlinear"] == pytest.approx(0, abs=1e-12)
    assert np.isnan(table["r2_norm output"])
    assert table["fvu_corrected"] == pytest.approx(1, abs=0.05)


def test_a_perfect_sae_is_a_guarded_nought_over_nought():
    sums, _ = gathered(Planted(perfect=torch.zeros_like), 2000)
    measures = measured(sums, 0)
    assert measures["fvu"] == 0
    assert measures["fvu_nonlinear"] == 0
    assert np.isnan(measures["r2_vector"])
    assert np.isnan(measures["r2_vector_weighted"])
    assert np.isnan(resampled(torch.ones(9)).interval(torch.full((5,), torch.nan))).all()


def test_linear_error_with_noise_has_the_r2_of_its_variances():
    """tr(A^T S A) / (tr(A^T S A) + d sigma^2), method page."""
    a, sigma = 0.4 * gaussian(D, D, seed=3), 0.7
    made = noise(sigma)
    sums, parts = gathered(Planted(planted=lambda x: x @ a + made(x)))
    covariance = parts.x.T.cov()
    explained = float((a.T @ covariance @ a).trace())
    expected = explained / (explained + D * sigma**2)
    assert measured(sums, 0)["r2_vector_weighted"] == pytest.approx(expected, abs=0.01)
    nonlinear = D * sigma**2 / float(covariance.trace())
    assert measured(sums, 0)["fvu_nonlinear"] == pytest.approx(nonlinear, rel=0.02)


def test_pure_noise_is_not_called_linear():
    sums, _ = gathered(Planted(noise=noise(1.0)))
    assert abs(measured(sums, 0)["r2_vector_weighted"]) < 0.01


def test_a_dense_part_is_linear_and_what_is_absent_is_not():
    """x = dense part + binary features; the SAE misses the dense part, or half the features."""
    dense = torch.zeros(D, dtype=torch.float64)
    dense[0] = 1.0
    saes = Planted(
        misses_dense=lambda x: (x @ dense)[:, None] * dense,
        misses_sparse=lambda x: torch.relu(x - 2.0),
    )
    sums, _ = gathered(saes)
    assert measured(sums, 0)["fvu_nonlinear"] < 1e-12
    assert measured(sums, 1)["fvu_nonlinear"] > 0.1 * measured(sums, 1)["fvu"]


def test_binary_orthonormal_features_make_the_norm_linear():
    """|x|^2 = sum of binary coefficients is a linear function of x: R^2 is 1 (method page)."""
    basis = torch.linalg.qr(gaussian(D, D, seed=5)).Q
    binary = (gaussian(5000, D, seed=6) > 0.5).double()
    x = binary @ basis
    gram = Gram.of(x, x.square().sum(1, keepdim=True))
    assert float(gram.r2(gram.solve())) == pytest.approx(1, abs=1e-10)


def test_shrinkage_finds_the_scale_and_leaves_a_good_sae_alone():
    x, made = gaussian(20_000, D), gaussian(20_000, D, seed=1)
    assert shrinkage(Gram.of(x, 0.5 * x)).scale == pytest.approx(2.0)
    assert shrinkage(Gram.of(x, 0.01 * made)).scale == pytest.approx(1.0, abs=1e-3)


def test_scalars_equal_least_squares():
    values = gaussian(3000, 3, seed=4)
    values[:, 2] += 2 * values[:, 0] - values[:, 1] + 5
    context = torch.arange(3000) // 20
    sums = ScalarSums.empty(("a", "b", "c"))
    for rows in torch.arange(3000).split(700):
        sums.add(context[rows], values[rows])
    weights = resampled(sums.moments[:, 0, 0]).weights
    given = torch.cat([torch.ones(3000, 1), values[:, :2]], 1)
    left = values[:, 2:] - given @ torch.linalg.lstsq(given, values[:, 2:]).solution
    spread = (values[:, 2] - values[:, 2].mean()).square().sum()
    r2 = sums.r2_of_regression("c", ("a", "b"), weights)
    assert float(r2[0]) == pytest.approx(float(1 - left.square().sum() / spread), rel=1e-10)
    predicted = sums.r2_of_prediction("c", "a", weights)
    wrong = (values[:, 2] - values[:, 0]).square().sum()
    assert float(predicted[0]) == pytest.approx(float(1 - wrong / spread), rel=1e-10)
    assert float(sums.mean("c", weights)[0]) == pytest.approx(float(values[:, 2].mean()))


def test_intervals_cover_and_shrink_with_the_data():
    made = noise(0.5)
    saes = Planted(noisy=lambda x: 0.3 * x + made(x))
    widths = []
    for count in (500, 20_000):
        sums, _ = gathered(saes, count)
        drawn = resampled(sums.vectors.count)
        bounds = drawn.interval(sums.vectors.measures(0, sums.shrinkages[0], drawn.weights)["fvu"])
        assert bounds.low <= bounds.value <= bounds.high
        widths.append(bounds.high - bounds.low)
    assert widths[1] < widths[0] / 2


def coverage(sizes, within, trials=500):
    """How often an interval of the mean, 0, holds it: by document, and by sample."""
    hits, generator = [], np.random.default_rng(0)
    for seed in range(trials):
        count = torch.from_numpy(sizes(generator)).double()
        whose = torch.repeat_interleave(torch.arange(len(count)), count.long())
        own = within**0.5 * generator.normal(size=len(count))[whose]
        values = torch.from_numpy(own + (1 - within) ** 0.5 * generator.normal(size=len(whose)))
        for at in (whose, torch.arange(len(whose))):
            size = torch.bincount(at).double().numpy()
            drawn = resampled(size, seed=seed)
            total = np.bincount(at, weights=values)
            bounds = drawn.interval((drawn.weights @ total) / (drawn.weights @ size))
            hits.append(bounds.low <= 0 <= bounds.high)
    return np.mean(np.reshape(hits, (-1, 2)), 0)


@pytest.mark.parametrize("groups", [3, 8])
def test_intervals_of_few_independent_groups_cover(groups):
    by_group, _ = coverage(lambda generator: np.ones(groups, int), 0.0)
    assert 0.93 <= by_group <= 0.97


def test_intervals_of_contexts_that_depend_on_each_other_cover():
    """As on text: 20 documents of very different lengths, contexts of one alike."""
    by_document, by_context = coverage(lambda generator: generator.geometric(0.2, 20), 0.5, 150)
    assert by_document >= 0.92
    assert by_context < 0.8, "which is why contexts are not resampled"


def test_unequal_groups_are_worth_fewer():
    """Sizes 1, 1, 4 are worth 36 / 18 = 2 equal groups: Student's t has one degree of freedom."""
    reach = resampled(torch.tensor([1.0, 0.0, 1.0, 4.0])).reach
    assert reach == pytest.approx(12.7062 * (3 / 2) ** 0.5, rel=1e-5)


def test_two_groups_have_no_interval():
    bounds = resampled(torch.tensor([3.0, 0.0, 4.0])).interval(torch.zeros(401))
    assert bounds == pytest.approx((0, np.nan, np.nan), nan_ok=True)


def test_too_few_tokens_for_a_linear_map():
    with pytest.raises(UserError, match="5 tokens do not determine .* Gram matrix is singular"):
        gathered(Planted(noise=noise(1.0)), 5, per_document=1)
    gathered(Planted(noise=noise(1.0)), 5, per_document=1, ridge=1e-3)


def test_what_an_sae_that_costs_nothing_recovers_is_not_known():
    """Its loss is the model's up to noise: any percentage may be true, and none is shown."""
    generator = torch.Generator().manual_seed(0)
    costs, n = ReplacementCosts(None, None), 40
    costs.tokens, costs.documents = [50] * n, list(range(n))
    plain = 150 + 20 * torch.rand(n, generator=generator, dtype=torch.float64)
    costs.original = plain.tolist()
    costs.mean = (plain + 100).tolist()
    noise = torch.randn(n, 2, 6, generator=generator, dtype=torch.float64)
    lost = torch.tensor([[0.0], [20.0]])  # the second SAE costs 0.4 nats a token
    share = torch.tensor([1.0, 0.6, 0.5, 1.0, 0.6, 0.5])
    costs.settings = list(plain[:, None, None] + lost * share + 0.1 * noise)
    table = pd.DataFrame(_downstream(("same", "worse"), costs)).set_index(["sae", "setting"])
    ends = table[["low", "high"]]
    assert (ends.loc[("same", "sae + linear")] == [-np.inf, np.inf]).all()
    low, high = ends.loc[("worse", "sae + linear")]
    assert 39 < low < 40 < high < 41
    known = bounded(table.reset_index())
    assert set(table[~known.to_numpy()].reset_index()["sae"]) == {"same"}
    assert [len(bar.x) for bar in downstream_bars(table.reset_index()).data] == [1] * 4
