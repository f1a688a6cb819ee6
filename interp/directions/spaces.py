"""Which directions lie in one space: what a cosine of two sites means.

All that reads from or writes to the residual stream has d_model numbers of the same meaning in
every layer, so two such vectors have a cosine. The numbers of `mlp_post`, of a head or of the
logits mean something else at each site, so only vectors of one site have one.

The cosine of what reads (w_in) with what writes (w_out) is the direct path between them: of one
unit that is written, w_in . w_out is what is read. `mlp_in` lies behind a norm, whose gain g stands
between both, so that in the stream such a vector reads along g * w_in, without the mean where the
norm takes it away (`compare.in_stream`). What writes there, the decoder's row of an SAE of the
MLP's input, is a step behind the norm: in the stream it is the step that becomes it, row / g.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UserError
from ..model.site import Site

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ..model.weights import Weights

STREAM_KINDS = (
    *("resid_pre", "resid_mid", "resid_post", "final_norm_in"),
    *("attn_out", "mlp_out", "mlp_in"),
)


def check_comparable(ours: Site, theirs: Site) -> None:
    """Raise UserError for two sites whose vectors lie in different spaces."""
    if ours == theirs or {ours.kind, theirs.kind} <= set(STREAM_KINDS):
        return
    raise UserError(
        f"vectors at {ours} and at {theirs} lie in two spaces, and a cosine says nothing: compare "
        f"two of the residual stream ({', '.join(STREAM_KINDS)}), or two of one site"
    )


def check_in_stream(site: Site) -> None:
    """Raise UserError for a site whose numbers are not those of the residual stream, though they
    may be as many: those of all heads often are."""
    if site.kind not in STREAM_KINDS:
        raise UserError(
            f"the numbers of {site} are not those of the residual stream: take directions at one "
            f"of {', '.join(STREAM_KINDS)}"
        )


def behind_norm(site: Site | None) -> bool:
    """Whether what reads at a site reads behind the MLP's norm."""
    return site is not None and site.kind == "mlp_in"


def as_in_stream(
    vectors: Float[Tensor, "n d"],
    site: Site | None,
    weights: Weights | None,
    written: bool = False,
) -> Float[Tensor, "n d"]:
    """Vectors at a site as they lie in the residual stream: those behind the MLP's norm before it,
    all others as they are.

    Args:
        weights: of their model; none is needed where no norm stands between.
        written: they are steps at the site and are not read there.
    """
    if site is None or not behind_norm(site):
        return vectors
    if weights is None:
        raise ValueError(f"vectors at {site} are carried before a norm, whose gain is not given")
    carried = steps_before_norm if written else before_norm
    return carried(vectors, weights, site.layer)


def before_norm(
    vectors: Float[Tensor, "n d_model"], weights: Weights, layer: int | None
) -> Float[Tensor, "n d_model"]:
    """What reads behind the MLP's norm of a layer, as it reads the stream before the norm, but for
    the norm's scale."""
    norm = weights.norm("mlp", layer)
    if norm is None:
        return vectors
    scaled = vectors * norm.gain.to(vectors)
    return scaled - scaled.mean(-1, keepdim=True) if weights.spec.norm == "layer" else scaled


def steps_before_norm(
    vectors: Float[Tensor, "n d_model"], weights: Weights, layer: int | None
) -> Float[Tensor, "n d_model"]:
    """The steps of the stream that the MLP's norm of a layer makes to these, but for its scale:
    vectors / gain, 0 where the gain is, and without the mean where the norm takes it away."""
    norm = weights.norm("mlp", layer)
    if norm is None:
        return vectors
    gain = norm.gain.to(vectors)
    steps = vectors * (gain != 0) / (gain + (gain == 0))
    return steps - steps.mean(-1, keepdim=True) if weights.spec.norm == "layer" else steps
