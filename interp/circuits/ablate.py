"""What the target becomes where some neurons of one prompt have other activations.

A *neuron* here is one coordinate of `mlp_post` at one layer and one position. Many sets of them are
patched in one batched forward pass, a row a set. Two ways to use a set:

    remove   the chosen neurons get the other activations, all others are computed
    keep     all others get them, the chosen ones are computed: "keep only the circuit"

and two kinds of other activations: *resample*, the counterfactual's, and *mean*, the mean over a
task's prompts and counterfactuals of as many tokens, position by position. Naive equivalent, a set
at a time:

    with subject.edited(*[Edit(site, lambda h: torch.where(chosen[site], other[site], h))
                          for site in sites]):
        value = target(subject.logits(ids))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model.edits import Edit
from ..model.site import Site
from ..model.subject import Subject
from .tasks import Read

END = Site("final_norm_in")
ROWS = 64
"""Sets in a forward pass."""


class Place(NamedTuple):
    """Where a neuron is."""

    layer: int
    position: int
    neuron: int


@dataclass(frozen=True)
class Neurons:
    """All neurons of a prompt in one row: by layer, then position, then number."""

    sites: tuple[Site, ...]
    widths: tuple[int, ...]
    positions: int

    @property
    def total(self) -> int:
        return self.positions * sum(self.widths)

    def flat(self, by_site: Mapping[Site, Float[Tensor, "... pos d"]]) -> Float[Tensor, "... n"]:
        """Activations at the sites as one row."""
        return torch.cat([by_site[site].flatten(-2) for site in self.sites], -1)

    def split(self, flat: Float[Tensor, "... n"]) -> dict[Site, Float[Tensor, "... pos d"]]:
        """One row as activations at the sites."""
        parts = torch.split(flat, [self.positions * width for width in self.widths], -1)
        return {
            site: part.view(*part.shape[:-1], self.positions, width)
            for site, part, width in zip(self.sites, parts, self.widths, strict=True)
        }

    def place(self, number: int) -> Place:
        """Where the neuron with a number of the row is."""
        for site, width in zip(self.sites, self.widths, strict=True):
            if number < self.positions * width:
                assert site.layer is not None
                return Place(site.layer, *divmod(number, width))
            number -= self.positions * width
        raise IndexError(number)

    def groups(self) -> list[tuple[Place, Int[Tensor, " width"]]]:
        """The MLPs, one a layer and position: where (neuron -1), and their neurons' numbers."""
        numbers, found = self.split(torch.arange(self.total)), []
        for site, part in numbers.items():
            assert site.layer is not None
            found += [(Place(site.layer, i, -1), part[i]) for i in range(self.positions)]
        return found


def activations(
    subject: Subject, ids: Int[Tensor, "rows pos"]
) -> tuple[Neurons, Float[Tensor, "rows n"], Float[Tensor, "rows d_model"]]:
    """The neurons of prompts of one length, their activations, and the last position's stream.

    Raises:
        UserError: the model has no such neurons (experts).
    """
    sites = tuple(subject.matching(["*.mlp_post"]))
    found = subject.capture(ids, [*sites, END])
    neurons = Neurons(sites, tuple(found[site].shape[-1] for site in sites), ids.shape[1])
    return neurons, neurons.flat(found).cpu(), found[END][:, -1]


class Patch(NamedTuple):
    """One set of neurons and how it is used."""

    chosen: Int[Tensor, " k"]
    """Their numbers in the row of all."""
    keep: bool = False
    """Whether it is the others that get the other activations."""

    def mask(self, total: int) -> Bool[Tensor, " n"]:
        """Which neurons get them."""
        mask = torch.full((total,), self.keep)
        mask[self.chosen] = not self.keep
        return mask


def patched(
    subject: Subject,
    ids: Int[Tensor, " pos"],
    neurons: Neurons,
    other: Float[Tensor, " n"],
    patches: Sequence[Patch],
    read: Read,
) -> Float[Tensor, " patches"]:
    """The target under each patch.

    Args:
        other: what the patched neurons get.
    """
    values = neurons.split(other)
    found: list[Tensor] = []
    for start in range(0, len(patches), ROWS):
        some = patches[start : start + ROWS]
        masks = neurons.split(torch.stack([patch.mask(neurons.total) for patch in some]))
        edits = [_replace(site, masks[site], values[site]) for site in neurons.sites]
        with subject.edited(*edits):
            end = subject.capture(ids.expand(len(some), -1), [END])[END]
        found.append(read(end[:, -1]))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def _replace(site: Site, mask: Bool[Tensor, "rows pos d"], value: Float[Tensor, "pos d"]) -> Edit:
    def change(h: Tensor) -> Tensor:
        return torch.where(mask.to(h.device), value.to(h), h)

    return Edit(site, change, about="patch chosen neurons")
