"""SAEs trained on an SAE's error: on its linear part, and on its nonlinear one (Engels et al., 6).

If the nonlinear error were features that the SAE has missed, an SAE of its own could learn them.

Written to the run: `saes/linear/` and `saes/nonlinear/`, as sae-lens saves them (with `reads` in
their metadata, for they are no SAEs of the site itself), and
`error_saes.parquet`: part string, fvu double (of the part, on held-out contexts), l0 double, alive
    int64
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.site import Site
from ..runs.store import RunWriter
from ..saes.train import SaePlan, Schedule, train_saes, trained
from .measure import ErrorsConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.subject import Subject
    from .contexts import Row

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
    """Whose errors; by default those of the widest of the SAEs."""
    width: int = 1536
    """Latents of the new SAEs."""
    k: int = 32
    """Active latents a token."""
    tokens: int = 200_000
    """Tokens they are trained on, after those of the fit and the ones held out."""
    batch: int = 1024
    """Tokens a step."""
    lr: float = 2e-3
    """Adam's learning rate."""

    def check(self) -> None:
        super().check()
        if min(self.batch, self.k, self.width - self.k) < 1 or self.tokens < self.batch:
            raise UserError("give at least one step, a --batch of 1 or more, and 1 <= k < width")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr {self.lr:g} is no learning rate: give one above 0")
        if self.pool < 1:
            raise UserError(
                f"--batch {self.batch} is more than {POOL} contexts surely hold: give at most "
                f"{POOL * (self.length - self.skip) // 2}"
            )

    @property
    def pool(self) -> int:
        """Batches that POOL contexts surely fill: one's worth of tokens may be left out."""
        return POOL * (self.length - self.skip) // self.batch - 1

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from interp.probes.metrics import fvu
        from interp.saes.sae import load_sae

        from ..model.subject import open_subject

        subject = open_subject(self.model, device=self.device)
        stream = _Stream(self, subject)
        schedule = Schedule(
            self.tokens // self.batch, self.batch, self.lr, Path(self.model).name, self.device
        )
        rows = []
        for part in PARTS:
            if not trained(out, part):
                plan = SaePlan(part, stream.site, "topk", self.width, self.k, reads=f"{part} error")
                train_saes([plan], stream.of(part), schedule, out, f"SAE of the {part} error")
            sae = load_sae(out.path / "saes" / part)
            x = stream.held_out[part]
            z = sae.encode(x)
            row = {"part": part, "fvu": fvu(x, sae.decode(z))}
            row |= {"l0": float((z > 0).sum(1).double().mean()), "alive": int((z > 0).any(0).sum())}
            rows.append(row)
        with out.part("error_saes.parquet") as path:
            pd.DataFrame(rows).to_parquet(path)
        out.facts = {"parity": subject.parity, "device": self.device}
        return {f"{c}_{row['part']}": row[c] for row in rows for c in ("fvu", "l0", "alive")}


class _Stream:
    """Batches of the parts of one SAE's error."""

    def __init__(self, config: ErrorSaesConfig, subject: Subject) -> None:
        from interp.saes.sae import SaeSplit

        from ..saes.open import open_saes
        from .contexts import Reader, corpus_rows
        from .one_pass import undetermined

        saes = open_saes(config.source, config.site, model=config.model)
        self.config, self.subject, self.site = config, subject, saes.site
        self._reader = Reader(subject, [saes.site], config.longest)
        self._fitted = FIT_TOKENS // config.length
        pools = -(-(config.tokens // config.batch + 1) // config.pool)
        self._trained = pools * POOL
        count = self._fitted + CHECKED + self._trained
        rows = corpus_rows(subject, config.corpus, config.length, count)
        x = self._activations(rows, self._fitted)
        # the sums of a SaeSplit are a mean over tokens too, so this is OnePass.solved's ridge
        ridge = config.ridge * float(x.double().var(0, correction=0).mean())
        self._split = SaeSplit.of(saes.chosen(config.name), x, ridge)
        if self._split.fit.method != "cholesky":
            raise undetermined(*x.shape)
        parts = self._split(self._activations(rows, CHECKED))
        self.held_out = {part: getattr(parts, part).float() for part in PARTS}

    def _activations(self, rows: Iterator[Row], count: int, first: int = 0) -> Tensor:
        import torch

        from .contexts import contexts

        config = self.config
        read = contexts(self.subject, rows, count, config.skip, 8, first)
        found = [self._reader.read(part)[1].x for part in read]
        if not found:
            raise UserError(f"no context is longer than --skip {config.skip}: give a smaller one")
        return torch.cat(found)

    def of(self, part: str) -> Any:
        """What `train_saes` asks for: from a number n to the batches of a part from n on."""
        return lambda first: itertools.islice(self._batches(part), first, None)

    def _batches(self, part: str) -> Iterator[dict[Site, Tensor]]:
        """Shuffled within POOL contexts; what does not fill a batch there is left out."""
        import torch

        from .contexts import corpus_rows

        config, skipped = self.config, self._fitted + CHECKED
        rows = corpus_rows(self.subject, config.corpus, config.length, skipped + self._trained)
        rows = itertools.islice(rows, skipped, None)
        for start in range(0, self._trained, POOL):
            x = self._activations(rows, min(POOL, self._trained - start), skipped + start)
            values = getattr(self._split(x), part).float()
            order = torch.randperm(len(values), generator=torch.Generator().manual_seed(start))
            for chosen in torch.split(order, config.batch):
                if len(chosen) == config.batch:
                    yield {self.site: values[chosen]}
