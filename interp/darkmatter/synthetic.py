"""Errors whose cause is known: which of them does the regression call linear?

The ground truth is an SAE's output x' = SAE(x): sums of a dictionary's atoms, nothing else. Readers
of it miss some of the latents ('absent'), add Gaussian noise ('introduced'), or both (Engels et
al., section 5 and appendix). The noise's share of FVU is its variance, known; what a reader that
misses latents gets wrong need not be linear, and how much is, is the finding.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from .measure import DarkMatterConfig

if TYPE_CHECKING:
    from ..model.subject import Subject
    from .faults import Synthetic


@dataclass(frozen=True)
class SyntheticConfig(DarkMatterConfig):
    """Plant absent features and noise, and see what the regression makes of them."""

    STUDY: ClassVar[str] = "darkmatter.synthetic"

    name: str = ""
    """Which of the SAEs gives the ground truth; by default the widest."""
    absent: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5)
    """Shares of the latents that the reader misses."""
    noise: tuple[float, ...] = (0.0, 0.01, 0.05)
    """Variances of the noise it adds, in variances of the ground truth."""
    tokens: int = 40_000
    """Tokens of the one pass."""
    downstream: int = 0
    """How many test contexts, evenly spread, are run again with the site replaced."""
    seed: int = 0
    """Of the noise."""

    def check(self) -> None:
        super().check()
        absent = all(0 <= share < 1 for share in self.absent)
        if not absent or not all(0 <= share < math.inf for share in self.noise):
            raise UserError("--absent are shares below 1, --noise variances of at least 0")
        for option, shares in (("--absent", self.absent), ("--noise", self.noise)):
            if len({f"{share:g}" for share in shares}) < len(shares):
                raise UserError(f"{option} has a number twice: give each once")
        if not any(map(any, itertools.product(self.absent, self.noise))):
            raise UserError("nothing is planted: give an --absent or a --noise above 0")

    def readers(self, subject: Subject) -> Synthetic:
        import torch

        from ..saes.open import open_saes
        from .contexts import Reader, contexts, corpus_rows
        from .faults import Synthetic

        saes = open_saes(self.source, self.site, model=self.model)
        sae = saes.chosen(self.name)
        rows = corpus_rows(subject, self.corpus, self.length, self.contexts)
        first = next(contexts(subject, rows, min(8, self.contexts), self.skip, 8), None)
        if first is None:
            raise UserError(f"no context is longer than --skip {self.skip}: give a smaller one")
        # read like all others: a massive activation among these would set the noise alone
        x = Reader(subject, [saes.site], self.longest).read(first)[1].x
        truth = torch.cat([x_hat for _, _, x_hat in sae.reconstructions(x)])
        variance = float((truth - truth.mean(0)).square().sum(1).mean())
        faults = tuple(f for f in itertools.product(self.absent, self.noise) if any(f))
        generator = torch.Generator().manual_seed(self.seed)
        return Synthetic(sae, saes.site, faults, variance, generator)
