"""DataFrame -> plotly figure, pure functions. Shared by the app and the notebooks."""

from ..vocabulary import visible
from .directions import cosine_map, next_tokens
from .neurons import agreement_map, clamp_curve, layer_density, neuron_tokens, standing

__all__ = [
    "agreement_map",
    "clamp_curve",
    "cosine_map",
    "layer_density",
    "neuron_tokens",
    "next_tokens",
    "standing",
    "visible",
]
