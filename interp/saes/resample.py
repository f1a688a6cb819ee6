"""Latents that have died under a penalty begin again at what the SAE explains worst.

Source: Bricken et al., 'Towards monosemanticity' (2023), 'Neuron resampling'. A token is drawn for
each dead latent with a probability of |x - x_hat|^4; its encoder vector is set to a fifth of the
others' mean norm, its bias to 0, and Adam forgets it. Unlike there, the latent points along the
token's error x - x_hat instead of along x itself, since decoder and bias explain most of x already;
and its decoder vector has the others' mean norm, since the penalty is weighted by that norm. The
error of a transcoder is not in the space that it reads: there its encoder points along x. A
threshold is set to a fifth of the others' mean. (TopK SAEs have a loss of their own for dead
latents.)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .transcoder import target_of

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
    """Set the dead latents of a sae-lens SAE in training to errors that it makes on `x` (what it is
    fed); nothing changes if none is dead or there is no error."""
    error = target_of(sae, x) - sae.decode(sae.encode(x))
    chance = error.double().square().sum(1).square().cpu()
    if not (dead.any() and float(chance.sum()) > 0):
        return
    others = torch.ones_like(dead) if dead.all() else ~dead
    generator = torch.Generator().manual_seed(seed)
    count = int(dead.sum())
    drawn = torch.multinomial(chance, count, count > int((chance > 0).sum()), generator=generator)
    drawn = drawn.to(x.device)
    writes = torch.nn.functional.normalize(error[drawn], dim=1)
    transcodes = x.shape[-1] > sae.cfg.d_in
    reads = torch.nn.functional.normalize(x[drawn, : sae.cfg.d_in], dim=1) if transcodes else writes
    encoder, decoder = sae.W_enc.norm(dim=0)[others].mean(), sae.W_dec.norm(dim=1)[others].mean()
    for name, weight in sae.named_parameters():
        if name == "b_dec":
            continue
        at = (slice(None), dead) if name == "W_enc" else dead
        if name == "W_enc":
            weight[at] = SHARE * encoder * reads.T
        elif name == "W_dec":
            weight[at] = decoder * writes
        else:
            weight[at] = SHARE * weight[others].mean() if name == "threshold" else 0
        for moment in ("exp_avg", "exp_avg_sq"):
            optimiser.state[weight][moment][at] = 0
