"""What a survey keeps of every latent: numbers, a histogram, examples, and the tokens it fires on.

Only active (token, latent) pairs are touched, so a step costs what is active, not what there is. A
pair's *size* is |z|; it is z but for SAEs whose latents have both signs. Nothing here depends on
how the stream is cut into steps and parts, but for the sketch of tokens (`firing_tokens.py`) and
the last digits of sums.

Bytes a latent, with k top examples, b bins, w tokens in a window, m companions and s tokens:
`bytes_a_latent`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BINS = 32
"""Half octaves: each bin's upper edge is sqrt(2) times its lower one."""
BEFORE, AFTER = 20, 11
"""Tokens of an example's window before and after the one that fires most."""
WINDOW = BEFORE + 1 + AFTER
COMPANIONS = 8
"""Other latents that are kept of a top example's token: the largest there."""
TOKENS = 32
"""Counters of the tokens that a latent fires on."""
EMPTY = np.iinfo(np.int32).max
"""The key of a bin without an example; those of examples are smaller."""


class Step(NamedTuple):
    """Latents at the tokens of whole contexts, in the order of the stream."""

    z: Float[Tensor, "tokens n"]
    context: Int[Tensor, " tokens"]
    """The context's number in the stream."""
    position: Int[Tensor, " tokens"]
    token: Int[Tensor, " tokens"]
    """Its id."""
    lead: int
    """No position is this or larger."""


class Fired(NamedTuple):
    """The active pairs of a step, by token and then by latent."""

    at: Int[Tensor, " pairs"]
    """The token's place in the step."""
    latent: Int[Tensor, " pairs"]
    value: Float[Tensor, " pairs"]

    @classmethod
    def of(cls, z: Float[Tensor, "tokens n"]) -> Fired:
        at, latent = z.nonzero(as_tuple=True)
        return cls(*(column.cpu() for column in (at, latent, z[at, latent])))


def bytes_a_latent(top: int) -> int:
    """Of a survey that keeps so many top examples: 4.3 kB with 12."""
    example = 4 + 4 + 4 + 2 * WINDOW
    numbers, binned = 8 + 8, BINS * (4 + 4 + example)
    return numbers + binned + top * (example + 4 * COMPANIONS) + TOKENS * (4 + 4) + 8


def bin_edges(unit: float) -> Float[Tensor, " BINS-1"]:
    """Between the bins: unit sqrt(2)^(i - BINS/2). The outer bins have no outer edge."""
    steps = torch.arange(1, BINS, dtype=torch.float64) - BINS / 2
    return (unit * torch.exp2(steps / 2)).float()


def keys(
    latent: Int[Tensor, " n"], context: Int[Tensor, " n"], position: Int[Tensor, " n"], seed: int
) -> Int[Tensor, " n"]:
    """A random number below EMPTY for each activation, from what it is alone (splitmix64): the
    activations with the smallest are a sample, whenever and in whatever order they come."""
    columns = (x.numpy().astype(np.uint64) for x in (latent, context, position))
    mixed = np.full(len(latent), seed, np.uint64)
    for column in columns:
        mixed = (mixed ^ column) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return torch.from_numpy((mixed >> np.uint64(33)).astype(np.int64)).clamp(max=EMPTY - 1)


