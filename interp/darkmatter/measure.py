"""How much of what SAEs miss is linear, and what it costs: one pass, many SAEs (Engels et al.).

Written to the run:
`measures.parquet`: sae string, d_sae int64, measure string, value, low, high double, unit string
    (what the 95 % intervals resample: "document"; fewer than three documents: no interval, NaN).
    Measured on held-out contexts. Measures: those of `VectorSums.measures`, `l0`, `r2_norm
    <target>` (|.|^2 of x and of regressions.TARGETS predicted from x), and how well a number alone
    predicts |error|^2 or |nonlinear|^2: `r2_<part>_from_<token|loss|active|x>`
`variants.parquet`: sae, intercept bool, ridge double, r2_vector, r2_vector_weighted, fvu_nonlinear
    (NaN where x does not determine the regression)
`scaling.parquet`: small, large string, target ("error" or "nonlinear"), given ("error", or
    "error + nonlinear" of the small one), r2, low, high, unit: of lengths, token by token
`downstream.parquet`: sae, setting (see downstream.py), ce (nats a token), recovered, low, high (%;
    -inf and inf where the SAE may have cost nothing, so that any percentage may be true), unit
`tokens.parquet`: of about SHOWN measured contexts: context, position int64, text, sae string, x,
    error, nonlinear (squared lengths), loss double
`earlier.parquet`, if earlier SAEs were given: sae, r2
`fits.safetensors`: weights [saes, d, d], intercept [saes, d], scale [saes], x_mean [d], e_mean
    [saes, d], in the order of the manifest's `names`

Runs made before intervals named their unit lack the column `unit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.checkpoint import Checkpoint
from ..runs.study import PartedStudy
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter, save_tensors
from ..saes.study import SaesStudy

if TYPE_CHECKING:
    from ..model.subject import Subject
    from ..saes.open import ErrorSource, Saes
    from .batches import Opened, Part

HEADLINES = ("fvu", "fvu_nonlinear", "r2_vector_weighted", "r2_norm error")
"""Measures among the run's metrics."""


@dataclass(frozen=True)
class ErrorsConfig(SaesStudy):
    """The settings of every study of the errors of a site's SAEs: which SAEs, on which tokens."""

    STUDY: ClassVar[str]
    VERSION: ClassVar[int] = 3
    FACTS: ClassVar[dict[str, Any]] = {
        "site": str, "names": list[str], "seconds": dict[str, float],
        "documents": dict[str, Any], "documents.measured": int, "documents.priced": int,
    }  # fmt: skip

    tokens: int = 100_000
    """Tokens to read: 40 % to fit on, 30 % to fit norms on, 30 % measured."""
    ridge: float = 0.0
    """Ridge of the main regression, in mean variances of x; others are shown beside it."""

    @property
    def contexts(self) -> int:
        return self.tokens // self.length

    def check(self) -> None:
        super().check()
        if self.contexts < 10:
            raise UserError(
                f"{self.tokens} tokens make {self.contexts} contexts of {self.length}, too few to "
                "split: give 10 contexts or more (--tokens), or shorter ones (--length)"
            )
        if not self.ridge >= 0:
            raise UserError(f"--ridge must be 0 or more, not {self.ridge:g}")


@dataclass(frozen=True)
class DarkMatterConfig(ErrorsConfig, PartedStudy):
    """Split the errors of a site's SAEs into a linear and a nonlinear part; what each costs the
    model."""

    STUDY: ClassVar[str] = "darkmatter.run"
    PURSUED: ClassVar[bool] = False
    """Whether each SAE comes a second time, its latents found by pursuit."""

    earlier: tuple[str, ...] = ()
    """SAEs of sites before, each as site=source: do they explain the nonlinear error?"""
    downstream: int = 16
    """How many measured contexts, evenly spread, are run again with the site replaced."""

    def fingerprints(self) -> dict[str, str]:
        from ..saes.open import saes_fingerprint

        earlier = {given: saes_fingerprint(given.partition("=")[2]) for given in self.earlier}
        return super().fingerprints() | earlier

    def check(self) -> None:
        super().check()
        assert self.spread
        if self.downstream < 0:
            raise UserError(f"--downstream must be 0 or more, not {self.downstream}")
        if not all("=" in given for given in self.earlier):
            raise UserError("give --earlier as site=source, such as 1.resid_post=FOLDER")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .report import fits, tables
        from .run_pass import ErrorPass

        earlier = self.opened_earlier()
        if accepted := [line for each in earlier for line in each.anyway]:
            out.facts["anyway, earlier"] = accepted
        subject = self.open(out)
        saes = self.error_source(subject)
        stream = self.stream(subject, saes, (each.site for each in earlier))
        errors = ErrorPass(stream, saes, self.contexts, self.ridge, self.downstream, earlier)
        errors.read(Checkpoint(out, "pass"), self.spread, lambda m: _Contexts.of(self, median=m))
        made = tables(errors.regressions, errors.costs, errors.shown)
        for name, rows in made.items():
            out.table(name, rows)
        with out.part("fits.safetensors") as path:
            save_tensors(fits(errors.regressions), path)
        out.facts |= saes.facts | {
            "names": list(saes.names),
            "site": str(saes.site),
            "left_out": errors.left_out,
            "documents": errors.documents,
            "fitted": errors.fitted,
            "seconds": {name: round(value, 2) for name, value in errors.seconds.items()},
        }
        measures = made["measures"]
        return {
            f"{row['measure']} {row['sae']}": round(row["value"], 4)
            for row in measures[measures["measure"].isin(HEADLINES)].to_dict("records")
        }

    def opened_earlier(self) -> tuple[Saes, ...]:
        """`earlier`."""
        from ..saes.open import open_saes

        parted = (given.partition("=") for given in self.earlier)
        return tuple(
            open_saes(source, site, model=self.model, anyway=self.anyway)
            for site, _, source in parted
        )

    def error_source(self, subject: Subject) -> ErrorSource:
        """Whose errors are studied."""
        return self.opened(self.PURSUED)


@dataclass(frozen=True)
class _Contexts(StudyTask[DarkMatterConfig]):
    """Reads the contexts of a run with what a worker opens of its settings."""

    median: float
    """Of the lengths of the first activations of the stream: what is massive, depends on it."""

    def opened(self) -> Opened:
        from ..model.subject import open_subject
        from .batches import Opened

        own = self.config
        subject = open_subject(own.model, device=own.device, bos=own.feeding)
        saes = own.error_source(subject)
        stream = own.stream(subject, saes, (each.site for each in own.opened_earlier()))
        stream.median = self.median
        return Opened(stream, saes)

    def made(self, opened: Opened, part: Part) -> bytes:
        return opened.read(part)


@dataclass(frozen=True)
class PursuitConfig(DarkMatterConfig):
    """Like `darkmatter run`, with latents found by gradient pursuit as well as by the encoders."""

    STUDY: ClassVar[str] = "darkmatter.pursuit"
    PURSUED: ClassVar[bool] = True

    tokens: int = 20_000
    """Tokens to read; pursuit costs a hundred times what the encoder costs."""
