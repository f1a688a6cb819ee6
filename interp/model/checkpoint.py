"""A transformers model with every weight from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError


def load_model(folder: Path, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained`, which fills what the files lack with random numbers.

    Raises:
        UserError: a weight is missing.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{len(missing)} of the model's weights are not in its files, {missing[0]} among them: "
            "fetch it again"
        )
    return model
