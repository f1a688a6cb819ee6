"""Names of torch's calls, sorted by what they do; an in-place call is under its twin's name."""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


QUESTIONS = _names("""
    __get__ size dim ndimension numel nelement stride element_size is_contiguous storage_offset
    is_complex is_floating_point get_device __len__ data_ptr
    __lt__ __le__ __gt__ __ge__ __eq__ __ne__ lt le gt ge eq ne isnan isinf isfinite any all
    __bool__ sign argsort argmax argmin zeros_like ones_like full_like empty_like new_zeros new_ones
    new_full new_empty
""")
"""Answered for the reference, with plain values: a branch of the code is a decision too. `__get__`
reads a property such as .shape."""

ZEROS = _names("zeros_like new_zeros")
"""Of the questions, those whose answers code adds activations into."""

ESCAPES = _names("item tolist __float__ __int__ __index__ __array__ numpy fill_")
"""Refused: they turn activations into numbers that nothing follows."""

MOVES = _names("""
    view reshape flatten unflatten ravel permute transpose t adjoint swapaxes swapdims movedim
    moveaxis contiguous clone squeeze unsqueeze expand expand_as view_as reshape_as repeat
    repeat_interleave tile roll flip fliplr flipud cat concat concatenate stack hstack vstack dstack
    column_stack split chunk tensor_split hsplit vsplit dsplit unsafe_chunk unbind narrow select
    take index_select gather take_along_dim masked_select __getitem__ unfold fold pixel_shuffle
    pixel_unshuffle channel_shuffle to type float double half bfloat16 type_as diagonal diag
    diag_embed tril triu masked_fill where detach broadcast_to dropout dropout2d feature_dropout
    alpha_dropout scatter index_fill index_copy index_put masked_scatter slice_scatter
    select_scatter diagonal_scatter max_unpool1d max_unpool2d max_unpool3d
""")
"""Only move numbers: a gate stays a gate."""

LINEAR = MOVES | _names("""
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear add sub rsub
    __add__ __radd__ __sub__ __rsub__ neg __neg__ positive sum mean cumsum avg_pool1d avg_pool2d
    avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample pad
    _pad diff rot90 scatter_add index_add trace
""")
"""Affine in all activations together; their constants (biases) become part of r."""

_WEIGHT = (1, "weight")
FACTORS: dict[str, tuple[int | str, ...]] = {
    "linear": _WEIGHT,
    **{f"conv{kind}{n}d": _WEIGHT for kind in ("", "_transpose") for n in (1, 2, 3)},
}
"""Arguments of linear calls that multiply the others, by position or name: frozen if they are
gates, else the result is a decision."""

_TERMS = (0, 1, "input", "other")
SUMMANDS: dict[str, tuple[int | str, ...]] = {
    **dict.fromkeys(["add", "sub", "rsub", "__add__", "__radd__", "__sub__", "__rsub__"], _TERMS),
    **dict.fromkeys(["cat", "concat", "concatenate", "stack", "hstack", "vstack"], (0, "tensors")),
    **dict.fromkeys(("pad", "_pad"), (3, "value")),
    "where": (1, 2, "self", "input", "other"),
    "masked_fill": (2, "value"),
    "index_fill": (3, "value"),
    "scatter": (3, "value"),
}
"""Arguments of linear calls that are added or filled in, by position or name, whatever their type:
0 in the call's linear part. Floating tensors are too wherever they stand, unless they multiply."""

MATRIX_PRODUCTS = _names("""
    matmul __matmul__ __rmatmul__ mm bmm mv dot inner tensordot einsum linalg_matmul linalg_vecdot
""")

GATINGS = _names("mul multiply __mul__ __rmul__")
"""Products number by number, in which one factor may be the gate of the other."""

PRODUCTS = (
    MATRIX_PRODUCTS
    | _names("""
    outer ger kron div divide true_divide __truediv__ __rtruediv__
""")
    | GATINGS
)

POWERS = _names("pow __pow__ square")
"""Of a unit's output (ReLU^2, StarReLU) they are a unit; of anything else a statistic."""

SCALES = _names("""
    add sub rsub __add__ __radd__ __sub__ __rsub__ neg __neg__ mul __mul__ __rmul__ div __truediv__
""")
"""With a constant they leave a gate a gate: GELU written out is x/2 * (1 + tanh(...))."""

STATISTICS = _names("""
    pow __pow__ square sqrt rsqrt exp reciprocal var std var_mean std_mean norm vector_norm
    linalg_vector_norm linalg_norm softmax log_softmax logsumexp log __rpow__ sin cos erf
""")
"""Not replayed; their results are decisions."""

LIKES = _names("expand_as view_as reshape_as type_as to")
"""Their further arguments count by shape and type alone."""

RANDOM = _names("batch_norm dropout dropout2d feature_dropout alpha_dropout")
"""Linear in evaluation mode only."""

INPLACE = {f"__i{name}__": f"__{name}__" for name in ("add", "sub", "mul", "truediv")}

PROPERTIES = {**dict.fromkeys(["T", "mT", "H", "mH", "real"], "contiguous"), "data": "detach"}
"""Properties that are activations themselves, and a call that moves as they do."""
