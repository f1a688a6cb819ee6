"""Errors whose cause is known: which of them does the regression call linear?

The ground truth is an SAE's output x' = SAE(x): sums of a dictionary's atoms, nothing else. Copies
of the SAE reconstruct it without some latents ('absent'), with Gaussian noise ('introduced'), or
both (Engels et al., section 5 and appendix). The noise's share of FVU is known: its variance. The
error from absent latents need not be linear; how much of it is, is the finding.
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
    from .faults import PlantedFaults


@dataclass(frozen=True)
class SyntheticConfig(DarkMatterConfig):
    """Plant absent latents and noise, and see which of them the regression calls linear."""

    STUDY: ClassVar[str] = "darkmatter.synthetic"

    name: str = ""
    """Which SAE gives the ground truth; by default the widest."""
    absent: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5)
    """Shares of the latents that are absent."""
    noise: tuple[float, ...] = (0.0, 0.01, 0.05)
    """Variances of the noise, in variances of the ground truth."""
    tokens: int = 40_000
    """Tokens to read."""
    downstream: int = 0
    """How many measured contexts, evenly spread, are run again with the site replaced."""
    seed: int = 0
    """Seed of the noise."""

    def check(self) -> None:
        super().check()
        absent = all(0 <= share < 1 for share in self.absent)
        if not absent or not all(0 <= share < math.inf for share in self.noise):
            raise UserError("--absent must be shares below 1, --noise variances of 0 or more")
        for option, shares in (("--absent", self.absent), ("--noise", self.noise)):
            if len({f"{share:g}" for share in shares}) < len(shares):
                raise UserError(f"{option} has a number twice: give each once")
        if not any(map(any, itertools.product(self.absent, self.noise))):
            raise UserError("nothing is planted: give an --absent or a --noise above 0")

    def error_source(self, subject: Subject) -> PlantedFaults:
        import torch

        from .faults import PlantedFaults

        saes = self.opened()
        sae = saes.chosen(self.name)
        # massive activations are left out here too: one of them alone would set the noise
        stream, few = self.stream(subject, saes), min(8, self.contexts)
        x = stream.activations(stream.rows(self.contexts), few)
        truth = torch.cat([x_hat for _, _, x_hat in sae.reconstructions(x)])
        variance = float((truth - truth.mean(0)).square().sum(1).mean())
        faults = tuple(f for f in itertools.product(self.absent, self.noise) if any(f))
        generator = torch.Generator().manual_seed(self.seed)
        return PlantedFaults(sae, saes.site, faults, variance, generator, saes.facts)
