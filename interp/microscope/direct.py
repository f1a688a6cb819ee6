"""What each part of a model adds to a logit by itself, with no other part in between.

The stream at a position ends as a sum, x = embedding + every layer's attention + every MLP, and a
logit reads it through the final norm and one row r of the unembedding:

    logit = r . (gain * P x / sigma(x) + offset) + b_U      sigma frozen at this x
          = u . x + constant                                u = P(gain * r) / sigma(x)

(`obsprop.norms`; P takes the mean away in LayerNorm). So u . (what a part adds) is the part's
*direct contribution*, and all of them with the constant add up to the logit. Inside a layer:

    attention   the sum over heads of u . W_O^h z^h
    MLP         the sum over neurons of a_i (u . w_i), w_i the neuron's row of W_down
    bias        u . b_O and u . b_down, and the offset of a norm behind either

Where a norm stands behind attention or the MLP (Gemma 2 and 3, OLMo 2), u is carried back through
it, its scale frozen too. A soft cap (Gemma 2) is left out: the logit is the one before it, times
the model's own factor (Cohere, Granite). Against another token r is the difference of two rows, and
against the vocabulary the row less the mean of all.

Equivalent: `torch.autograd.grad(logit, part)` . part with every scale held as a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.prompting import one_token
from ..model.site import Site
from ..model.weights import NormKind, Weights
from ..obsprop.norms import NoNorm, Norm
from .passed import END, Opened, Passed


class Asked(NamedTuple):
    """A logit that is explained, and what is subtracted from it."""

    token: int
    against: int | None = None
    """Another token."""
    mean: bool = False
    """The mean over the vocabulary is subtracted: what is added to all logits changes no
    probability."""

    def name(self, strings: Sequence[str]) -> str:
        """As people read it, tokens in quotes."""
        plus = repr(strings[self.token])
        if self.against is not None:
            return f"{plus} - {strings[self.against]!r}"
        return f"{plus} - mean" if self.mean else plus

    def value(self, logits: Float[Tensor, " d_vocab"]) -> float:
        """Of the model's own logits."""
        value = logits[self.token]
        if self.against is not None:
            value = value - logits[self.against]
        return float(value - logits.mean() if self.mean else value)

    def row(self, opened: Opened) -> tuple[Float[Tensor, " d_model"], float]:
        """What reads the final norm's output, and the constant behind it, in float64."""
        weights = opened.weights
        W_U, b_U = weights.W_U(), weights.b_U().double()
        row, bias = W_U[self.token].double(), b_U[self.token]
        if self.against is not None:
            row, bias = row - W_U[self.against].double(), bias - b_U[self.against]
        if self.mean:
            row, bias = row - opened.mean_row, bias - b_U.mean()
        scale = weights.spec.logit_scale
        return row * scale, float(bias) * scale


def ask(
    passed: Passed, position: int, target: str = "", against: str = "", alone: bool = False
) -> Asked:
    """The logit of a token after a position.

    Args:
        target: the token, with its space; by default the likeliest there.
        against: a token whose logit is subtracted; by default the mean over the vocabulary is.
        alone: nothing is subtracted.

    Raises:
        UserError: a word of several tokens, or the same one twice.
    """
    prompting, size = passed.opened.subject.prompting, passed.opened.subject.spec.d_vocab
    plus = one_token(prompting, target, size) if target else int(passed.logits(position).argmax())
    if not against:
        return Asked(plus, mean=not alone)
    minus = one_token(prompting, against, size)
    if plus == minus:
        raise UserError(f"{target or against!r} and {against!r} are the same token: give two")
    return Asked(plus, minus)


