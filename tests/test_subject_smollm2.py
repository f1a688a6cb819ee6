"""The backends on the real model: the same tensors at all of its sites, the same edits."""

import pytest
import torch

from interp.model import edits
from interp.model.site import Site
from interp.model.subject import open_subject

EDITED = ("3.resid_mid", "7.head_z", "14.resid_post", "20.mlp_up", "29.mlp_post")


@pytest.fixture(scope="module")
def native():
    return open_subject("smollm2-135m", attention="eager")


@pytest.mark.parametrize("backend", ["bridge", "nnsight"])
def test_backends_agree_on_smollm2(native, backend):
    other = open_subject("smollm2-135m", backend, attention="eager")
    assert max(native.parity, other.parity) < 1e-4
    batch = native.tokens(["The capital of France is", "Dogs", "def f(x):\n    return"])
    assert other.sites == native.sites
    ours, theirs = native.capture(batch, native.sites), other.capture(batch, native.sites)
    for site in native.sites:
        pattern = site.kind == "attn_pattern"
        real = batch.mask[:, None].expand(ours[site].shape[:3]) if pattern else batch.mask
        torch.testing.assert_close(ours[site][real], theirs[site][real], atol=1e-5, rtol=1e-5)
    generator = torch.Generator().manual_seed(0)
    plain = native.logits(batch)[batch.mask]
    for name in EDITED:
        site = Site.parse(name)
        vector = torch.randn(ours[site].shape[-1], generator=generator)
        edit = edits.add(site, vector, 2.0)
        with native.edited(edit), other.edited(edit):
            a, b = native.logits(batch)[batch.mask], other.logits(batch)[batch.mask]
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert (a - plain).abs().max() > 1e-2
