"""An SAE of the dog model whose latent 7 writes the word 'dog'."""

import torch
from sae_lens import StandardSAE, StandardSAEConfig
from safetensors.torch import load_file

DOG, LATENTS = 123, 40


def write_sae(folder, model, hook="blocks.1.hook_resid_post", d_in=32, **metadata):
    """Saved as sae-lens does; its rows have length 1, latent 39's is 0."""
    torch.manual_seed(3)
    inner = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=LATENTS))
    with torch.no_grad():
        inner.W_dec.copy_(torch.nn.functional.normalize(torch.randn(LATENTS, d_in), dim=1))
        inner.W_enc.copy_(inner.W_dec.T)
        if d_in == 32:
            head = load_file(model / "model.safetensors")["lm_head.weight"][DOG]
            inner.W_dec[7] = head / head.norm()
        inner.W_dec[39] = 0
        inner.b_enc[7] = 0.03
    inner.cfg.metadata.hook_name = hook
    inner.cfg.metadata.model_name = str(model)
    for name, value in metadata.items():
        setattr(inner.cfg.metadata, name, value)
    inner.save_model(folder)
    return folder
