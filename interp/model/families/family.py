"""Family: what one architecture calls its parts and where they stand, as one declarative entry.

A layer of every family is the same computation on a stream x [d_model], with parts left out:

    a = scale * attn_post_norm(W_O z + b_O)                      attn_out
    m = scale * mlp_post_norm(W_down h + b_down)                 mlp_out
    h = act(gate) * up, or act(up);  up = W_up mlp_norm(y) + b   mlp_post, mlp_up

where the MLP reads y = x + a, or y = x in a parallel layer. Names are those of transformers'
causal-LM class in memory, without ".weight": names of parts are relative to the layer. Files may
hold them under another prefix (base classes, models with a text model inside): `names.Names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Part(NamedTuple):
    """The outputs of a projection that are meant: all, or one of several equal parts."""

    name: str
    which: int = 0
    of: int = 1
    interleaved: bool = False
    """Whether the parts take turns, output by output, rather than follow each other."""

    def span(self, width: int) -> slice:
        """Where the part's outputs are among the projection's `of * width`."""
        if self.interleaved:
            return slice(self.which, None, self.of)
        return slice(self.which * width, (self.which + 1) * width)

    def take(self, x: Tensor) -> Tensor:
        """The part of what the projection gives, [..., of * width] -> [..., width]."""
        return x[..., self.span(x.shape[-1] // self.of)]

    def put(self, x: Tensor, new: Tensor) -> Tensor:
        """What the projection gives, with the part replaced."""
        whole = x.clone()
        whole[..., self.span(x.shape[-1] // self.of)] = new
        return whole


class Variant(NamedTuple):
    """What is different in an entry where a config field has a value."""

    name: str
    value: Any
    changes: Mapping[str, Any] = {}
    """Fields of the entry and their other values."""
    unfit: str = ""
    """Why such a model cannot be taken."""


_GATE, _UP = (Part("mlp.experts.gate_up_proj", half, 2) for half in (0, 1))
_ALONE = {kind: f"mlp.experts.{{}}.{kind}_proj" for kind in ("up", "gate", "down")}


@dataclass(frozen=True)
class Experts:
    """The experts of a layer's MLP, and one that every token passes, where there is one.

    Transformers keeps the matrices of all experts stacked, [experts, ...]; files often hold them
    one by one. A layer with a dense layer's tensors is a dense layer.
    """

    count: tuple[str, ...]
    """Config fields that may have the number of experts."""
    width: str = "moe_intermediate_size"
    """The config field with the number of neurons of an expert."""
    up: Part = _UP
    gate: Part = _GATE
    down: str = "mlp.experts.down_proj"
    """The stacks, which have no ".weight"."""
    transposed: bool = False
    """Whether the stacks' matrices are [in, out] rather than [out, in]."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Stacks that have another name in files: in memory -> in files."""
    alone: Mapping[str, str] = field(default_factory=lambda: _ALONE)
    """One expert's matrices where files hold them one by one; `{}` stands for its number."""
    shared: str = ""
    """The module of the shared expert, with the names of a dense layer's projections below it."""
    shared_width: str = ""
    """The config field with its number of neurons; by default `width` times the next."""
    shared_count: str = ""
    """The config field with the number of shared experts that are stored as one."""


@dataclass(frozen=True)
class Family:
    """One architecture: see the module. What follows can be left out where it is the usual."""

    layer: str
    """The layers' modules; `{}` stands for the number."""
    embed: str
    final_norm: str
    up: Part
    down: str
    value: str
    output: str
    attn_norm: str = ""
    mlp_norm: str = ""
    """Norms through which attention and MLP read the stream; the same in some parallel layers,
    "" where they read the stream itself (OLMo 2)."""
    attn_post_norm: str = ""
    mlp_post_norm: str = ""
    """Norms through which what attention and MLP add passes first (Gemma 2, OLMo 2)."""
    embed_norm: str = ""
    """A norm between the embeddings and the stream (BLOOM)."""
    gate: Part | None = None
    attention: tuple[str, ...] = ("self_attn",)
    """Modules whose first output attention adds: the first of them that a layer has."""
    mlp: str = "mlp"
    """The module whose input and output are the MLP's; "" where it is not a module (OPT)."""
    attn_out: str = ""
    mlp_out: str = ""
    """Modules that give what is added, where attention's and the MLP's output is the stream with
    it added already (BLOOM)."""
    head: tuple[str, ...] = ("lm_head",)
    """The unembedding: the first of these names that there is."""
    experts: Experts | None = None

    value_rows: Literal["all", "by head", "last"] = "all"
    """Which outputs of `value` are values, where it computes queries and keys too: the last d_head
    of each kv head's (GPT-NeoX), or the last n_kv_heads * d_head of all (GPT-2)."""
    norm: Literal["rms", "layer"] = "rms"
    norm_gain: bool = True
    """Whether the norms have parameters (OLMo's have none)."""
    gain_offset: float = 0.0
    """Added to a stored norm gain to get the effective one (Gemma stores gain - 1)."""
    transposed: bool = False
    """Whether matrices are stored [in, out] (GPT-2's Conv1D) rather than [out, in]."""
    flat_mlp: bool = False
    """Whether the MLP's modules get all rows as one, [batch * pos, d] (OPT)."""
    parallel: bool = False
    """Whether the MLP reads the stream before the layer's attention."""

    n_kv_heads: str = "num_key_value_heads"
    d_head: str = "head_dim"
    embed_width: str = ""
    d_mlp: tuple[str, ...] = ("intermediate_size",)
    activation: str = "hidden_act"
    eps: str = "rms_norm_eps"
    """Config fields. A size that is not given: as many kv heads as heads, d_model / n_heads wide,
    4 d_model neurons, embeddings of d_model numbers (a model with others cannot be taken)."""
    residual_scale: str = ""
    """The config field with the factor on what attention and MLP add (Granite)."""
    logit_scale: str = ""
    logit_divisor: str = ""
    softcap: str = ""
    """Config fields: logits = cap(W_U norm(x) * scale / divisor)."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What transformers takes for a config field that config.json does not give."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Values of fields that transformers' code fixes, whatever config.json says."""
    legacy_activation: Mapping[str, str] = field(default_factory=dict)
    """Names of activations by which transformers understands another (Gemma's first releases)."""
    variants: tuple[Variant, ...] = ()
    gated_heads: bool = False
    """Whether what the heads give passes a gate of its own before W_O reads it (Qwen 3.5)."""
    no_heads: str = ""
    """Why W_V cannot be read, where values are no linear function of the norm's output."""
    no_sites: str = ""
    """Why such a model can be decoded, but not opened as a subject."""
    inside: str = ""
    """Of an architecture that is only found inside others: where its numbers stand."""
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """The config of a model of two layers, for tests and `interp models families --check`."""

    @property
    def prefix(self) -> str:
        """What the base class's own checkpoints lack."""
        return self.layer.partition(".")[0] + "."

    def with_variants(self, config: Mapping[str, Any]) -> Family:
        """The entry as it is for a config, whose defaults are filled in."""
        changes: dict[str, Any] = {}
        for variant in self.variants:
            if config.get(variant.name) == variant.value:
                changes |= variant.changes
        return replace(self, **changes)

    def unfit(self, config: Mapping[str, Any]) -> str:
        """Why a model with this config cannot be taken; "" if it can."""
        hits = (v.unfit for v in self.variants if v.unfit and config.get(v.name) == v.value)
        return next(hits, "")
