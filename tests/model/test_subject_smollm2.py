"""The backends on the real model: the same tensors at all of its sites, the same edits."""

import pytest
import torch

from interp.model import edits
from interp.model.site import Site
from interp.model.subject import open_subject

EDITED = {
    "3.resid_mid": "d_model",
    "7.head_z": "d_head",
    "14.resid_post": "d_model",
    "20.mlp_up": "d_mlp",
    "29.mlp_post": "d_mlp",
}


@pytest.fixture(scope="module")
def native():
    return open_subject("smollm2-135m", attention="eager")


@pytest.fixture(scope="module")
def batch(native):
    return native.tokens(["The capital of France is", "Dogs", "def f(x):\n    return"])


@pytest.fixture(scope="module")
def made(native):
    generator = torch.Generator().manual_seed(0)
    widths = {"d_model": 576, "d_mlp": 1536, "d_head": 64}
    return [
        edits.add(Site.parse(name), torch.randn(widths[width], generator=generator), 2.0)
        for name, width in EDITED.items()
    ]


def edited_logits(subject, batch, made):
    """Logits of the real tokens under each edit."""
    logits = []
    for edit in made:
        with subject.edited(edit):
            logits.append(subject.logits(batch)[batch.mask])
    return logits


@pytest.fixture(scope="module")
def ours(native, batch, made):
    """(every site's tensor, the plain logits, the logits under each edit) of the native backend."""
    plain = native.logits(batch)[batch.mask]
    return native.capture(batch, native.sites), plain, edited_logits(native, batch, made)


@pytest.mark.parametrize("backend", [pytest.param("bridge", marks=pytest.mark.slow), "nnsight"])
def test_backends_agree_on_smollm2(native, batch, made, ours, backend):
    other = open_subject("smollm2-135m", backend, attention="eager")
    assert max(native.parity, other.parity) < 1e-4
    assert other.sites == native.sites
    captured, plain, with_edits = ours
    theirs = other.capture(batch, other.sites)
    for site in native.sites:
        pattern = site.kind == "attn_pattern"
        real = batch.mask[:, None].expand(captured[site].shape[:3]) if pattern else batch.mask
        torch.testing.assert_close(captured[site][real], theirs[site][real], atol=1e-5, rtol=1e-5)
    for a, b in zip(with_edits, edited_logits(other, batch, made), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert (a - plain).abs().max() > 1e-2
