"""Which tokens a latent fires on, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .tallies import TOKENS, Fired, Kept, Step, starts


@dataclass
class FiringTokens(Kept):
    """How often each latent fires on which token: a Misra-Gries sketch of TOKENS counters a latent,
    merged step by step and part by part (Agarwal et al., Mergeable summaries, 2012).

    Exact as long as `short` is 0, so for a latent that fires on TOKENS different tokens or fewer.
    Else a count is too small by `short` at most, and a token without a counter has at most as many.
    `short` is at most the latent's count over TOKENS + 1.
    """

    token: Int[Tensor, "n TOKENS"]
    times: Int[Tensor, "n TOKENS"]
    """0 where there is no counter; the largest first."""
    short: Int[Tensor, " n"]

    @classmethod
    def empty(cls, n: int) -> FiringTokens:
        blank = torch.zeros(n, TOKENS, dtype=torch.int32)
        return cls(blank, blank.clone(), torch.zeros(n, dtype=torch.int64))

    @property
    def filled(self) -> Bool[Tensor, "n TOKENS"]:
        return self.times > 0

    def add(self, step: Step, fired: Fired) -> None:
        self._count(fired.latent, step.token[fired.at], torch.ones_like(fired.latent))

    def merge(self, row: Int[Tensor, " m"], later: FiringTokens) -> None:
        """Count what a later part of the stream says of the latents `row`."""
        at, slot = later.filled.nonzero(as_tuple=True)
        self._count(row[at], later.token[at, slot].long(), later.times[at, slot].long())
        self.short[row] += later.short

    def _count(
        self, latent: Int[Tensor, " pairs"], fired_on: Int[Tensor, " pairs"], weight: Tensor
    ) -> None:
        """Count that latents fired on tokens, so often each."""
        latents, row = torch.unique(latent, return_inverse=True)
        if not len(latents):
            return
        token, times = self.token[latents], self.times[latents].long()
        vocabulary = 1 + max(int(fired_on.max()), int(token.max()))
        there = times > 0
        held = (torch.arange(len(latents))[:, None] * vocabulary + token)[there]
        pair, order = torch.cat([held, row * vocabulary + fired_on]).sort()
        every = torch.cat([times[there], weight])[order].numpy()
        first = starts(pair).nonzero()[:, 0]
        count = torch.from_numpy(np.add.reduceat(every, first.numpy()))
        row, token = pair[first] // vocabulary, (pair[first] % vocabulary).int()
        order = ((row << 32) - count).sort(stable=True).indices  # by row, the largest first
        row, token, count = row[order], token[order], count[order]
        begin = starts(row).nonzero()[:, 0]
        rank = torch.arange(len(row)) - begin[row]
        cut = torch.zeros(len(latents), dtype=torch.int64)
        cut[row[rank == TOKENS]] = count[rank == TOKENS]
        count = count - cut[row]
        kept = (rank < TOKENS) & (count > 0)
        made = torch.zeros(2, len(latents), TOKENS, dtype=torch.int32)
        made[:, row[kept], rank[kept]] = torch.stack([token[kept], count[kept].int()])
        self.token[latents], self.times[latents] = made
        self.short[latents] += cut
