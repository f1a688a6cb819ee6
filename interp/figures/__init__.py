"""DataFrame -> plotly figure, pure functions. Shared by the app and the notebooks."""

from ..vocabulary import visible
from .bench import kernel_ratios, kernel_roofline
from .darkmatter import downstream_bars, error_bands, error_measures, fault_map, token_scatter
from .directions import cosine_map, next_tokens
from .knob import (
    knob_answers,
    knob_bars,
    knob_curve,
    knob_layers,
    knob_positions,
    knob_price,
    knob_search,
    knob_separation,
)
from .linearscope import (
    bias_shares,
    layer_constants,
    picture_strip,
    place_picker,
    singular_values,
    token_contributions,
    vote_maps,
)
from .neurons import agreement_map, clamp_curve, layer_density, neuron_tokens, standing
from .obsprop import (
    coloured_tokens,
    coupling_matrix,
    coupling_scatter,
    head_map,
    method_curves,
    score_scatter,
)
from .othello import edit_errors, othello_board, othello_layers, tile_maps
from .tars import removal_curves

__all__ = [
    "agreement_map",
    "bias_shares",
    "clamp_curve",
    "coloured_tokens",
    "cosine_map",
    "coupling_matrix",
    "coupling_scatter",
    "downstream_bars",
    "edit_errors",
    "error_bands",
    "error_measures",
    "fault_map",
    "head_map",
    "kernel_ratios",
    "kernel_roofline",
    "knob_answers",
    "knob_bars",
    "knob_curve",
    "knob_layers",
    "knob_positions",
    "knob_price",
    "knob_search",
    "knob_separation",
    "layer_constants",
    "layer_density",
    "method_curves",
    "neuron_tokens",
    "next_tokens",
    "othello_board",
    "othello_layers",
    "picture_strip",
    "place_picker",
    "removal_curves",
    "score_scatter",
    "singular_values",
    "standing",
    "tile_maps",
    "token_contributions",
    "token_scatter",
    "visible",
    "vote_maps",
]
