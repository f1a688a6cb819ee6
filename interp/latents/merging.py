"""The tallies of a part of a stream, and those of all parts so far: parts merge in their order."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .firing_tokens import FiringTokens
from .tallies import BinExamples, Fired, Numbers, Step, TopExamples, bin_edges

if TYPE_CHECKING:
    from .tallies import Kept


@dataclass
class Tallies:
    """All that is kept of n latents."""

    numbers: Numbers
    top: TopExamples
    binned: BinExamples
    tokens: FiringTokens

    @classmethod
    def empty(cls, n: int, top: int) -> Tallies:
        examples = (TopExamples.empty(n, top), BinExamples.empty(n))
        return cls(Numbers.empty(n), *examples, FiringTokens.empty(n))

    def add(self, step: Step, fired: Fired, unit: float, seed: int) -> None:
        """Tally a step.

        Args:
            unit: the size in the middle of the histograms.
            seed: of the examples that are drawn at random.
        """
        bins = torch.bucketize(fired.value.abs(), bin_edges(unit), right=True)
        self.numbers.add(fired, bins)
        self.top.add(step, fired)
        self.binned.add(step, fired, bins, seed)
        self.tokens.add(step, fired)

    def _each(self) -> dict[str, Kept]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def state(self) -> dict[str, Tensor]:
        """All of it, for a checkpoint."""
        named = (kept.state(name) for name, kept in self._each().items())
        return {name: x for tensors in named for name, x in tensors.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        for name, kept in self._each().items():
            kept.restore(name, tensors)

    def packed(self) -> dict[str, Tensor]:
        """What there is of the latents that fired: some 200 bytes an activation at most."""
        row = self.numbers.count.nonzero()[:, 0]
        tensors = {"latents": row}
        for name, kept in self._each().items():
            tensors |= kept.packed(name, row)
        return tensors

    def merge(self, tensors: dict[str, Tensor]) -> None:
        """Take in what a later part of the stream has packed."""
        row = tensors["latents"]
        later = Tallies.empty(len(row), self.top.value.shape[1])
        for name, kept in later._each().items():
            kept.unpack(name, tensors)
        self.numbers.merge(row, later.numbers)
        self.top.merge(row, later.top)
        self.binned.merge(row, later.binned)
        self.tokens.merge(row, later.tokens)
