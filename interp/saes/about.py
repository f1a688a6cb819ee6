"""What an SAE says of itself, in words and numbers for a screen."""

from __future__ import annotations

from typing import Any

from .sae import Sae

UNSAID = "not said"
_BOS = {"always": "behind a BOS", "never": "without a BOS", "auto": UNSAID}


def about(sae: Sae) -> dict[str, Any]:
    """Its kind, width, site, model, and how its inputs and latents come about, by plain names."""
    facts: dict[str, Any] = {
        "kind": sae.inner.cfg.architecture(),
        "latents": sae.d_sae,
        "model": sae.model or UNSAID,
        "reads": f"{sae.d_in} numbers at {sae.site or sae.hook or UNSAID}",
        "texts": _BOS[sae.bos],
        "special tokens": _specials(sae.inner.cfg.metadata.exclude_special_tokens),
        "inputs": _inputs(sae),
        "active": _active(sae),
    }
    if sae.transcodes:
        about = sae.inner.cfg.metadata
        facts["writes"] = f"{sae.d_out} numbers at {sae.out_site or about.hook_name_out or UNSAID}"
    if sae.told:
        facts["model and site by"] = sae.told
    if sae.sliced:
        facts["positions"] = str(sae.inner.cfg.metadata.seqpos_slice)
    if sae.reads:
        facts["of"] = f"the {sae.reads}, not the activations"
    return facts


def _specials(excluded: Any) -> str:
    if excluded is None:
        return UNSAID
    if isinstance(excluded, bool):
        return "left out" if excluded else "read"
    return f"ids {', '.join(map(str, excluded))} left out"


def _inputs(sae: Sae) -> str:
    """What happens to an activation before the encoder's product."""
    steps = ["mean over d_model taken away"] if sae.centred else []
    if sae.normalises:
        steps.append(sae.normalises)
    if sae.inner.cfg.apply_b_dec_to_input:
        steps.append("b_dec taken away")
    return ", ".join(steps) or "as they are"


def _active(sae: Sae) -> str:
    """Which latents are active: the k largest, those over a threshold, or the positive ones."""
    k = getattr(sae.inner.cfg, "k", None)
    if k is not None:
        return f"the {k} largest"
    threshold = dict(sae.inner.named_parameters()).get("threshold")
    if threshold is None:
        return "those over 0"
    lowest, highest = map(float, threshold.detach().aminmax())
    same = f"{lowest:.4g}"
    return f"those over {same}" + ("" if lowest == highest else f" to {highest:.4g}, each its own")
