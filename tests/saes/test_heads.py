"""SAEs of heads' weighted values (hook_z): of all heads side by side, and of one head."""

import json

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from interp.errors import UserError
from interp.saes import SaeSplit, open_sae, wrap
from interp.saes.hooks import hook_of_site

HEADS, D_HEAD = 4, 8


def made(reshape="none", d_in=HEADS * D_HEAD, head=None, hook="blocks.0.attn.hook_z"):
    torch.manual_seed(2)
    inner = StandardSAE(
        StandardSAEConfig(d_in=d_in, d_sae=20, dtype="float64", reshape_activations=reshape)
    )
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inner.cfg.metadata.hook_name = hook
    if head is not None:
        inner.cfg.metadata.hook_head_index = head
    return inner


def values(*batch):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch, HEADS, D_HEAD, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("reshape", ["hook_z", "none"])
@pytest.mark.parametrize("batch", [(6,), (2, 3)])
def test_all_heads_side_by_side(reshape, batch):
    inner, theirs, x = made(reshape), made(reshape), values(*batch)
    given = x if reshape == "hook_z" else x.flatten(-2)  # as sae-lens' own pipeline feeds it
    z = theirs.encode(given).detach()
    x_hat = theirs.decode(z).detach().reshape(*batch, HEADS * D_HEAD)
    sae = wrap(inner)
    assert (sae.site, sae.d_in) == ("0.head_z", 32)
    for form in (x, x.flatten(-2)):
        torch.testing.assert_close(sae.encode(form), z)
        assert sae.encode(form).shape == (*batch, 20)
    torch.testing.assert_close(sae.decode(z), x_hat)
    torch.testing.assert_close(inner(given).detach(), theirs(given).detach())  # as it was
    parts = SaeSplit.of(sae, values(200))(x.flatten(0, -3))
    torch.testing.assert_close(sum(parts), x.reshape(-1, 32))
    error = x.reshape(-1, 32) - x_hat.reshape(-1, 32)
    torch.testing.assert_close(parts.linear + parts.nonlinear, error)


def test_one_head():
    inner, x = made(d_in=D_HEAD, head=3), values(2, 3)
    sae = wrap(inner)
    assert sae.site == "0.head_z.3"
    assert hook_of_site(sae.site) == "blocks.0.attn.hook_z"
    torch.testing.assert_close(sae.encode(x[..., 3, :]), inner.encode(x[..., 3, :]).detach())


def test_another_number_of_heads():
    with pytest.raises(UserError, match="this SAE reads 32 numbers, these activations have 24"):
        wrap(made()).encode(values(5)[:, :3])


def test_a_batch_keeps_its_shape():
    inner = made(hook="blocks.0.hook_resid_post")
    sae, x = wrap(inner), values(2, 3).flatten(-2)
    assert sae.encode(x).shape == (2, 3, 20)
    torch.testing.assert_close(sae.encode(x), inner.encode(x).detach())
    torch.testing.assert_close(sae.decode(sae.encode(x)), inner(x).detach())
    assert sae.encode(x[0, 0]).shape == (20,)


def test_published_saes_of_heads(tmp_path, monkeypatch):
    """As gpt2's were published: a .pt file, and a config of the sizes."""
    inner = made().float()
    (tmp_path / "small_cfg.json").write_text(
        json.dumps({"act_size": 32, "dict_size": 20, "act_name": "blocks.5.attn.hook_z"})
    )
    torch.save(dict(inner.state_dict()), tmp_path / "small.pt")

    def fetched(repo, name=None, filename=None, **more):
        end = "cfg.json" if (name or filename).endswith("json") else "small.pt"
        return str(next(tmp_path.glob(f"*{end}")))

    def download(repo_id, filename, **more):
        return fetched(repo_id, filename)

    monkeypatch.setattr("sae_lens.loading.pretrained_sae_loaders.hf_hub_download", download)
    sae = open_sae("gpt2-small-hook-z-kk:blocks.5.hook_z")
    assert (sae.site, sae.model) == ("5.head_z", "gpt2-small")
    x = values(7).float()
    expected = (x.flatten(1) - inner.b_dec) @ inner.W_enc + inner.b_enc
    torch.testing.assert_close(sae.encode(x), expected.relu().detach())
