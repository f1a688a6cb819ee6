"""The SAE adapter over sae-lens objects of several architectures, in memory and from disk."""

import pytest
import torch
from sae_lens import (
    SAE,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)

from interp.errors import UserError
from interp.probes import load_sae, wrap
from interp.probes.sae import CHUNK, hook_of_site, site_of_hook


def make(kind):
    classes = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "topk": (TopKSAE, TopKSAEConfig, {"k": 5}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    }
    sae_class, config_class, extra = classes[kind]
    torch.manual_seed(0)
    inner = sae_class(config_class(d_in=16, d_sae=40, **extra))
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inner.cfg.metadata.hook_name = "blocks.3.hook_resid_post"
    return inner


@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu"])
def test_the_adapter_is_the_sae(kind, tmp_path) -> None:
    inner = make(kind)
    inner.save_model(tmp_path)
    x = torch.randn(CHUNK + 10, 16, generator=torch.Generator().manual_seed(1))
    for sae in (wrap(inner), load_sae(tmp_path)):
        assert (sae.d_in, sae.d_sae, sae.site) == (16, 40, "3.resid_post")
        assert sae.W_enc.shape == (16, 40)
        z = sae.encode(x)
        torch.testing.assert_close(z, inner.encode(x).detach())
        torch.testing.assert_close(sae.decode(z), inner(x).detach())
        if kind != "topk":
            torch.testing.assert_close(sae.decode(z), z @ sae.W_dec + sae.b_dec)
        parts = list(sae.reconstructions(x))
        torch.testing.assert_close(torch.cat([x_hat for _, _, x_hat in parts]), sae.decode(z))
        assert not z.requires_grad


def test_half_precision_on_disk_opens_in_float32(tmp_path) -> None:
    inner = make("topk").to(torch.float16)
    inner.save_model(tmp_path)
    sae = load_sae(tmp_path)
    assert sae.W_dec.dtype == torch.float32
    assert SAE.load_from_disk(tmp_path).W_dec.dtype == torch.float16


def test_mistakes_are_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="holds no SAE"):
        load_sae(tmp_path)
    inner = make("standard")
    inner.save_model(tmp_path)
    with pytest.raises(UserError, match="reads 16 numbers, these activations have 9"):
        load_sae(tmp_path).encode(torch.zeros(2, 9))
    (tmp_path / "sae_weights.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        load_sae(tmp_path)
    with pytest.raises(UserError, match="no hook for the site"):
        hook_of_site("logits")


def test_names_of_sites_and_hooks() -> None:
    for site in ("0.resid_pre", "12.resid_post", "3.mlp_out", "3.head_z"):
        assert site_of_hook(hook_of_site(site)) == site
    assert site_of_hook("blocks.x.hook_resid_post") == ""
    assert site_of_hook("") == ""
