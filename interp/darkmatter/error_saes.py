"""SAEs trained on the linear and the nonlinear part of an SAE's error (Engels et al., section 6).

If the nonlinear error were features that the SAE has missed, an SAE of its own could learn them.

Written to the run: `saes/linear/` and `saes/nonlinear/`, as sae-lens saves them (with `reads` in
their metadata: they are not SAEs of the site itself), and
`error_saes.parquet`: part string, l0, fvu double, alive int64: of that part on held-out contexts
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.aliases import public_name
from ..runs.checkpoint import Checkpoint, State
from ..runs.writer import RunWriter
from ..saes.plan import SaePlan, Schedule
from ..saes.train import train_saes, trained
from .measure import ErrorsConfig

if TYPE_CHECKING:
    from ..model.subject import Subject
    from ..saes.train import Batches

PARTS = ("linear", "nonlinear")
FIT_TOKENS = 60_000
"""Tokens that the linear map is fitted on."""
POOL = 2**14
"""Tokens that are shuffled together, at least."""
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

    def run(self, out: RunWriter) -> dict[str, Any]:
        from ..saes.open import open_sae

        subject = self.open(out)
        stream = _PartStream(self, subject, out)
        steps = self.tokens // self.batch
        name, started = public_name(self.model), bool(subject.prompting.start)
        schedule = Schedule(steps, self.batch, self.lr, name, started, self.own_device)
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
    """Batches of the parts of one SAE's error, and the parts of held-out contexts."""

    def __init__(self, config: ErrorSaesConfig, subject: Subject, out: RunWriter) -> None:
        from interp.kernels.gram import Fit

        from ..saes import SaeSplit

        saes = config.opened()
        self.config, self.site, self.facts = config, saes.site, saes.facts
        self._sae = saes.chosen(config.name)
        self._stream = config.stream(subject, saes)
        checkpoint = Checkpoint(out, "saes/split")
        state = checkpoint.read()
        if not state:
            state = self._fitted()
            checkpoint.write(*state)
        self._stream.median = state.note["median"]
        fit = Fit(state.tensors["weights"], state.tensors["intercept"], "cholesky")
        self._split = SaeSplit(self._sae, fit)
        parts = self._split(state.tensors["held_out"])
        self.held_out = {part: getattr(parts, part).float() for part in PARTS}

    @property
    def _skipped(self) -> int:
        """Contexts that the linear map is fitted on, and held-out ones: not trained on."""
        return FIT_TOKENS // self.config.length + CHECKED

    def _fitted(self) -> State:
        """The linear map, held-out activations, and what is massive."""
        from ..saes import SaeSplit
        from .regressions import undetermined

        rows = self._stream.rows(self._skipped)
        x = self._stream.activations(rows, self._skipped - CHECKED)
        fit = SaeSplit.of(self._sae, x, self.config.ridge).fit
        if fit.method != "cholesky":
            raise undetermined(*x.shape)
        held_out = self._stream.activations(rows, CHECKED, self._skipped - CHECKED)
        tensors = {"weights": fit.weights, "intercept": fit.intercept, "held_out": held_out}
        return State(tensors, {"median": self._stream.median})

    def of(self, part: str) -> Callable[[int], Batches]:
        """What `train_saes` takes: from a number n to the batches of a part from n on."""
        return lambda first: self._batches(part, first)

    def _batches(self, part: str, first: int) -> Batches:
        from ..text.shuffled import shuffled

        rows = itertools.islice(self._stream.rows(), self._skipped, None)
        pool = min(POOL, self.config.tokens)
        for x in shuffled(self._stream, rows, self.config.batch, pool, first):
            yield {self.site: getattr(self._split(x[self.site]), part).float()}
