"""A transformers model with every weight from its files, and from them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError
from .folder import check_folder, read_config


def load_model(folder: Path, **options: Any) -> Any:
    """The model of a plain checkpoint's folder, as `AutoModelForCausalLM` loads it.

    Raises:
        UserError: `check_folder` refuses the folder, or `complete_model` what is loaded.
    """
    check_folder(folder)
    return complete_model(folder, **options)


def complete_model(folder: Path, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained`, or where transformers has no such class for a model
    with a text model inside, that model whole. Both fill what the files lack with random numbers.

    Raises:
        UserError: it cannot load it; a weight is missing, has another shape than config.json
            implies, or holds a NaN or an infinity.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    asked = {"output_loading_info": True, "ignore_mismatched_sizes": True, **options}
    loaded: Any
    alone = read_config(folder)["model_type"] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    auto: Any = AutoModelForCausalLM if alone else AutoModelForImageTextToText
    try:
        loaded = auto.from_pretrained(folder, trust_remote_code=False, **asked)
    # what transformers raises at configs that it did not expect
    except (
        *(AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError),
        *(ZeroDivisionError, StrictDataclassError),
    ) as error:
        reason = " ".join(str(error).split())[:200]
        kind = type(error).__name__
        raise UserError(f"transformers cannot load this model: {kind}: {reason}") from error
    model, info = loaded
    _check_complete(folder, model, info)
    return model


def _check_complete(folder: Path, model: Any, info: dict[str, Any]) -> None:
    import torch

    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{len(missing)} of the model's weights are not in its files, {missing[0]} among them: "
            "fetch it again"
        )
    for name, stored, implied in sorted(info["mismatched_keys"]):
        raise UserError(
            f"'{name}' in {folder} is {list(stored)} where config.json implies {list(implied)}"
        )
    for name, weight in model.named_parameters():
        if weight.numel() and not torch.stack(torch.aminmax(weight.detach())).isfinite().all():
            raise UserError(f"'{name}' in {folder} holds a NaN or an infinity: it is damaged")
