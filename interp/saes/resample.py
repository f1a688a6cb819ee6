"""Latents that have died under an L1 penalty begin again at what the SAE explains worst.

Source: Bricken et al., 'Towards monosemanticity' (2023), 'Neuron resampling'. A token is drawn for
each dead latent with a probability of |x - x_hat|^4; its encoder vector is set to a fifth of the
others' mean norm, its bias to 0, and Adam forgets it. Unlike there, the latent points along the
token's error x - x_hat instead of along x itself, since decoder and bias explain most of x already;
and its decoder vector has the others' mean norm, since the penalty is weighted by that norm. (TopK
SAEs have a loss of their own for dead latents.)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SHARE = 0.2
"""Norm of a new encoder vector, in mean norms of the living ones'."""


@torch.no_grad()
def resample(
    sae: Any,
    optimiser: torch.optim.Optimizer,
    dead: Bool[Tensor, " d_sae"],
    x: Float[Tensor, "n d_in"],
    seed: int,
) -> None:
    """Set the dead latents of a sae-lens SAE in training to errors that it makes on `x`; nothing
    changes if none is dead or there is no error."""
    error = x - sae.decode(sae.encode(x))
    chance = error.double().square().sum(1).square().cpu()
    if not (dead.any() and float(chance.sum()) > 0):
        return
    others = torch.ones_like(dead) if dead.all() else ~dead
    generator = torch.Generator().manual_seed(seed)
    count = int(dead.sum())
    drawn = torch.multinomial(chance, count, count > int((chance > 0).sum()), generator=generator)
    towards = torch.nn.functional.normalize(error[drawn.to(x.device)], dim=1)
    encoder, decoder = sae.W_enc.norm(dim=0)[others].mean(), sae.W_dec.norm(dim=1)[others].mean()
    sae.W_enc[:, dead] = SHARE * encoder * towards.T
    sae.W_dec[dead] = decoder * towards
    sae.b_enc[dead] = 0
    for weight, at in ((sae.W_enc, (slice(None), dead)), (sae.W_dec, dead), (sae.b_enc, dead)):
        for moment in ("exp_avg", "exp_avg_sq"):
            optimiser.state[weight][moment][at] = 0
