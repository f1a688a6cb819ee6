"""The affine network that a model is for one prompt, with what stands at its sites.

Attention patterns, norms' scales and activations' slopes are frozen as the prompt sets them
(linearscope). Of a gated product, act(gate) . up, one factor has to be frozen too, by a rule:

    gate    act(gate) is frozen and up carries all: what LinearScope and ObsProp do
    half    each factor carries a half: act(gate) . up = (act(gate) . up0 + act(gate0) . up) / 2
            (layer-wise relevance propagation; Rezaei Jafari et al. 2025, "RelP")

Both are exact for the prompt itself. Equivalent, with the decisions as constants to autograd:
`torch.autograd.grad(target, activations)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..linearscope.interpreter import Interpreter, interpret
from ..linearscope.tape import Dual
from ..model.batch import Batch
from ..model.edits import Edit, Watch
from ..model.site import Site
from ..model.subject import Subject
from .rules import Rule
from .target import Target

INPUT = Site("resid_pre", 0)
"""Where the affine network begins: the tokens' embeddings."""


@dataclass(frozen=True)
class Frozen:
    """The target as an affine function of the embeddings, and the sites on the way."""

    system: Interpreter
    slots: dict[Site, int]
    """Where on the tape the activations at a site are."""

    def rows(self) -> dict[Site, Float[Tensor, "pos ..."]]:
        """The gradient of the target with respect to the activations at every site."""
        run = self.system.unrolled(set(self.slots.values()))
        found = torch.autograd.grad(
            run.output.sum(),
            [run.made[slot] for slot in self.slots.values()],
            allow_unused=True,
            materialize_grads=True,
        )
        return {site: row[0] for site, row in zip(self.slots, found, strict=True)}


def freeze(
    subject: Subject,
    batch: Batch,
    target: Target,
    sites: Iterable[Site],
    rule: Rule = "half",
    edits: Sequence[Edit] = (),
) -> Frozen:
    """The affine network of one prompt.

    Args:
        edits: which are part of the network, after those in scope.

    Raises:
        UserError: several prompts, no such rule, a site the model lacks, or an operation of the
            model that cannot be frozen.
    """
    if rule not in get_args(Rule):
        raise UserError(f"no rule '{rule}': choose half or gate")
    if len(batch.ids) != 1:
        raise UserError(f"give one prompt, not {len(batch.ids)}")
    slots: dict[Site, int] = {INPUT: 0}

    def watch(site: Site) -> Watch:
        def see(x: Tensor) -> Tensor:
            if isinstance(x, Dual):
                slots[site] = x.activation(f"{site}")
            return x

        return Watch(site, see, about="a circuit's node")

    marked = [watch(site) for site in sites if site != INPUT]
    x0 = subject.capture(batch, [INPUT])[INPUT]

    def network(x: Tensor) -> Tensor:
        given = Edit(INPUT, lambda _: x, about="the interpreter's input")
        with subject.edited(given, *edits, *marked):
            return target.value(subject.logits(batch))[:, None]

    system = interpret(network, x0, inside=subject.network, halves=rule == "half")
    return Frozen(system, slots)


def rows(
    subject: Subject,
    batch: Batch,
    target: Target,
    sites: Sequence[str | Site],
    rule: Rule = "half",
) -> dict[Site, Float[Tensor, "pos ..."]]:
    """The gradient of the target at some sites, in the frozen network of one prompt."""
    wanted = subject.matching(sites)
    found = freeze(subject, batch, target, wanted, rule).rows()
    return {site: found[site] for site in wanted}
