"""Directions and an SAE that the tests plant."""

import pandas as pd
import torch
from sae_lens import TopKSAE, TopKSAEConfig

from interp.directions import Directions
from interp.directions.provenance import Provenance
from interp.directions.reading import Product
from interp.model.site import Site

SITE = Site("resid_post", 0)


def a_set(n=2, seed=0, site="0.resid_post", reading=None, names=None):
    """Directions of eight numbers, of a model that is nowhere."""
    vectors = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    index = pd.DataFrame({"name": names or [f"v{i}" for i in range(n)]})
    made = Provenance("test", "some-model", notes={"why": seed})
    return Directions(Site.parse(site), vectors, index, made, reading or Product())


def planted_sae(folder, model=""):
    """A TopK SAE of random weights at 0.resid_post."""
    torch.manual_seed(3)
    inner = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4))
    with torch.no_grad():
        inner.b_enc.add_(torch.randn(64))
        inner.b_dec.add_(torch.randn(32))
    inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    inner.cfg.metadata.model_name = model
    inner.save_model(folder)
    return folder


def of_reading(reading, constants=(0.0, 0.0), **columns):
    """Two directions at SITE with this reading, and the columns that it needs."""
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    index = pd.DataFrame({"name": ["a", "b"], "constant": constants, **columns})
    return Directions(SITE, vectors, index, reading=reading)
