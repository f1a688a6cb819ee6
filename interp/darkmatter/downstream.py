"""What an SAE's errors cost the model: cross-entropy with the site replaced by what the SAE keeps.

    recovered = 100 (CE_sae - CE_setting) / (CE_sae - CE_original)     percent, over the same tokens

so x itself, which `original` has in its place, recovers 100 and the SAE's output 0 (Engels et al.,
section 6). The two parts of the error need not add up to 100: cross-entropy is not linear in them.
The `scaled` settings start from the output with its shrinkage taken out, x - corrected error, and
are measured against that. With the mean of x in its place (`mean`) the loss that an SAE recovers in
the usual sense is (CE_mean - CE_sae) / (CE_mean - CE_original).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.edits import patch
from ..model.site import Site
from ..model.subject import Subject
from .contexts import Contexts
from .sums import Errors, Resamples, Shrinkage, resampled

SETTINGS = ("sae", "sae + linear", "sae + nonlinear")
SCALED = ("scaled", "scaled + linear", "scaled + nonlinear")


@dataclass
class Prices:
    """Summed cross-entropies of contexts, for every SAE and setting."""

    subject: Subject
    site: Site
    tokens: list[int] = field(default_factory=list)
    """Predictions, a context."""
    documents: list[int] = field(default_factory=list)
    """Which document each context is of."""
    original: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    rows: list[Float[Tensor, "saes settings"]] = field(default_factory=list)

    def add(
        self,
        part: Contexts,
        parts: Errors,
        shrinkages: list[Shrinkage],
        tell: Callable[[int], None],
    ) -> None:
        """Run a batch of contexts with x at the site and with every setting of every SAE.

        x is put there like the others: where the errors are of something else than the model's
        own activations (`faults.py`), the model on its own is no measure of them.

        Args:
            tell: called with each SAE's number before its turn.
        """
        own = self._losses(part, parts.x)
        self.documents += part.document.tolist()
        self.tokens += own.isfinite().sum(1).tolist()
        self.original += own.nansum(1).double().tolist()
        mean = shrinkages[0].x_mean.expand_as(parts.x)
        self.mean += self._losses(part, mean).nansum(1).double().tolist()
        found = torch.zeros(len(own), len(shrinkages), 6, dtype=torch.float64)
        for sae, shrink in enumerate(shrinkages):
            tell(sae)
            for at, kept in enumerate(_kept(parts, sae, shrink)):
                found[:, sae, at] = self._losses(part, kept).nansum(1).double()
        self.rows += list(found)

    def _losses(self, part: Contexts, kept: Float[Tensor, "n d"]) -> Tensor:
        source = torch.zeros(*part.batch.ids.shape, kept.shape[-1])
        source[part.chosen.cpu()] = kept.float()
        change = patch(self.site, source, part.chosen)
        with self.subject.edited(change):
            return part.losses(self.subject.logits(part.batch))

    def table(
        self,
    ) -> tuple[
        Resamples,
        Float[Tensor, "resamples saes settings"],
        Float[Tensor, "resamples saes settings"],
    ]:
        """The documents resampled; cross-entropy in nats a token, and percent recovered."""
        tokens = torch.tensor(self.tokens, dtype=torch.float64)
        documents, whose = torch.unique(torch.tensor(self.documents), return_inverse=True)
        drawn = resampled(torch.zeros(len(documents)).double().index_add(0, whose, tokens))
        weights = drawn.weights[:, whose]
        count = weights @ tokens
        original = weights @ torch.tensor(self.original, dtype=torch.float64)
        total = torch.einsum("rc,cst->rst", weights, torch.stack(self.rows))
        base = torch.cat([total[..., :1].expand(-1, -1, 3), total[..., 3:4].expand(-1, -1, 3)], 2)
        recovered = 100 * (base - total) / (base - original[:, None, None])
        return drawn, total / count[:, None, None], recovered


def _kept(parts: Errors, sae: int, shrink: Shrinkage) -> list[Tensor]:
    """What stands in for x: SETTINGS, then SCALED."""
    x, (error, linear, nonlinear) = parts.x, (part[:, sae] for part in parts[1:4])
    corrected = shrink.corrected(x, error)
    rest = shrink.scale * nonlinear
    scaled = x - corrected
    return [
        x - error,
        x - error + linear,
        x - error + nonlinear,
        scaled,
        scaled + corrected - rest,
        scaled + rest,
    ]
