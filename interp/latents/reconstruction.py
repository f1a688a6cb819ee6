"""How well SAEs give activations back: sums over tokens, in memory that does not grow with them.

For x and SAE(x) = x_hat, both as the SAE reads and gives them, all sums over the same tokens:

    fvu             sum |x - x_hat|^2 / sum |x - mean x|^2     variance about the mean
    fvu_uncentred   sum |x - x_hat|^2 / sum |x|^2              normalised mean squared error
    l0              mean number of latents that are not 0
    cosine          mean of cos(x, x_hat); 0 where x_hat is 0
    length          mean of |x_hat| / |x|
    gamma           sum |x_hat|^2 / sum x . x_hat

gamma is the relative reconstruction bias (Rajamanoharan et al., 'Improving dictionary learning with
gated sparse autoencoders', eq. 10): the one divisor for which x_hat / gamma is nearest to x. Below
1 the SAE shrinks. The names of SAEBench's core evaluation are 1 - fvu: explained_variance, length:
l2_ratio, gamma: relative_reconstruction_bias, cosine: cossim.

The sums are kept for at most GROUPS groups of documents, which intervals resample: tokens of one
document depend on each other. Naive equivalent: keep all tokens, and index them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..runs.intervals import GROUPS

SUMS = ("error", "product", "output", "l0", "cosine", "length")
"""What is summed of each SAE: |x - x_hat|^2, x . x_hat, |x_hat|^2, and measures of a token."""


@dataclass
class ReconstructionSums:
    """The sums of several SAEs on the same activations."""

    count: Float[Tensor, " groups"]
    x: Float[Tensor, "groups d"]
    xx: Float[Tensor, " groups"]
    """Sums of |x|^2."""
    each: Float[Tensor, "groups saes sums"]
    """Sums of SUMS."""
    fired: list[Int[Tensor, " d_sae"]]
    """On how many tokens each latent of each SAE is active."""

    @classmethod
    def empty(cls, d: int, widths: tuple[int, ...]) -> ReconstructionSums:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(GROUPS, *shape, dtype=torch.float64)

        fired = [torch.zeros(width, dtype=torch.int64) for width in widths]
        return cls(zeros(), zeros(d), zeros(), zeros(len(widths), len(SUMS)), fired)

    def state(self) -> dict[str, Tensor]:
        """Every tensor: what `restore` continues from."""
        held = {"count": self.count, "x": self.x, "xx": self.xx, "each": self.each}
        return held | {f"fired/{at}": fired for at, fired in enumerate(self.fired)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Set all sums to what `state` gave."""
        self.count, self.x, self.xx, self.each = (state[n] for n in ("count", "x", "xx", "each"))
        self.fired = [state[f"fired/{at}"] for at in range(len(self.fired))]

    def add_x(self, document: Int[Tensor, " n"], x: Float[Tensor, "n d"]) -> None:
        """Activations, once for all SAEs."""
        group, values = document % GROUPS, x.double()
        self.count.index_add_(0, group, torch.ones(len(x), dtype=torch.float64))
        self.x.index_add_(0, group, values)
        self.xx.index_add_(0, group, values.square().sum(1))

    def add(
        self,
        sae: int,
        document: Int[Tensor, " n"],
        x: Float[Tensor, "n d"],
        z: Float[Tensor, "n d_sae"],
        x_hat: Float[Tensor, "n d"],
    ) -> None:
        """What one SAE makes of activations that `add_x` was given."""
        fires = z != 0
        self.fired[sae] += fires.sum(0)
        own, given = x.double(), x_hat.double()
        product, xx, output = (own * given).sum(1), own.square().sum(1), given.square().sum(1)
        both, length = (xx * output).sqrt(), (output / xx.clamp_min(1e-300)).sqrt()
        cosine = torch.where(both > 0, product / both.clamp_min(1e-300), 0.0)
        error = (own - given).square().sum(1)
        columns = (error, product, output, fires.sum(1).double(), cosine, length)
        self.each[:, sae].index_add_(0, document % GROUPS, torch.stack(columns, 1))

    def measures(
        self, sae: int, weights: Float[Tensor, "resamples groups"]
    ) -> dict[str, Float[Tensor, " resamples"]]:
        """The module's measures of one SAE, for every weighting of the groups."""
        count, x, xx = weights @ self.count, weights @ self.x, weights @ self.xx
        error, product, output, l0, cosine, length = (weights @ self.each[:, sae]).T
        return {
            "fvu": error / (xx - x.square().sum(1) / count),
            "fvu_uncentred": error / xx,
            "l0": l0 / count,
            "cosine": cosine / count,
            "length": length / count,
            "gamma": output / product,
        }
