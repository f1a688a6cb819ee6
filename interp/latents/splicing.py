"""What an SAE costs its model: cross-entropy with the site replaced by what the SAE gives.

    loss_recovered = (CE_zero - CE_sae) / (CE_zero - CE)          SAEBench's ce_loss_score
    loss_recovered_mean = (CE_mean - CE_sae) / (CE_mean - CE)
    loss_added = CE_sae - CE                                      nats a token

CE is the model's own, `zero` and `mean` have 0 and the mean of x at the site instead. 1: the SAE
costs nothing; 0: as much as taking the site out. The mean is of contexts that are not measured.
All are means over all predictions of the same contexts, with the same positions replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.site import Site
from ..model.subject import Subject
from ..runs.intervals import Interval, Resamples, resampled
from ..text.contexts import Contexts
from ..text.replaced import Replaced

BASES = ("original", "zero", "mean")
"""What stands at the site beside what each SAE gives."""


@dataclass
class SplicedLosses:
    """Summed cross-entropies of contexts in nats."""

    subject: Subject
    site: Site
    tokens: list[int] = field(default_factory=list)
    """Predictions in each context."""
    documents: list[int] = field(default_factory=list)
    """The document that each context is from."""
    sums: list[Float[Tensor, " settings"]] = field(default_factory=list)
    """Of BASES, then of each SAE."""

    def state(self) -> dict[str, Tensor]:
        """What `restore` continues from."""
        held = {"tokens": torch.tensor(self.tokens), "documents": torch.tensor(self.documents)}
        return held | {"sums": torch.stack(self.sums)} if self.sums else {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Set all lists to what `state` gave."""
        if state:
            self.tokens, self.documents = state["tokens"].tolist(), state["documents"].tolist()
            self.sums = list(state["sums"])

    def add(
        self,
        part: Contexts,
        x: Float[Tensor, "n d"],
        mean: Float[Tensor, " d"],
        given: list[Float[Tensor, "n d"]],
    ) -> None:
        """Run a batch of contexts as it is and with each replacement of its chosen positions.

        Args:
            given: what each SAE makes of x.
        """
        passes = Replaced(self.subject, self.site, part)
        kept = (None, torch.zeros_like(x), mean.expand_as(x), *given)
        every = [passes.losses(each) for each in kept]
        self.documents += part.document.tolist()
        self.tokens += every[0].isfinite().sum(1).tolist()
        self.sums += list(torch.stack([losses.nansum(1).double() for losses in every], 1))

    def settled(self) -> Settled:
        """Everything that was added, its documents resampled."""
        tokens = torch.tensor(self.tokens, dtype=torch.float64)
        documents, whose = torch.unique(torch.tensor(self.documents), return_inverse=True)
        drawn = resampled(torch.zeros(len(documents)).double().index_add(0, whose, tokens))
        weights = torch.from_numpy(drawn.weights)[:, whose]
        return Settled(drawn, weights @ tokens, weights @ torch.stack(self.sums))


@dataclass(frozen=True)
class Settled:
    """Sums over contexts for every resample of their documents."""

    drawn: Resamples
    tokens: Float[Tensor, " resamples"]
    sums: Float[Tensor, "resamples settings"]

    def nats(self, setting: int) -> Interval:
        """Cross-entropy a token."""
        return self.drawn.interval(self.sums[:, setting] / self.tokens)

    def measures(self, sae: int) -> dict[str, Interval]:
        """The module's measures of one SAE."""
        own, zero, mean = self.sums.T[: len(BASES)]
        spliced = self.sums[:, len(BASES) + sae]
        return {
            "loss_recovered": self.drawn.ratio(zero - spliced, zero - own),
            "loss_recovered_mean": self.drawn.ratio(mean - spliced, mean - own),
            "loss_added": self.drawn.interval((spliced - own) / self.tokens),
        }
