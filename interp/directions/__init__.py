"""What is found: labelled vectors at one site, and where they come from."""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .directions import Directions, stored_directions
    from .sources import open_directions

__all__ = ["Directions", "open_directions", "stored_directions"]
__getattr__, __dir__ = lazy(
    __name__, lambda: dict.fromkeys(__all__, ".directions") | {"open_directions": ".sources"}
)
