"""Safetensors files that anyone may have written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Tensors(NamedTuple):
    """What a file holds."""

    by_name: dict[str, Tensor]
    about: dict[str, str]
    """Its metadata."""


def read_tensors(path: Path, fix: str = "replace it") -> Tensors:
    """All tensors of a file, on the CPU.

    Raises:
        UserError: no such file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Tensors(tensors, file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): {fix}") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a run's file as NumPy's, without torch.

    Raises:
        UserError: no such file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): make its run again with --fresh"
        ) from error
