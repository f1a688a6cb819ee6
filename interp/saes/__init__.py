"""Sparse autoencoders: opened, trained, pursued, and what they leave of an activation."""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .open import open_saes
    from .sae import Sae, SaeSplit, load_sae, pretrained_sae, wrap

__all__ = ["Sae", "SaeSplit", "load_sae", "open_saes", "pretrained_sae", "wrap"]
__getattr__, __dir__ = lazy(
    __name__, lambda: dict.fromkeys(__all__, ".sae") | {"open_saes": ".open"}
)
