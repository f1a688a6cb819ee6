"""The kinds of SAE that are trained: which of sae-lens' training classes each is, and how sparse.

    kind         sparse by                                    sae-lens trains          reads it as
    topk         the k largest latents of each token          topk                     topk
    batchtopk    the k n largest of a batch of n tokens       batchtopk                jumprelu
    matryoshka   as batchtopk, with a loss at nested widths   matryoshka_batchtopk     jumprelu
    jumprelu     a penalty on L0, a threshold each latent     jumprelu                 jumprelu
    l1           a penalty on ReLU latents                    standard                 standard
    gated        a penalty on a gate of its own               gated                    gated

Sources: Gao et al. 2024 (TopK), Bussmann et al. 2024 (BatchTopK) and 2025 (Matryoshka),
Rajamanoharan et al. 2024 (Gated; JumpReLU), Bricken et al. 2023 (L1). Matryoshka's widths are an
eighth, a quarter, a half and all of the latents. The coefficient of a penalty can be steered to an
L0 (`SaePlan.steered`).

Dead latents: topk, batchtopk and matryoshka have a loss that lets them learn the error (Gao et
al.); in the others they are resampled (`resample.py`).

Each but topk and gated is also trained as a transcoder (`transcoder.py`): sae-lens has no class
that reads a TopK or a gated one.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

from ..errors import UserError

Kind = Literal["topk", "batchtopk", "matryoshka", "jumprelu", "l1", "gated"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NESTED = (8, 4, 2, 1)
"""Matryoshka: one latent in so many is in each of the nested SAEs."""
THRESHOLD_STEPS = 20
"""BatchTopK: the threshold follows the last training_steps / THRESHOLD_STEPS steps, or 100."""

JUMPRELU = {
    "jumprelu_init_threshold": 0.1,
    "jumprelu_bandwidth": 2.0,
    "jumprelu_ste_to_input": True,
}
"""Anthropic's estimator of a threshold's gradient, for inputs of length sqrt(d_in) as these are: a
narrow one, of the threshold alone, needs many more steps than a small training has."""


class KindOf(NamedTuple):
    """What sets a kind apart."""

    trained: str
    """Its name in sae-lens' registry of training classes."""
    transcoder: str = ""
    """What sae-lens calls its transcoders; "" if it reads none."""
    penalised: bool = False
    """Its sparsity comes from a coefficient, not from a number of latents."""
    resampled: bool = False
    """Dead latents begin again; the others have a loss for them."""


TABLE: dict[Kind, KindOf] = {
    "topk": KindOf("topk"),
    "batchtopk": KindOf("batchtopk", "jumprelu_transcoder"),
    "matryoshka": KindOf("matryoshka_batchtopk", "jumprelu_transcoder"),
    "jumprelu": KindOf("jumprelu", "jumprelu_transcoder", penalised=True, resampled=True),
    "l1": KindOf("standard", "transcoder", penalised=True, resampled=True),
    "gated": KindOf("gated", penalised=True, resampled=True),
}


def check_kinds(kinds: tuple[Kind, ...], option: str = "--kinds") -> None:
    """Raise UserError unless there is a kind, and each is given once."""
    if not kinds or len(set(kinds)) < len(kinds):
        raise UserError(f"give {option} at least one kind, each once: {', '.join(KINDS)}")


def settings(kind: Kind, sparsity: float, d_sae: int, steps: int, warm_up: int) -> dict[str, Any]:
    """Fields of the kind's training config in sae-lens.

    Args:
        sparsity: latents a token, or the coefficient of a penalised kind.
        steps: of the training; warm_up: of these, those in which a penalty rises from 0.
    """
    if kind == "topk":
        return {"k": int(sparsity)}
    if kind in ("batchtopk", "matryoshka"):
        rate = min(1.0, max(0.01, THRESHOLD_STEPS / steps))
        given: dict[str, Any] = {"k": float(sparsity), "topk_threshold_lr": rate}
        if kind == "matryoshka":
            given["matryoshka_widths"] = sorted({max(1, d_sae // share) for share in NESTED})
        return given
    if kind == "jumprelu":
        return {**JUMPRELU, "l0_coefficient": float(sparsity), "l0_warm_up_steps": warm_up}
    return {"l1_coefficient": float(sparsity), "l1_warm_up_steps": warm_up}
