"""The SAE adapter over sae-lens objects of several architectures, in memory and from disk."""

import pytest
import torch
from sae_lens import (
    SAE,
    AbsTopKSAE,
    AbsTopKSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    MatchingPursuitSAE,
    MatchingPursuitSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)

from interp.errors import UserError
from interp.saes import open_sae, wrap
from interp.saes.hooks import hook_of_site, site_of_hook
from interp.saes.sae import CHUNK


def make(kind):
    classes = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "topk": (TopKSAE, TopKSAEConfig, {"k": 5}),
        "topk of unit rows": (
            *(TopKSAE, TopKSAEConfig),
            {"k": 5, "rescale_acts_by_decoder_norm": True},
        ),
        "abstopk": (AbsTopKSAE, AbsTopKSAEConfig, {"k": 5}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
        "gated": (GatedSAE, GatedSAEConfig, {}),
        "pursuit": (MatchingPursuitSAE, MatchingPursuitSAEConfig, {"max_iterations": 5}),
        "pursuit without bias": (
            *(MatchingPursuitSAE, MatchingPursuitSAEConfig),
            {"max_iterations": 5, "apply_b_dec_to_input": False},
        ),
    }
    sae_class, config_class, extra = classes[kind]
    torch.manual_seed(0)
    inner = sae_class(config_class(d_in=16, d_sae=40, **extra))
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inner.cfg.metadata.hook_name = "blocks.3.hook_resid_post"
    return inner


KINDS = ("standard", "topk", "topk of unit rows", "abstopk", "jumprelu", "gated")


@pytest.mark.parametrize("kind", [*KINDS, "pursuit", "pursuit without bias"])
def test_the_adapter_is_the_sae(kind, tmp_path) -> None:
    inner = make(kind)
    inner.save_model(tmp_path)
    x = torch.randn(CHUNK + 10, 16, generator=torch.Generator().manual_seed(1))
    for sae in (wrap(inner), open_sae(tmp_path)):
        assert (sae.d_in, sae.d_sae, sae.site) == (16, 40, "3.resid_post")
        assert sae.W_enc.shape == (16, 40)
        z = sae.encode(x)
        torch.testing.assert_close(z, inner.encode(x).detach())
        torch.testing.assert_close(sae.decode(z), inner(x).detach())
        torch.testing.assert_close(sae.decode(z), z @ sae.W_dec + sae.b_dec)
        quality = sae.quality(x[:100])
        fires = z[:100].numpy() != 0
        assert quality["l0"] == pytest.approx(fires.sum(1).mean())
        assert quality["alive"] == fires.any(0).sum()
        parts = list(sae.reconstructions(x))
        torch.testing.assert_close(torch.cat([x_hat for _, _, x_hat in parts]), sae.decode(z))
        assert not z.requires_grad


def test_half_precision_on_disk_opens_in_float32(tmp_path) -> None:
    inner = make("topk").to(torch.float16)
    inner.save_model(tmp_path)
    sae = open_sae(tmp_path)
    assert sae.W_dec.dtype == torch.float32
    assert SAE.load_from_disk(tmp_path).W_dec.dtype == torch.float16


def test_mistakes_are_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="holds no SAE"):
        open_sae(tmp_path)
    inner = make("standard")
    inner.save_model(tmp_path)
    with pytest.raises(UserError, match="reads 16 numbers, these activations have 9"):
        open_sae(tmp_path).encode(torch.zeros(2, 9))
    (tmp_path / "sae_weights.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="is truncated or corrupt"):
        open_sae(tmp_path)
    with pytest.raises(UserError, match="no hook for the site"):
        hook_of_site("logits")


@pytest.mark.parametrize("config", ["[]", "{}", "{", '{"metadata": null}', "null"])
def test_a_damaged_config_is_one_line(tmp_path, config) -> None:
    make("standard").save_model(tmp_path)
    (tmp_path / "cfg.json").write_text(config)
    with pytest.raises(UserError, match="broken JSON|not an object|has no d_in") as caught:
        open_sae(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_file_is_named(tmp_path, folder) -> None:
    make("standard").save_model(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    weights.unlink()
    if folder:
        weights.mkdir()
    with pytest.raises(UserError, match="no file sae_weights.safetensors"):
        open_sae(tmp_path)


def test_a_published_sae_without_a_network(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="cannot fetch nobody/nothing:x .*check the network"):
        open_sae("nobody/nothing:x")
    with pytest.raises(UserError, match="Release nothing not found"):
        open_sae("nothing:x")


@pytest.mark.parametrize("how", ["layer_norm", "constant_norm_rescale"])
def test_a_normalised_input_is_read_chunk_by_chunk(how) -> None:
    inner = make("standard")
    inner.cfg.normalize_activations = how
    sae = wrap(StandardSAE(inner.cfg))
    sae.inner.load_state_dict(inner.state_dict())
    x = 5 + torch.randn(CHUNK + 10, 16, generator=torch.Generator().manual_seed(1))
    x_hat = torch.cat([chunk for *_, chunk in sae.reconstructions(x)])
    torch.testing.assert_close(x_hat, sae.inner(x).detach())
    assert sae.normalises == how
    with pytest.raises(UserError, match=f"normalises its input .{how}.*Sae.reconstructions"):
        sae.decode(sae.encode(x))


def test_what_is_no_sae_of_its_input_is_refused() -> None:
    inner = make("standard")
    inner.cfg.normalize_activations = "expected_average_only_in"
    with pytest.raises(UserError, match="scaled beforehand .expected_average_only_in.*fold it"):
        wrap(inner)
    inner = make("standard")
    inner.cfg.metadata.hook_name_out = "blocks.3.hook_mlp_out"
    with pytest.raises(UserError, match="is a transcoder: it gives blocks.3.hook_mlp_out"):
        wrap(inner)


def test_a_latent_may_be_switched_off_but_not_broken() -> None:
    inner = make("jumprelu")
    with torch.no_grad():
        inner.threshold[3] = torch.inf
        assert not wrap(inner).encode(torch.ones(2, 16))[:, 3].any()
        inner.threshold[3] = torch.nan
    with pytest.raises(UserError, match="its threshold holds a NaN"):
        wrap(inner)


def test_names_of_sites_and_hooks() -> None:
    for site in ("0.resid_pre", "12.resid_post", "3.mlp_out", "3.head_z"):
        assert site_of_hook(hook_of_site(site)) == site
    assert site_of_hook(hook_of_site("3.head_z.2"), 2) == "3.head_z.2"
    assert site_of_hook("blocks.01.hook_resid_post") == "1.resid_post"
    assert site_of_hook("blocks.²1.hook_resid_post") == ""
    assert site_of_hook("blocks.x.hook_resid_post") == ""
    assert site_of_hook("") == ""
