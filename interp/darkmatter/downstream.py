"""What an SAE's errors cost the model: cross-entropy with the site replaced by what the SAE keeps.

    recovered = 100 (CE_sae - CE_setting) / (CE_sae - CE_original)     percent, over the same tokens

`original` has x itself in its place and recovers 100 %, the SAE's output recovers 0 % (Engels et
al., section 6). The two parts of the error need not add up to 100 %: cross-entropy is not linear in
them. The `scaled` settings start from the output with its shrinkage taken out, x - corrected error,
and are measured against that. `mean` has the mean of x in its place: the loss that an SAE recovers
in the usual sense is (CE_mean - CE_sae) / (CE_mean - CE_original).

An SAE may cost nothing that can be told from 0. Then any percentage may have been recovered, and
the interval, Fieller's, is -inf to inf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.site import Site
from ..model.subject import Subject
from ..runs.intervals import Resamples, resampled
from ..text.contexts import Contexts
from ..text.replaced import Replaced
from .accumulators import Shrinkage, SplitErrors

SETTINGS = ("sae", "sae + linear", "sae + nonlinear")
SCALED = ("scaled", "scaled + linear", "scaled + nonlinear")
LISTS = ("tokens", "documents", "original", "mean")
"""The lists of a context's numbers, beside its settings."""


@dataclass
class ReplacementCosts:
    """Summed cross-entropies of contexts in nats, for every SAE and setting."""

    subject: Subject
    site: Site
    tokens: list[int] = field(default_factory=list)
    """Predictions in each context."""
    documents: list[int] = field(default_factory=list)
    """The document that each context is from."""
    original: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    settings: list[Float[Tensor, "saes settings"]] = field(default_factory=list)

    def state(self) -> dict[str, Tensor]:
        """Every list as a tensor: what `restore` continues from."""
        held = (self.tokens, self.documents, self.original, self.mean)
        dtypes = (torch.int64, torch.int64, torch.float64, torch.float64)
        columns = zip(LISTS, held, dtypes, strict=True)
        lists = {name: torch.tensor(values, dtype=dtype) for name, values, dtype in columns}
        return lists | {f"settings/{n}": values for n, values in enumerate(self.settings)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Set all lists to what `state` gave."""
        lists = (state[name].tolist() for name in LISTS)
        self.tokens, self.documents, self.original, self.mean = lists
        self.settings = [state[f"settings/{number}"] for number in range(len(self.tokens))]

    def add(
        self,
        part: Contexts,
        split: SplitErrors,
        shrinkages: list[Shrinkage],
        announce: Callable[[int], None],
    ) -> None:
        """Run a batch of contexts with x at the site and with every setting of every SAE.

        x is patched in like the others: the errors may be of something else than the model's own
        activations (`faults.py`), and then the model without a patch is no measure of them.

        Args:
            announce: called with each SAE's number before its turn.
        """
        passes = Replaced(self.subject, self.site, part)
        own = passes.losses(split.x)
        self.documents += part.document.tolist()
        self.tokens += own.isfinite().sum(1).tolist()
        self.original += own.nansum(1).double().tolist()
        mean = shrinkages[0].x_mean.expand_as(split.x)
        self.mean += passes.losses(mean).nansum(1).double().tolist()
        costs = torch.zeros(len(own), len(shrinkages), 6, dtype=torch.float64)
        for sae, shrink in enumerate(shrinkages):
            announce(sae)
            for at, kept in enumerate(_replacements(split, sae, shrink)):
                costs[:, sae, at] = passes.losses(kept).nansum(1).double()
        self.settings += list(costs)

    def resampled(self) -> tuple[Resamples, Tensor, Tensor, Tensor]:
        """The documents resampled; cross-entropy in nats a token, and what is gained and what there
        is to gain (CE_sae - CE_original), in nats, each [resamples, saes, settings]."""
        tokens = torch.tensor(self.tokens, dtype=torch.float64)
        documents, whose = torch.unique(torch.tensor(self.documents), return_inverse=True)
        drawn = resampled(torch.zeros(len(documents)).double().index_add(0, whose, tokens))
        weights = torch.from_numpy(drawn.weights)[:, whose]
        count = weights @ tokens
        original = weights @ torch.tensor(self.original, dtype=torch.float64)
        total = torch.einsum("rc,cst->rst", weights, torch.stack(self.settings))
        base = torch.cat([total[..., :1].expand(-1, -1, 3), total[..., 3:4].expand(-1, -1, 3)], 2)
        return drawn, total / count[:, None, None], base - total, base - original[:, None, None]


def _replacements(split: SplitErrors, sae: int, shrink: Shrinkage) -> list[Tensor]:
    """What replaces x in each of SETTINGS, then of SCALED."""
    x, error = split.x, split.error[:, sae]
    linear, nonlinear = split.linear[:, sae], split.nonlinear[:, sae]
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