def starts(ordered: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Where a new value begins in a sorted column."""
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return new


class Kept:
    """Tensors that a checkpoint holds by their names: [n] or [n, slots, ...], n latents."""

    @property
    def filled(self) -> Bool[Tensor, "n slots"]:
        """Which slots hold something."""
        raise NotImplementedError

    def state(self, prefix: str) -> dict[str, Tensor]:
        named = ((f.name, getattr(self, f.name)) for f in fields(self))  # type: ignore[arg-type]
        return {f"{prefix}/{name}": x for name, x in named if isinstance(x, Tensor)}

    def restore(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        for name in self.state(prefix):
            setattr(self, name.removeprefix(f"{prefix}/"), tensors[name])

    def packed(self, prefix: str, row: Int[Tensor, " m"]) -> dict[str, Tensor]:
        """Of some latents what their filled slots hold."""
        filled = self.filled[row]
        held = ((name, x[row]) for name, x in self.state(prefix).items())
        tensors = {name: x if x.ndim == 1 else x[filled] for name, x in held}
        return {f"{prefix}/filled": filled, **tensors}

    def unpack(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        """Fill this, which is empty and of those latents alone."""
        for name, x in self.state(prefix).items():
            x[tensors[f"{prefix}/filled"] if x.ndim > 1 else slice(None)] = tensors[name]


@dataclass
class Numbers(Kept):
    """How often each latent fires, how strongly, and its histogram of sizes."""

    count: Int[Tensor, " n"]
    total: Float[Tensor, " n"]
    """Sum of the sizes, in float64."""
    histogram: Int[Tensor, "n BINS"]

    @classmethod
    def empty(cls, n: int) -> Numbers:
        whole = torch.zeros(n, dtype=torch.int64)
        return cls(whole, whole.double(), torch.zeros(n, BINS, dtype=torch.int32))

    @property
    def filled(self) -> Bool[Tensor, "n BINS"]:
        return self.histogram > 0

    def merge(self, row: Int[Tensor, " m"], later: Numbers) -> None:
        """Add what a later part of the stream says of the latents `row`."""
        for f in fields(self):
            getattr(self, f.name)[row] += getattr(later, f.name)

    def add(self, fired: Fired, bins: Int[Tensor, " pairs"]) -> None:
        slot, order = (fired.latent * BINS + bins).sort(stable=True)
        filled, counts = torch.unique_consecutive(slot, return_counts=True)
        self.histogram.view(-1)[filled] += counts.int()
        first = starts(fired.latent[order]).nonzero()[:, 0]
        latent, sizes = fired.latent[order][first], fired.value[order].abs().double()
        self.count[latent] += torch.diff(first, append=torch.tensor([len(order)]))
        if len(first):
            self.total[latent] += torch.from_numpy(np.add.reduceat(sizes.numpy(), first.numpy()))


@dataclass
class Examples(Kept):
    """Single activations of latents with the activations around them; a value of 0 is none."""

    value: Float[Tensor, "n slots"]
    context: Int[Tensor, "n slots"]
    position: Int[Tensor, "n slots"]
    window: Float[Tensor, "n slots WINDOW"]
    """Of the same latent, in bfloat16; NaN where no token counts."""

    @property
    def filled(self) -> Bool[Tensor, "n slots"]:
        return self.value != 0

    @staticmethod
    def blank(n: int, slots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        value, place = torch.zeros(n, slots), torch.zeros(n, slots, dtype=torch.int32)
        window = torch.zeros(n, slots, WINDOW, dtype=torch.bfloat16)
        return value, place, place.clone(), window

    def put(self, row: Tensor, slot: Tensor, step: Step, at: Tensor, value: Tensor) -> None:
        """Keep some activations of a step: of latents `row`, at its tokens `at`."""
        self.value[row, slot] = value
        self.context[row, slot] = step.context[at].int()
        self.position[row, slot] = step.position[at].int()
        self.window[row, slot] = windows(step, at, row)


def windows(
    step: Step, at: Int[Tensor, " m"], latent: Int[Tensor, " m"]
) -> Float[Tensor, "m WINDOW"]:
    """Of each latent, the activations around a token of a step; NaN where no token counts."""
    rows, context = torch.unique_consecutive(step.context, return_inverse=True)
    place = torch.full((len(rows), step.lead + BEFORE + AFTER), -1)  # where a token is in the step
    place[context, step.position + BEFORE] = torch.arange(len(step.position))
    offsets = step.position[at][:, None] + torch.arange(WINDOW)
    around = place[context[at][:, None], offsets]
    device = step.z.device
    values = step.z[around.clamp(min=0).to(device), latent[:, None].to(device)].cpu()
    return torch.where(around >= 0, values, torch.nan).bfloat16()


@dataclass
class TopExamples(Examples):
    """The largest activations, at most one of a context; of equal ones the first in the stream."""

    companions: Int[Tensor, "n slots COMPANIONS"]
    """The largest other latents at the same token; -1 is none."""

    @classmethod
    def empty(cls, n: int, slots: int) -> TopExamples:
        others = torch.full((n, slots, COMPANIONS), -1, dtype=torch.int32)
        return cls(*cls.blank(n, slots), others)

    def add(self, step: Step, fired: Fired) -> None:
        contexts, which = torch.unique_consecutive(step.context, return_inverse=True)
        n, slots = self.value.shape
        sizes, own = fired.value.abs(), self.value.abs()
        slot = which[fired.at] * n + fired.latent
        size = torch.zeros(len(contexts) * n).scatter_reduce_(0, slot, sizes, "amax")
        best = ((sizes == size[slot]) & (sizes > own[fired.latent, -1])).nonzero()[:, 0]
        places, back = np.zeros(len(size), np.int64), best.flip(0)
        places[slot[back].numpy()] = fired.at[back].numpy()  # of equal ones the first is put last
        size, at = size.view(-1, n), torch.from_numpy(places).view(-1, n)
        larger = size > own[:, -1]
        row = larger.any(0).nonzero()[:, 0]
        if not len(row):
            return
        both = torch.cat([own[row], torch.where(larger, size, 0.0)[:, row].T], 1)
        order = both.sort(dim=1, descending=True, stable=True).indices[:, :slots]
        for f in fields(self):
            kept: Tensor = getattr(self, f.name)
            old = order.clamp(max=slots - 1).view(*order.shape, *[1] * (kept.ndim - 2))
            kept[row] = kept[row].gather(1, old.expand(-1, -1, *kept.shape[2:]))
        new = ((order >= slots) & (both.gather(1, order) > 0)).nonzero(as_tuple=True)
        latent, slot = row[new[0]], new[1]
        token = at[order[new] - slots, latent]
        device = step.z.device
        values = step.z[token.to(device), latent.to(device)].cpu()
        self.put(latent, slot, step, token, values)
        self.companions[latent, slot] = companions(step.z, token, latent)

    def merge(self, row: Int[Tensor, " m"], later: TopExamples) -> None:
        """As `Numbers.merge`; no context is in both parts."""
        sizes = torch.cat([self.value[row], later.value], 1).abs()
        order = sizes.sort(dim=1, descending=True, stable=True).indices[:, : self.value.shape[1]]
        for f in fields(self):
            kept: Tensor = getattr(self, f.name)
            both = torch.cat([kept[row], getattr(later, f.name)], 1)
            place = order.view(*order.shape, *[1] * (kept.ndim - 2))
            kept[row] = both.gather(1, place.expand(-1, -1, *kept.shape[2:]))


def companions(
    z: Float[Tensor, "tokens n"], at: Int[Tensor, " m"], latent: Int[Tensor, " m"]
) -> Int[Tensor, "m COMPANIONS"]:
    """The latents that are largest at some tokens beside one of them; -1 where no more fire."""
    tokens, back = torch.unique(at, return_inverse=True)
    several = min(COMPANIONS + 1, z.shape[1])
    found = z[tokens.to(z.device)].abs().topk(several)
    there = torch.where(found.values > 0, found.indices, -1).cpu()[back]
    other = there.masked_fill(there == latent[:, None], -1)
    order = (other < 0).sort(dim=1, stable=True).indices  # those that are there first
    filled = other.gather(1, order)[:, :COMPANIONS].int()
    return torch.nn.functional.pad(filled, (0, COMPANIONS - filled.shape[1]), value=-1)


@dataclass
class BinExamples(Examples):
    """One activation of every bin of every latent's histogram, drawn at random: the one with the
    smallest of `keys`."""

    key: Int[Tensor, "n BINS"]

    @classmethod
    def empty(cls, n: int) -> BinExamples:
        return cls(*cls.blank(n, BINS), torch.full((n, BINS), EMPTY, dtype=torch.int32))

    def add(self, step: Step, fired: Fired, bins: Int[Tensor, " pairs"], seed: int) -> None:
        key = keys(fired.latent, step.context[fired.at], step.position[fired.at], seed)
        better = (key < self.key[fired.latent, bins]).nonzero()[:, 0]
        slot = (fired.latent * BINS + bins)[better]
        order = ((slot << 31) | key[better]).sort(stable=True).indices
        chosen = better[order[starts(slot[order])]]
        latent, place = fired.latent[chosen], bins[chosen]
        self.key[latent, place] = key[chosen].int()
        self.put(latent, place, step, fired.at[chosen], fired.value[chosen])

    def merge(self, row: Int[Tensor, " m"], later: BinExamples) -> None:
        """As `Numbers.merge`."""
        at, place = (later.key < self.key[row]).nonzero(as_tuple=True)
        for f in fields(self):
            getattr(self, f.name)[row[at], place] = getattr(later, f.name)[at, place]
