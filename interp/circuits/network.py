"""The nodes of one prompt's frozen network, what each has of the target, and what flows where.

With every node's output cut off behind it, a path from one node to the next passes no third: an
edge is what one writes, carried through the residual stream (and frozen norms) to the other.

    attribution(v) = row(v) . activation(v) = sum of the edges into v = sum of the edges out of v

in the target's units, the row being the gradient of the target with respect to all that v does.
What flows into v are nodes before it and constants; embeddings and constants are where flow
begins. With a counterfactual an edge has an effect too, the same with the change of the activation
of u. Those out of u add up to the effect of u; those into v to what v would change by if no
decision changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..linearscope.tape import Constant
from ..model.batch import Batch
from ..model.families import ModelSpec
from ..model.site import Site
from ..model.subject import Subject
from .frozen import INPUT, Frozen, freeze
from .latents import Spliced
from .parts import HEADS, Constants, Heads, Index, Neurons, Part, Whole
from .rules import Rule
from .target import Target

AT_ONCE = 32
"""Nodes whose edges come out of one backward pass."""


class Node(NamedTuple):
    """A node by its part and its index there."""

    part: int
    at: Index


class Flow(NamedTuple):
    """What flows into a node, in the target's units."""

    node: Node | None
    """None for the target."""
    shares: list[Tensor]
    """Of each part, those of its nodes; zeros where nothing does."""
    effects: list[Tensor] | None
    """The same of what changes from the counterfactual's activations."""


