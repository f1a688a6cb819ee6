"""Which layers' attention brings the answer to the last token: a search in linear time.

For pairs of a source and a target prompt, the attention outputs of a set of layers at the last
token are taken from the source run into the target run. Read-out: each layer's residual at the last
token is put, at the same layer, onto the last token of a prompt that repeats what it is given
(`cat -> cat\\n1135 -> 1135\\nhello -> hello\\n?`), and the answers' first tokens' probabilities are
read there: p_src[L] and p_tgt[L], means over the pairs. Then, by `find_layers`:

1. the smallest u with max_L p_src > t, when layers 0..u-1 are patched (bisection)
2. the largest l with max_L p_src > t, when layers l..u-1 are (bisection)
3. while p_src <= p_tgt + eps at the last layer: add the next layer at which p_src falls by more
   than phi. A layer is never listed twice, and the final set is evaluated afresh.

Bisection supposes that more layers give a higher p_src. With n layers a search makes at most
2 ceil(log2 n) + n + 2 probes, and a probe two forward passes, one over the target prompts and one
over the read-out of all layers at once: the number of passes grows linearly with depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.edits import Edit
from ..model.site import Site
from .last import LastToken

if TYPE_CHECKING:
    from ..model.subject import Subject

IDENTITY = "cat -> cat\n1135 -> 1135\nhello -> hello\n?"

LEAST = 0.05
"""Probability of the source's answer, all layers patched, below which there is nothing to find."""


class Curves(NamedTuple):
    """Probabilities of the source's and the target's answer, read after every layer."""

    source: Float[Tensor, " layers"]
    target: Float[Tensor, " layers"]


class Found(NamedTuple):
    """What a search found; `layers` is empty where even all of them bring nothing (LEAST)."""

    layers: tuple[int, ...]
    curves: Curves
    """Of exactly these layers, evaluated afresh; of all, if there are none."""
    history: tuple[tuple[tuple[int, ...], Curves], ...]
    """Every probe, in order."""


Probe = Callable[[Sequence[int]], Curves]


def find_layers(
    probe: Probe, n_layers: int, t: float = 0.9, phi: float = 0.05, eps: float = 0.3
) -> Found:
    """The layers to patch so that the source's answer is read, and wins at the end.

    Args:
        probe: from a set of layers to the two curves.
        t: what p_src must exceed, as a share of its largest value when all layers are patched.
    """
    history: list[tuple[tuple[int, ...], Curves]] = []

    def curves(layers: Sequence[int]) -> Curves:
        found = probe(layers)
        history.append((tuple(layers), found))
        return found

    whole = curves(range(n_layers))
    if not float(whole.source.max()) >= LEAST:  # also if it is NaN
        return Found((), whole, tuple(history))
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
    return Found(tuple(layers), final, tuple(history))


def _bisect(low: int, high: int, good: Callable[[int], bool]) -> int:
    """The smallest x in low..high with good(x); `high` is taken to be good."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle + 1, high)
    return low


@dataclass
class Patching:
    """A `Probe` of a model over pairs of prompts; counts its forward passes."""

    subject: Subject
    source: LastToken
    target: LastToken
    source_answers: Int[Tensor, " batch"]
    """First token of each source's answer."""
    target_answers: Int[Tensor, " batch"]
    identity: LastToken
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
        patches = [
            Edit(self.attention[layer], self._patch(self.attention[layer]), "last")
            for layer in layers
        ]
        states = self.target.run(patches, self.residual).sites
        batch = len(self.target)
        puts = [
            Edit(site, self._put(states[site], place * batch), "last")
            for place, site in enumerate(self.residual)
        ]
        chances = self._readers.run(puts).logits.float().softmax(-1)
        self.passes += 2
        by_layer = chances.view(len(self.residual), batch, -1)
        rows = torch.arange(batch, device=chances.device)
        source = by_layer[:, rows, self.source_answers].mean(1)
        target = by_layer[:, rows, self.target_answers].mean(1)
        return Curves(source.cpu(), target.cpu())

    def _patch(self, site: Site) -> Callable[[Tensor], Tensor]:
        given = self._given[site]
        return lambda h: given[:, None].to(h)

    def _put(self, state: Tensor, start: int) -> Callable[[Tensor], Tensor]:
        def change(h: Tensor) -> Tensor:
            new = h.clone()
            new[start : start + len(state), -1] = state.to(h)
            return new

        return change