@dataclass(frozen=True)
class Direct:
    """Direct contributions to n logits, each at a position of a text of its own choice."""

    passed: Passed
    at: Int[Tensor, " n"]
    asked: Sequence[Asked]
    _carried: dict[tuple[str, int], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    """What `behind` found."""

    @classmethod
    def one(cls, passed: Passed, position: int, asked: Asked) -> Direct:
        """Of one logit."""
        return cls(passed, torch.tensor([position]), [asked])

    @classmethod
    def over(cls, passed: Passed, asked: Sequence[Asked]) -> Direct:
        """Of one logit at every position."""
        return cls(passed, torch.arange(len(passed)), asked)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of what neurons and heads are computed in: the model's own, or better."""
        return torch.promote_types(self.passed.seen[END].dtype, torch.float32)

    @cached_property
    def _read(self) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, " n"]]:
        """u and the constant of each."""
        opened = self.passed.opened
        norm = norm_of(opened.weights, "final")
        rows, biases = zip(*(asked.row(opened) for asked in self.asked), strict=True)
        r = torch.stack(rows)
        u = norm.pull(r, "frozen", self.passed.seen[END][self.at].double())
        return u, torch.tensor(biases, dtype=torch.float64) + r @ norm.offset

    @property
    def u(self) -> Float[Tensor, "n d_model"]:
        """What reads the stream at the end, in float64."""
        return self._read[0]

    @property
    def constant(self) -> Float[Tensor, " n"]:
        """What does not depend on the stream: the final norm's offset and the unembedding's
        bias."""
        return self._read[1]

    @property
    def values(self) -> Float[Tensor, " n"]:
        """The model's own logits."""
        pairs = zip(self.asked, self.at.tolist(), strict=True)
        values = [asked.value(self.passed.logits(at)) for asked, at in pairs]
        return torch.tensor(values, dtype=torch.float64)

    def of(self, site: Site) -> Float[Tensor, " n"]:
        """u . what stands at a site of the stream, in float64."""
        return (self.u * self.passed.seen[site][self.at].double()).sum(1)

    def has(self, kind: str, layer: int) -> bool:
        """Whether a layer's parts of a kind can be told apart: attention without heads of its own
        and layers of experts come whole."""
        return Site(kind, layer) in self.passed.seen

    def behind(self, kind: NormKind, layer: int) -> tuple[Tensor, Tensor]:
        """u carried back through the norm behind attention or the MLP, which is as it is in a
        family without, and what that norm's offset adds: [n, d_model], [n], in float64."""
        if (kind, layer) not in self._carried:
            weights = self.passed.opened.weights
            norm, u = norm_of(weights, kind, layer), self.u * weights.spec.residual_scale
            raw = None if isinstance(norm, NoNorm) else self._raw(kind, layer)
            self._carried[kind, layer] = norm.pull(u, "frozen", raw), u @ norm.offset
        return self._carried[kind, layer]

    def _raw(self, kind: NormKind, layer: int) -> Float[Tensor, "n d_model"]:
        """What a norm behind attention or the MLP reads, in float64."""
        weights, seen = self.passed.opened.weights, self.passed.seen
        if kind == "attn_post":
            z = seen[Site("head_z", layer)][self.at].double()
            summed = torch.einsum("nhk,hdk->nd", z, weights.W_O(layer).double())
            return summed + weights.b_O(layer).double()
        a = seen[Site("mlp_post", layer)][self.at].to(self.dtype)
        return (a @ weights.neurons("down", layer).to(a) + weights.bias("down", layer)).double()

    def heads(self, layer: int) -> Float[Tensor, "n heads"]:
        """Of each head of a layer."""
        u, _ = self.behind("attn_post", layer)
        z = self.passed.seen[Site("head_z", layer)][self.at].to(self.dtype)
        return torch.einsum("nhk,nhk->nh", z, self._head_rows(layer, u))

    def _head_rows(self, layer: int, u: Tensor) -> Float[Tensor, "n heads d_head"]:
        W_O = self.passed.opened.weights.W_O(layer).to(self.dtype)
        return torch.einsum("nd,hdk->nhk", u.to(self.dtype), W_O)

    def sources(self, layer: int) -> Float[Tensor, "n heads pos"] | None:
        """Of each head by the position that it looks at; None without patterns, or of heads that
        pass a gate."""
        seen, spec = self.passed.seen, self.passed.opened.weights.spec
        pattern, values = (seen.get(Site(kind, layer)) for kind in ("attn_pattern", "head_v"))
        if pattern is None or values is None or spec.family.gated_heads:
            return None
        u, _ = self.behind("attn_post", layer)
        shared = values.to(self.dtype).repeat_interleave(len(pattern) // values.shape[1], 1)
        reached = torch.einsum("shk,nhk->nhs", shared, self._head_rows(layer, u))
        return reached * pattern[:, self.at].transpose(0, 1).to(self.dtype)

    def per_unit(self, layer: int) -> Float[Tensor, "n neurons"]:
        """What one unit of each neuron's activation adds."""
        u, _ = self.behind("mlp_post", layer)
        rows: Tensor = self.passed.opened.weights.neurons("down", layer)
        return u.to(self.dtype) @ rows.to(self.dtype).T

    def activations(self, layer: int) -> Float[Tensor, "n neurons"]:
        """Of each neuron at its position."""
        return self.passed.seen[Site("mlp_post", layer)][self.at].to(self.dtype)

    def bias(self, kind: NormKind, layer: int) -> Float[Tensor, " n"]:
        """What attention or the MLP adds to anything: a bias, and a norm's offset behind it."""
        u, offset = self.behind(kind, layer)
        weights = self.passed.opened.weights
        own = weights.b_O(layer) if kind == "attn_post" else weights.bias("down", layer)
        return u @ own.double() + offset


def norm_of(weights: Weights, kind: NormKind, layer: int | None = None) -> Norm:
    """A norm of a model, in float64; in a family without it what leaves everything as it is."""
    stored = weights.norm(kind, layer)
    if stored is None:
        ones = torch.ones(weights.spec.d_model, dtype=torch.float64)
        return NoNorm(ones, torch.zeros_like(ones), 0.0, False)
    centred = weights.spec.norm == "layer"
    return Norm(stored.gain.double(), stored.offset.double(), weights.spec.eps, centred)
