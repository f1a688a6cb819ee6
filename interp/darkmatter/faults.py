"""Stand-ins for an SAE that have known faults; see `synthetic.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.prompting import Prompting
from ..model.site import Site
from ..saes.open import SaeErrors
from ..saes.sae import Sae


@dataclass(frozen=True)
class PlantedFaults:
    """Copies of an SAE, each with its faults, that reconstruct the SAE's own output."""

    sae: Sae
    site: Site
    faults: tuple[tuple[float, float], ...]
    """(share of the latents that are absent, variance of the noise as a share of the truth's)."""
    variance: float
    """Total variance of the ground truth."""
    generator: torch.Generator
    facts: dict[str, Any]
    """The manifest's, of the SAE."""

    @property
    def d_in(self) -> int:
        return self.sae.d_in

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"absent {absent:g}, noise {noise:g}" for absent, noise in self.faults)

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.sae.d_sae,) * len(self.faults)

    @property
    def centred(self) -> bool:
        """What it reconstructs is what the SAE writes, which may have a mean."""
        return False

    def no_data(self, prompting: Prompting) -> tuple[int, ...]:
        return self.sae.no_data(prompting)

    def positions(self, length: int) -> set[int]:
        return set(self.sae.positions(length))

    def errors(self, x: Float[Tensor, "n d"]) -> SaeErrors:
        z = self.sae.encode(x)
        truth = self.sae.decode(z)
        order = torch.randperm(self.sae.d_sae, generator=torch.Generator().manual_seed(0))
        errors, active = [], []
        for absent, noise in self.faults:
            kept = z.clone()
            kept[:, order[: round(absent * len(order))]] = 0
            made = torch.randn(truth.shape, generator=self.generator)
            made *= (noise * self.variance / self.d_in) ** 0.5
            errors.append(truth - self.sae.decode(kept) - made)
            active.append((kept != 0).sum(1))
        return SaeErrors(truth, torch.stack(errors, 1), torch.stack(active, 1).to(x))
