"""What is found: labelled vectors at one site, and where they come from."""

from .directions import Directions, stored_directions

__all__ = ["Directions", "stored_directions"]
