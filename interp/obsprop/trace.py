"""What one prompt's forward pass fixes: patterns, norm scales, what heads and MLPs write.

Everything in observable propagation that is not a weight comes from here. The reference notebooks
scored some features with another layer's norm input and, in one helper, with attention's and the
MLP's norms swapped; so what each norm reads is asked for by name (`Trace.reads`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.batch import Batch
from ..model.site import Site
from ..model.subject import Subject
from ..model.weights import NormKind
from .model_weights import StackedWeights


@dataclass(frozen=True)
class Trace:
    """One prompt's pass; L layers, P positions."""

    ids: Int[Tensor, " P"]
    streams: dict[str, Float[Tensor, "L P d"]]
    """What each kind of norm reads, layer by layer; "final" is [P, d]."""
    pattern: Float[Tensor, "L heads query key"]
    values: Float[Tensor, "L kv P k"]
    mlp_out: Float[Tensor, "L P d"]
    logits: Float[Tensor, " d_vocab"]
    """At the last position."""

    @property
    def last(self) -> int:
        return len(self.ids) - 1

    def reads(self, kind: NormKind, layer: int, position: int) -> Float[Tensor, " d"]:
        """The activation a norm reads."""
        if kind == "final":
            return self.streams["final"][position]
        return self.streams[kind][layer, position]


def trace(subject: Subject, weights: StackedWeights, text: str | Batch) -> Trace:
    """Run one prompt and keep what the identities need.

    Raises:
        UserError: a subject opened without patterns, or several prompts.
    """
    batch = subject.tokens(text) if isinstance(text, str) else text
    if Site("attn_pattern", 0) not in subject.sites:
        raise UserError('a trace needs attention patterns: open the subject with attention="eager"')
    if len(batch.ids) != 1:
        raise UserError("a trace is of one prompt: give one at a time")
    kinds = ["resid_pre", "head_v", "head_z", "attn_pattern", "mlp_out", "mlp_post"]
    kinds += [] if weights.spec.parallel else ["resid_mid"]
    wanted = [f"*.{kind}" for kind in kinds] + ["final_norm_in", "logits"]
    # on the CPU, where the stacked weights are
    captured = {site: x.cpu() for site, x in subject.capture(batch, wanted).items()}

    def stacked(kind: str) -> Tensor:
        return torch.stack([captured[Site(kind, i)][0] for i in range(weights.spec.n_layers)])

    streams = {
        "attn": stacked("resid_pre"),
        "mlp": stacked("resid_pre" if weights.spec.parallel else "resid_mid"),
        "final": captured[Site("final_norm_in")][0],
    }
    if weights.post_norm("attn", 0) is not None:
        z, hidden = stacked("head_z").to(weights.dtype), stacked("mlp_post").to(weights.dtype)
        streams["attn_post"] = torch.einsum("lphk,lhdk->lpd", z, weights.W_O) + weights.b_O[:, None]
        downs = [weights.mlp(i).down(hidden[i]) for i in range(weights.spec.n_layers)]
        streams["mlp_post"] = torch.stack(downs)
    return Trace(
        ids=batch.ids[0].cpu(),
        streams={kind: x.to(weights.dtype) for kind, x in streams.items()},
        pattern=stacked("attn_pattern").to(weights.dtype),
        values=stacked("head_v").transpose(1, 2).to(weights.dtype),
        mlp_out=stacked("mlp_out").to(weights.dtype),
        logits=captured[Site("logits")][0, -1].to(weights.dtype),
    )


def trace_pair(
    subject: Subject, weights: StackedWeights, pair: tuple[str | Batch, str | Batch], name: str
) -> tuple[Trace, Trace]:
    """Traces of a prompt and its counterfactual, position by position comparable.

    Raises:
        UserError: prompts of different lengths, or twice the same.
    """
    batches = [subject.tokens(text) if isinstance(text, str) else text for text in pair]
    lengths = [batch.ids.shape[1] for batch in batches]
    if lengths[0] != lengths[1]:
        raise UserError(
            f"the pair of '{name}' has {lengths[0]} and {lengths[1]} tokens in this model's "
            "vocabulary: change the prompts until they have as many"
        )
    if torch.equal(batches[0].ids, batches[1].ids):
        raise UserError(f"both prompts of the pair of '{name}' are the same: change one")
    return trace(subject, weights, batches[0]), trace(subject, weights, batches[1])