@dataclass(frozen=True)
class Network:
    """A prompt's frozen network as parts; made by `open_network`."""

    frozen: Frozen
    parts: list[Part]
    rows: list[Float[Tensor, "pos ..."]]
    """Of each part: the target's gradient, by all ways."""
    value: float
    """The target's."""
    cuts: dict[int, float]
    """By layer: row . stream behind it, plus the constants that are added later."""
    changed: list[Part] | None = None
    """The same parts with the activations of a counterfactual."""
    counterfactual: float = float("nan")
    """The target's value there."""

    @cached_property
    def attributions(self) -> list[Float[Tensor, ...]]:
        """Of each part, what each of its nodes has of the target."""
        return [part.shares(row[None])[0] for part, row in zip(self.parts, self.rows, strict=True)]

    @cached_property
    def effects(self) -> list[Float[Tensor, ...]] | None:
        """Of each part, what the target loses if a node alone has its activation at the
        counterfactual, as the frozen network predicts it."""
        return self._changes(self.rows)

    def _changes(self, rows: Sequence[Tensor]) -> list[Tensor] | None:
        """row . (activation here - at the counterfactual), part by part."""
        if self.changed is None:
            return None
        return [
            part.shares(row[None])[0] - other.shares(row[None])[0]
            for part, other, row in zip(self.parts, self.changed, rows, strict=True)
        ]

    def flows(self, nodes: Sequence[Node]) -> Iterator[Flow]:
        """Node by node what flows into it."""
        for number in dict.fromkeys(node.part for node in nodes):
            own = [node for node in nodes if node.part == number]
            for start in range(0, len(own), AT_ONCE):
                yield from self._into(number, own[start : start + AT_ONCE])

    def flow_to_target(self) -> Flow:
        """What each node has of the target by no other node."""
        output, _, leaves = self._cut
        gradients = torch.autograd.grad(
            output.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows = [part.alone(g) for part, g in zip(self.parts, gradients, strict=True)]
        shares = [part.shares(row[None])[0] for part, row in zip(self.parts, rows, strict=True)]
        return Flow(None, shares, self._changes(rows))

    def _into(self, number: int, nodes: list[Node]) -> Iterator[Flow]:
        _, made, leaves = self._cut
        part, row = self.parts[number], self.rows[number]
        seeds = torch.stack([part.seed(node.at, row) for node in nodes])
        # a constant has the slot of what it is added to
        before = [
            n for n, other in enumerate(self.parts) if other.slot <= part.slot and n != number
        ]
        gradients = torch.autograd.grad(
            made[part.slot],
            [leaves[n] for n in before],
            seeds[:, None] if part.batched else seeds,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        rows = {
            n: self.parts[n].alone(found, 1)
            for n, found in zip(before, gradients, strict=True)
            if found is not None
        }
        shares = {n: self.parts[n].shares(row) for n, row in rows.items()}
        effects: dict[int, Tensor] | None = None
        if self.changed is not None:
            effects = {n: shares[n] - self.changed[n].shares(row) for n, row in rows.items()}
        for i, node in enumerate(nodes):
            source = part.source(node.at)
            own = self._of_one(shares, i, source)
            yield Flow(node, own, self._of_one(effects, i, source) if effects else None)

    def _of_one(self, found: Mapping[int, Tensor], i: int, source: int | None) -> list[Tensor]:
        """Of each part, what node i of several gets from it, from one position or from all."""
        return [
            self.parts[n].at(found[n][i], source) if n in found else zeros
            for n, zeros in enumerate(self._zeros)
        ]

    @cached_property
    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(each) for each in self.attributions]

    @cached_property
    def _cut(self) -> tuple[Tensor, dict[int, Tensor], list[Tensor]]:
        """The target, what each slot has before it is cut, and each part's leaf."""
        cut = {part.slot for part in self.parts if not isinstance(part, Constants)}
        run = self.frozen.system.unrolled(cut, cut)
        constants = {constant.slot: constant.leaf for constant in run.constants}
        leaves = [
            constants[part.slot] if isinstance(part, Constants) else run.leaves[part.slot]
            for part in self.parts
        ]
        return run.output, run.made, leaves


def open_network(
    subject: Subject,
    batch: Batch,
    target: Target,
    rule: Rule = "half",
    spliced: Sequence[Spliced] = (),
    other: Batch | None = None,
) -> Network:
    """Freeze a model for one prompt and take it apart.

    Args:
        subject: opened with attention="eager", so that heads can be told apart by their sources.
        spliced: SAEs and transcoders whose latents are nodes.
        other: the counterfactual, of as many tokens.

    Raises:
        UserError: as `freeze`.
    """
    nodes = list(_node_sites(subject))
    layers = range(subject.spec.n_layers)
    streams = [Site("resid_post", n) for n in layers if Site("resid_post", n) in subject.sites]
    edits = [edit for each in spliced for edit in each.edits]
    frozen = freeze(subject, batch, target, [*nodes, *streams], rule, edits)
    run = frozen.system.unrolled({*frozen.slots.values(), *(each.slot for each in spliced)})
    parts = parts_of(subject, batch, frozen.slots) + [each.part() for each in spliced]
    errors = {each.error_slot: each.error_part() for each in spliced}
    length = batch.ids.shape[1]
    for constant in run.constants:
        parts.append(errors.get(constant.slot) or _constant(constant, length, subject.spec))
    leaves = {constant.slot: constant.leaf for constant in run.constants} | run.made
    slots = [part.slot for part in parts] + [frozen.slots[site] for site in streams]
    found = torch.autograd.grad(
        run.output.sum(),
        [leaves[slot] for slot in slots],
        allow_unused=True,
        materialize_grads=True,
    )
    gradients = dict(zip(slots, found, strict=True))
    rows = [part.alone(gradients[part.slot]) for part in parts]
    cuts = {}
    for site in streams:
        slot, added = frozen.slots[site], 0.0
        for part, row in zip(parts, rows, strict=True):
            if isinstance(part, Constants) and part.slot > slot:
                added += float(part.shares(row[None]).double().sum())
        through = (gradients[slot] * run.made[slot].detach()).double().sum()
        assert site.layer is not None
        cuts[site.layer] = float(through) + added
    network = Network(frozen, parts, rows, float(run.output.detach().sum()), cuts)
    if other is None:
        return network
    there = parts_of(subject, other, frozen.slots)
    there += [part for each in spliced for part in each.parts_at(subject, other)]
    changed = {(part.kind, part.slot): part for part in there}
    return replace(
        network,
        changed=[changed.get((part.kind, part.slot), part) for part in parts],
        counterfactual=float(target.value(subject.logits(other))),
    )


def _node_sites(subject: Subject) -> Iterator[Site]:
    """Where the nodes of each layer are."""
    there = set(subject.sites)
    for layer in range(subject.spec.n_layers):
        heads = [Site(kind, layer) for kind in ("head_z", "head_v", "attn_pattern")]
        yield heads[0] if there.issuperset(heads) else Site("attn_out", layer)
        neurons = Site("mlp_post", layer)
        yield neurons if neurons in there else Site("mlp_out", layer)


def parts_of(subject: Subject, batch: Batch, slots: Mapping[Site, int]) -> list[Part]:
    """The parts that have activations, with those of one prompt: the network's own, or another
    prompt's in its place."""
    nodes = list(_node_sites(subject))
    heads = [Site(kind, s.layer) for s in nodes if s.kind == "head_z" for kind in HEADS]
    seen = {site: x[0] for site, x in subject.capture(batch, [INPUT, *nodes, *heads]).items()}
    parts: list[Part] = [Whole(kind="embedding", layer=-1, slot=0, flows=False, values=seen[INPUT])]
    for site in nodes:
        slot, layer, values = slots[site], site.layer, seen[site]
        assert layer is not None
        if site.kind == "mlp_post":
            parts.append(Neurons(layer=layer, slot=slot, values=values))
        elif site.kind == "head_z":
            pattern, v = (seen[Site(kind, layer)] for kind in HEADS)
            each = v.repeat_interleave(len(pattern) // v.shape[1], 1)
            parts.append(Heads(layer=layer, slot=slot, patterns=pattern, values=each))
        else:
            kind = "mlp" if site.kind == "mlp_out" else "attention"
            parts.append(Whole(kind=kind, layer=layer, slot=slot, values=values))
    return sorted(parts, key=lambda part: part.slot)


def _constant(constant: Constant, length: int, spec: ModelSpec) -> Constants:
    """What a module adds; one outside of any layer stands behind the last one."""
    number = re.search(r"\.(\d+)(?:\.|$)", constant.module)
    values = constant.leaf.detach()
    placed = values.shape[:2] == (1, length) or (spec.family.flat_mlp and len(values) == length)
    return Constants(
        layer=int(number[1]) if number else spec.n_layers,
        slot=constant.slot,
        module=constant.module,
        values=values,
        places=length if placed else 1,
    )
