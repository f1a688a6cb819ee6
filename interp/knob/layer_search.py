"""Which layers' attention brings the answer to the last token: a search in linear time.

For pairs of a source and a target prompt, the target run takes over the source run's attention
outputs at the last token, in a set of layers. Read-out: the residual after each layer replaces, at
the same layer, the last token's residual of a prompt that repeats what it is given
(`cat -> cat\\n1135 -> 1135\\nhello -> hello\\n?`). There we read the probabilities of the answers'
first tokens: p_src[L] and p_tgt[L], means over the pairs. `find_layers` then finds

1. by bisection the smallest u with max_L p_src > t, when layers 0..u-1 are patched
2. by bisection the largest l with max_L p_src > t, when layers l..u-1 are patched
3. while p_src <= p_tgt + eps at the last layer: the next layer at which p_src falls by more than
   phi, which it adds. It lists no layer twice, and evaluates the final set afresh.

Bisection assumes that more layers give a higher p_src. With n layers a search takes at most
2 ceil(log2 n) + n + 2 probes. A probe takes two forward passes: one over the target prompts, one
over the read-out of all layers at once. So the number of passes grows linearly with depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.edits import Edit, patch
from ..model.site import Site
from .last_token_cache import CachedPrompts

if TYPE_CHECKING:
    from ..model.subject import Subject

IDENTITY = "cat -> cat\n1135 -> 1135\nhello -> hello\n?"

LEAST = 0.05
"""Smallest probability of the source's answer, all layers patched, at which a search goes on."""


class Curves(NamedTuple):
    """Probabilities of the source's and the target's answer, read after every layer."""

    source: Float[Tensor, " layers"]
    target: Float[Tensor, " layers"]


class SearchResult(NamedTuple):
    """What a search ends with; `layers` is empty if even all of them stay below LEAST."""

    layers: tuple[int, ...]
    curves: Curves
    """With exactly these layers patched, evaluated afresh; if there are none, with all."""
    history: tuple[tuple[tuple[int, ...], Curves], ...]
    """Every probe, in order."""


Probe = Callable[[Sequence[int]], Curves]


def find_layers(
    probe: Probe, n_layers: int, t: float = 0.9, phi: float = 0.05, eps: float = 0.3
) -> SearchResult:
    """The layers to patch so that the source's answer is read, and wins at the end.

    Args:
        probe: gives the two curves for a set of patched layers.
        t: the share of p_src's maximum, all layers patched, that p_src must exceed.
        phi: the fall of p_src at a layer above which that layer is added.
        eps: by how much p_src must exceed p_tgt at the last layer.
    """
    history: list[tuple[tuple[int, ...], Curves]] = []

    def curves(layers: Sequence[int]) -> Curves:
        probed = probe(layers)
        history.append((tuple(layers), probed))
        return probed

    whole = curves(range(n_layers))
    if not float(whole.source.max()) >= LEAST:  # also if it is NaN
        return SearchResult((), whole, tuple(history))
    needed = t * float(whole.source.max())

    def reached(layers: Sequence[int]) -> bool:
        return float(curves(layers).source.max()) > needed

    upper = _bisect(1, n_layers, lambda u: reached(range(u)))
    lower = upper - _bisect(1, upper, lambda width: reached(range(upper - width, upper)))
    layers = list(range(lower, upper))
    final = curves(layers)
    while float(final.source[-1]) <= float(final.target[-1]) + eps:
        falls = final.source[:-1] - final.source[1:]
        later = [i + 1 for i in range(len(falls)) if float(falls[i]) > phi and i + 1 > layers[-1]]
        if not later:
            break
        layers.append(later[0])
        final = curves(layers)
    return SearchResult(tuple(layers), final, tuple(history))


def _bisect(low: int, high: int, good: Callable[[int], bool]) -> int:
    """The smallest x in low..high with good(x); good(high) is assumed."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle + 1, high)
    return low


@dataclass
class Patching:
    """A `Probe` of a model over pairs of prompts; counts its forward passes."""

    subject: Subject
    source: CachedPrompts
    target: CachedPrompts
    answers: Int[Tensor, "2 batch"]
    """First token of each source's answer, and of each target's."""
    identity: CachedPrompts
    """One prompt that repeats what it is given."""

    def __post_init__(self) -> None:
        n = self.subject.spec.n_layers
        self.attention = [Site("attn_out", layer) for layer in range(n)]
        self.residual = [Site("resid_post", layer) for layer in range(n)]
        self._readers = self.identity.repeated(n * len(self.target))
        with torch.no_grad():
            self._given = self.source.run(sites=self.attention).sites
        self.passes = 1

    @torch.no_grad()
    def __call__(self, layers: Sequence[int]) -> Curves:
        sites, batch = [self.attention[layer] for layer in layers], len(self.target)
        patches = [patch(site, self._given[site][:, None], "last") for site in sites]
        states = self.target.run(patches, self.residual).sites
        puts = [_put(site, h, layer * batch) for layer, (site, h) in enumerate(states.items())]
        probabilities = self._readers.run(puts).logits.float().softmax(-1)
        self.passes += 2
        by_layer = probabilities.view(len(self.residual), batch, -1)
        rows = torch.arange(batch, device=probabilities.device)
        return Curves(*by_layer[:, rows, self.answers].mean(-1).T.cpu())


def _put(site: Site, states: Float[Tensor, "batch d"], start: int) -> Edit:
    """Replace the last token's activations in the rows from `start` on."""

    def change(h: Tensor) -> Tensor:
        new = h.clone()
        new[start : start + len(states), -1] = states.to(h)
        return new

    return Edit(site, change, "last")
