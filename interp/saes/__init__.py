"""Sparse autoencoders: opened, trained, pursued, and what they leave of an activation."""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .open import open_sae, open_saes
    from .sae import Sae
    from .split import SaeSplit
    from .wrapped import wrap

__all__ = ["Sae", "SaeSplit", "open_sae", "open_saes", "wrap"]
__getattr__, __dir__ = lazy(
    __name__,
    lambda: {
        "Sae": ".sae",
        "wrap": ".wrapped",
        **dict.fromkeys(("open_sae", "open_saes"), ".open"),
        "SaeSplit": ".split",
    },
)
