"""Whether a model is the one whose activations an SAE was trained on."""

from __future__ import annotations

from ..errors import UserError
from ..model.aliases import same_model
from ..model.weights import open_weights


def check_model(name: str, said: str, model: str, anyway: bool = False) -> bool:
    """Whether an SAE that names a model, or "" for none, is one of this model.

    Args:
        name: the SAE's.
        anyway: False for another model instead of the error.

    Raises:
        UserError: another model.
    """
    fits = not said or same_model(said, model)
    if not (fits or anyway):
        raise UserError(
            f"{name} is an SAE of {said}, not of {model}: give that --model, or --anyway if they "
            "are the same"
        )
    return fits


def check_centred(name: str, model: str) -> None:
    """Raise UserError where the stream without its mean over d_model is not the same stream for
    the model: something in it would see the difference."""
    spec = open_weights(model).spec
    family = spec.family
    behind = family.attn_post_norm or family.mlp_post_norm or family.embed_norm
    if spec.norm != "layer" or behind or not (family.attn_norm and family.mlp_norm):
        raise UserError(
            f"{name} reads a stream whose mean was taken away (center_writing_weights), which only "
            f"a model with a LayerNorm before every reader has: {model} is not one"
        )
