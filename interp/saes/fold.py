"""What training sees and what is stored: centre and scale folded into the weights, both ways equal.

Training sees x' = (x - c) s (`spread.py`). An SAE gives x'_hat = z W_dec + b_dec for

    z = f((x' - b_dec) W_enc + b_enc)      stored:  b_enc / s, threshold / s, b_dec / s + c

whose latents are z / s. A transcoder reads x' = (x - c) s, gives y' = (y - e) t, and stores

    b_enc / s - c W_enc,  threshold / s,  W_dec s / t,  b_dec / t + e

since no bias is taken from its input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..runs.writer import RunWriter, save_tensors
from .kinds import TABLE

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.site import Site
    from .plan import SaePlan
    from .spread import Spread

FILES = ("sae_weights.safetensors", "cfg.json")
"""What the folder of an autoencoder holds, in the order in which they are written."""
SCALED = ("b_enc", "b_gate", "b_mag", "threshold")
"""What is added to or compared with an input, latent by latent."""


def save_sae(
    sae: Any, plan: SaePlan, spreads: Mapping[Site, Spread], out: RunWriter, half: bool
) -> None:
    """Store an SAE in training as `saes/<name>/` of a run, cfg.json last.

    Args:
        half: in float16, where that loses nothing (transcoders are stored whole).
    """
    from ..runs.halves import halved

    weights, config = folded(sae, plan, spreads)
    if half and not plan.gives:
        # an error of this bias is one of every reconstruction
        weights = halved(weights, {"b_dec": float(spreads[plan.site].distance)})
    config["dtype"] = str(weights["b_dec"].dtype).removeprefix("torch.")
    with out.part(f"saes/{plan.name}/{FILES[0]}") as path:
        save_tensors(weights, path)
    with out.part(f"saes/{plan.name}/{FILES[1]}") as path:
        path.write_text(json.dumps(config, sort_keys=True))


def folded(
    sae: Any, plan: SaePlan, spreads: Mapping[Site, Spread]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config for sae-lens to read, of activations as the model makes them."""
    weights = {key: weight.detach().clone() for key, weight in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(weights)  # beside its own, on their device
    weights = {key: weight.cpu() for key, weight in weights.items()}
    config = sae.cfg.get_inference_sae_cfg_dict() | {"device": "cpu"}  # wherever it was trained
    read, given = spreads[plan.site], spreads[plan.gives or plan.site]
    for key in SCALED:
        if key in weights:
            weights[key] = weights[key] / read.scale
    b_dec = weights["b_dec"].double() / given.scale + given.centre
    if plan.gives:
        centre = read.centre @ weights["W_enc"].double()
        weights["b_enc"] = (weights["b_enc"].double() - centre).to(weights["b_enc"])
        weights["W_dec"] = weights["W_dec"] * (read.scale / given.scale)
        config |= {"architecture": TABLE[plan.kind].transcoder, "d_out": len(given.centre)}
    weights["b_dec"] = b_dec.to(weights["W_dec"])
    return weights, config
