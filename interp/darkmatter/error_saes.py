"""SAEs trained on the linear and the nonlinear part of an SAE's error (Engels et al., section 6).

If the nonlinear error were features that the SAE has missed, an SAE of its own could learn them.

Written to the run: `saes/linear/` and `saes/nonlinear/`, as sae-lens saves them (with `reads` in
their metadata: they are not SAEs of the site itself), and
`error_saes.parquet`: part string, l0, fvu double, alive int64: of that part on held-out contexts
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.aliases import public_name
from ..model.site import Site
from ..runs.writer import RunWriter
from ..saes.train import SaePlan, Schedule, train_saes, trained
from .measure import ErrorsConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.subject import Subject

PARTS = ("linear", "nonlinear")
FIT_TOKENS = 60_000
"""Tokens that the linear map is fitted on."""
POOL = 64
"""Contexts whose tokens are shuffled together."""
CHECKED = 32
"""Contexts held out from the training, to measure on."""


@dataclass(frozen=True)
class ErrorSaesConfig(ErrorsConfig):
    """Train SAEs on the linear and the nonlinear error of an SAE."""

    STUDY: ClassVar[str] = "darkmatter.errors"

    name: str = ""
    """Which SAE's errors; by default the widest one's."""
    width: int = 1536
    """Latents of the new SAEs."""
    k: int = 32
    """Active latents a token."""
    tokens: int = 200_000
    """Tokens they are trained on; they follow those of the fit and the held-out ones."""
    batch: int = 1024
    """Tokens a step."""
    lr: float = 2e-3
    """Adam's learning rate."""

    def check(self) -> None:
        super().check()
        if min(self.batch, self.k, self.width - self.k) < 1 or self.tokens < self.batch:
            raise UserError("give at least one step, a --batch of 1 or more, and 1 <= k < width")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr must be above 0, not {self.lr:g}")
        if self.pool < 1:
            raise UserError(
                f"--batch must be at most {POOL * (self.length - self.skip) // 2}, not "
                f"{self.batch}: {POOL} contexts have to fill two batches"
            )

    @property
    def pool(self) -> int:
        """Batches that POOL contexts fill even if up to a batch of their tokens is left out."""
        return POOL * (self.length - self.skip) // self.batch - 1

    def run(self, out: RunWriter) -> dict[str, Any]:
        from ..saes.open import open_sae

        subject = self.open(out)
        stream = _PartStream(self, subject)
        steps = self.tokens // self.batch
        name, started = public_name(self.model), bool(subject.prompting.start)
        schedule = Schedule(steps, self.batch, self.lr, name, started, self.device)
        rows: list[dict[str, Any]] = []
        for part in PARTS:
            if not trained(out, part):
                plan = SaePlan(part, stream.site, "topk", self.width, self.k, reads=f"{part} error")
                train_saes([plan], stream.of(part), schedule, out, f"SAE of the {part} error")
            sae = open_sae(out.path / "saes" / part)
            rows.append({"part": part, **sae.quality(stream.held_out[part])})
        out.facts |= stream.facts
        out.table("error_saes", rows)
        return {f"{c}_{row['part']}": row[c] for row in rows for c in ("fvu", "l0", "alive")}


class _PartStream:
    """Batches of the parts of one SAE's error."""

    def __init__(self, config: ErrorSaesConfig, subject: Subject) -> None:
        from ..saes import SaeSplit
        from .regressions import undetermined

        saes = config.opened()
        self.config, self.site, self.facts = config, saes.site, saes.facts
        self._stream = config.stream(subject, saes)
        fitted, pools = FIT_TOKENS // config.length, config.tokens // config.batch + 1
        self._skipped, self._trained = fitted + CHECKED, -(-pools // config.pool) * POOL
        rows = self._stream.rows(self._skipped + self._trained)
        x = self._stream.activations(rows, fitted)
        # the sums of a SaeSplit are a mean over tokens too: the ridge of ErrorRegressions.solved
        ridge = config.ridge * float(x.double().var(0, correction=0).mean())
        self._split = SaeSplit.of(saes.chosen(config.name), x, ridge)
        if self._split.fit.method != "cholesky":
            raise undetermined(*x.shape)
        parts = self._split(self._stream.activations(rows, CHECKED))
        self.held_out = {part: getattr(parts, part).float() for part in PARTS}

    def of(self, part: str) -> Callable[[int], Iterator[dict[Site, Tensor]]]:
        """What `train_saes` takes: from a number n to the batches of a part from n on."""
        return lambda first: itertools.islice(self._batches(part), first, None)

    def _batches(self, part: str) -> Iterator[dict[Site, Tensor]]:
        """Shuffled within POOL contexts; what does not fill a batch there is left out."""
        import torch

        rows = self._stream.rows(self._skipped + self._trained)
        rows = itertools.islice(rows, self._skipped, None)
        for start in range(0, self._trained, POOL):
            x = self._stream.activations(rows, POOL, self._skipped + start)
            values = getattr(self._split(x), part).float()
            order = torch.randperm(len(values), generator=torch.Generator().manual_seed(start))
            for chosen in torch.split(order, self.config.batch):
                if len(chosen) == self.config.batch:
                    yield {self.site: values[chosen]}
