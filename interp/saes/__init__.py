"""Sparse autoencoders: opened, trained, pursued, and what they leave of an activation."""

from .sae import Sae, SaeSplit, load_sae, pretrained_sae, wrap

__all__ = ["Sae", "SaeSplit", "load_sae", "pretrained_sae", "wrap"]
