"""Site: a place in a model where activations are read and edited, `Site("resid_post", 6)`.

Kinds, in the order a layer computes them (shapes without batch and position):
    resid_pre, resid_mid, resid_post [d_model]   the residual stream before, inside, after a layer
    head_v [n_kv_heads, d_head]  values;  attn_pattern [n_heads, query, key] (read only)
    head_z [n_heads, d_head]     weighted values, before the output projection
    attn_out, mlp_out [d_model]  what attention and MLP *add* to the stream (after a post-norm)
    mlp_in [d_model]             what the MLP reads (after the norm)
    mlp_gate, mlp_up [d_mlp]     its projections, before activation and product
    mlp_post [d_mlp]             what the down projection reads
and of the whole model: final_norm_in [d_model], logits [d_vocab] (before any soft cap).

A network that is no language model has sites by module name, `Site("out", module="features.3")` or
`features.3:out`: in, out [d], what a module gets and gives; feature maps [batch, channels, …] come
channels last, so that d is the channels and the places are positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from ..errors import UserError

LAYER_KINDS = (
    *("resid_pre", "head_v", "attn_pattern", "head_z", "attn_out", "resid_mid"),
    *("mlp_in", "mlp_gate", "mlp_up", "mlp_post", "mlp_out", "resid_post"),
)
MODEL_KINDS = ("final_norm_in", "logits")
MODULE_KINDS = ("in", "out")
HEAD_KINDS = ("head_v", "attn_pattern", "head_z")


@dataclass(frozen=True)
class Site:
    """A component kind, a layer where there is one, and a head where one is meant."""

    kind: str
    layer: int | None = None
    head: int | None = None
    module: str | None = None
    """The module's name, for the kinds "in" and "out" of a network that is no language model."""

    def __post_init__(self) -> None:
        if self.module is not None or self.kind in MODULE_KINDS:
            of_module = self.kind in MODULE_KINDS and self.module is not None
            if not of_module or self.layer is not None or self.head is not None:
                raise UserError("a module's site is its name and in or out: 'features.3:out'")
            return
        if self.kind not in LAYER_KINDS + MODEL_KINDS:
            kinds = ", ".join(LAYER_KINDS + MODEL_KINDS)
            raise UserError(f"no site kind '{self.kind}': the kinds are {kinds}")
        if (self.layer is None) != (self.kind in MODEL_KINDS):
            needs = "takes no" if self.kind in MODEL_KINDS else "needs a"
            raise UserError(f"site kind '{self.kind}' {needs} layer: '6.resid_post', 'logits'")
        if self.head is not None and self.kind not in HEAD_KINDS:
            raise UserError(f"'{self.kind}' has no heads; these have: {', '.join(HEAD_KINDS)}")

    @classmethod
    def parse(cls, text: str) -> Site:
        """'6.resid_post', '6.head_z.3', 'logits' or 'features.3:out'."""
        if ":" in text:
            module, _, kind = text.strip().rpartition(":")
            return cls(kind, module=module)
        match = re.fullmatch(r"(?:([0-9]{1,9})\.)?([a-z_]+)(?:\.([0-9]{1,9}))?", text.strip())
        if not match:
            raise UserError(f"'{text}' names no site: write layer.kind, such as 6.resid_post")
        layer, kind, head = match.groups()
        return cls(kind, None if layer is None else int(layer), None if head is None else int(head))

    def __str__(self) -> str:
        if self.module is not None:
            return f"{self.module}:{self.kind}"
        parts = (self.layer, self.kind, self.head)
        return ".".join(str(part) for part in parts if part is not None)

    @property
    def whole(self) -> Site:
        """The site with all its heads."""
        return Site(self.kind, self.layer, module=self.module)

    @property
    def order(self) -> tuple[float, int]:
        """Sorts sites as a forward pass reaches them."""
        if self.layer is None:
            return (float("inf"), MODEL_KINDS.index(self.kind))
        return (self.layer, LAYER_KINDS.index(self.kind))


def matching(
    patterns: Iterable[str | Site],
    available: Iterable[Site],
    refused: Mapping[Site, str] = MappingProxyType({}),
) -> list[Site]:
    """The available sites that globs such as '*.mlp_post' name, in forward order.

    Args:
        available: every site, in forward order.
        refused: sites that the model does not offer, and why.

    Raises:
        UserError: a pattern that names no site the model has, or offers.
    """
    sites = list(available)
    named: dict[Site, None] = {}
    for pattern in patterns:
        if isinstance(pattern, str) and set(pattern) & set("*?["):
            hits = [site for site in sites if fnmatchcase(str(site), pattern)]
        else:
            wanted = Site.parse(pattern) if isinstance(pattern, str) else pattern
            hits = [wanted] if wanted.whole in sites else []
        if not hits:
            for site, reason in refused.items():
                if fnmatchcase(str(site), str(pattern)):
                    raise UserError(f"this model does not offer '{site}': {reason}")
            raise UserError(f"this model has no site '{pattern}'; it has {_summary(sites)}")
        named.update(dict.fromkeys(hits))
    return sorted(named, key=lambda site: (sites.index(site.whole), site.head or 0))


def _summary(sites: list[Site]) -> str:
    modules = [str(site) for site in sites if site.module is not None]
    if modules:
        shown = ", ".join(modules[:20])
        return f"{shown} and {len(modules) - 20} more" if len(modules) > 20 else shown
    layers = [site.layer for site in sites if site.layer is not None]
    kinds = list(dict.fromkeys(site.kind for site in sites if site.layer is not None))
    whole = [site.kind for site in sites if site.layer is None]
    return f"layers 0..{max(layers)} of {', '.join(kinds)}; and {', '.join(whole)}"
