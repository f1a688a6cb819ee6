"""A direction's score in three parts: they add up, and planted errors land where they belong."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from interp.directions import Directions
from interp.directions.provenance import Provenance
from interp.errors import UserError
from interp.model.site import Site
from interp.saes import SaeSplit, wrap

D = 12


def scaling_sae(factors):
    """An SAE that gives x back, coordinate j times factors[j]: latents for both signs of each."""
    inner = StandardSAE(StandardSAEConfig(d_in=D, d_sae=2 * D))
    inner.cfg.metadata.hook_name = "blocks.3.hook_resid_post"
    eye = torch.eye(D)
    with torch.no_grad():
        inner.W_enc.copy_(torch.cat([eye, -eye], 1))
        inner.W_dec.copy_(torch.cat([eye, -eye]) * factors)
        inner.b_enc.zero_()
        inner.b_dec.zero_()
    return wrap(inner)


def sample(count, seed):
    return 3 * torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) + 1


def directions(site="3.resid_post"):
    return Directions(Site.parse(site), torch.eye(D), pd.DataFrame({"name": range(D)}))


@pytest.mark.parametrize("intercept", [True, False])
def test_a_linear_error_is_called_linear(intercept) -> None:
    factors = torch.linspace(0.1, 1.0, D)
    split = SaeSplit.of(scaling_sae(factors), sample(5000, 0), intercept=intercept)
    table = directions().split(split, sample(5000, 1))
    for name, expected in (
        ("reconstruction", factors),
        ("linear", 1 - factors),
        ("nonlinear", torch.zeros(D)),
    ):
        torch.testing.assert_close(torch.tensor(table[name]).float(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_ridge_is_in_variances_of_the_activations(size) -> None:
    """An SAE that gives nothing back has a linear error; a ridge r leaves 1 / (1 + r) of what is
    white, in whatever unit."""
    x = torch.linalg.qr(sample(400, 0) - sample(400, 0).mean(0))[0]
    x = size * (x - x.mean(0))
    split = SaeSplit.of(scaling_sae(torch.zeros(D)), x, 0.25)
    table = directions().split(split, x)
    assert table["linear"].tolist() == pytest.approx([0.8] * D, abs=1e-3)


def test_scores_add_up_exactly_and_shares_to_one() -> None:
    sae = scaling_sae(torch.full((D,), 0.6))
    with torch.no_grad():
        sae.inner.b_enc.fill_(-2.0)  # small coordinates are dropped: an error that is not linear
    split = SaeSplit.of(sae, sample(5000, 0))
    x, own = sample(500, 1), directions()
    parts = own.split_scores(split, x)
    assert parts.shape == (3, 500, D)
    torch.testing.assert_close(parts.sum(0), x.double(), rtol=0, atol=1e-12)
    table = own.split(split, x)
    shares = table[["reconstruction", "linear", "nonlinear"]]
    assert (shares.sum(axis=1) - 1).abs().max() < 1e-12
    assert shares["nonlinear"].abs().max() < 0.05
    assert (table["nonlinear_spread"] > 0.01).all()
    spread = parts[2].var(0, correction=0) / x.double().var(0, correction=0)
    torch.testing.assert_close(torch.tensor(table["nonlinear_spread"]), spread)
    assert list(table["name"]) == list(range(D))


def test_the_map_is_least_squares() -> None:
    sae = scaling_sae(torch.full((D,), 0.6))
    with torch.no_grad():
        sae.inner.b_enc.fill_(-2.0)
    x = sample(9000, 0)  # more than one chunk
    split = SaeSplit.of(sae, x)
    error = x - sae.decode(sae.encode(x))
    with_one = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    naive = torch.linalg.lstsq(with_one, error.double()).solution
    torch.testing.assert_close(split.fit.weights, naive[:-1], rtol=0, atol=1e-9)
    torch.testing.assert_close(split.fit.intercept, naive[-1], rtol=0, atol=1e-9)
    assert split(x).nonlinear.square().sum() < error.square().sum()


def test_an_sae_of_another_model_or_of_an_error() -> None:
    sae = scaling_sae(torch.full((D,), 0.5))
    split = SaeSplit.of(sae, sample(500, 0))
    own = replace(directions(), provenance=Provenance(model="google/gemma-2-2b-it"))
    plain = own.split(split, sample(50, 1))  # it does not say of which model
    sae.inner.cfg.metadata.model_name = "gemma-2-2b"
    with pytest.raises(UserError, match="is an SAE of gemma-2-2b, not of google/gemma-2-2b-it"):
        own.split(split, sample(50, 1))
    pd.testing.assert_frame_equal(own.split(split, sample(50, 1), anyway=True), plain)
    base = replace(own, provenance=Provenance(model="google/gemma-2-2b"))
    pd.testing.assert_frame_equal(base.split(split, sample(50, 1)), plain)
    sae.inner.cfg.metadata.reads = "nonlinear error"
    with pytest.raises(UserError, match="the SAE is of the nonlinear error, not of activations"):
        base.split(split, sample(50, 1), anyway=True)


def test_mistakes_and_a_score_that_does_not_vary() -> None:
    split = SaeSplit.of(scaling_sae(torch.full((D,), 0.5)), sample(500, 0))
    with pytest.raises(UserError, match=r"the SAE is of 3\.resid_post, these directions of 2"):
        directions("2.resid_post").split(split, sample(5, 1))
    with pytest.raises(UserError, match="have 12 numbers each, not 7"):
        directions().split(split, torch.zeros(5, 7))
    still = directions().split(split, sample(1, 1).expand(4, D))
    assert still["linear"].isna().all()
