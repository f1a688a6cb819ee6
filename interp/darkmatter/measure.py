"""How much of what SAEs miss is linear, and what it costs: one pass, many SAEs (Engels et al.).

Written to the run, one row a line:
`measures.parquet`: sae string, d_sae int64, measure string, value, low, high double. Held out by
    context, 95 % intervals over documents (NaN with fewer than three; `sums.py`). Measures: those
    of `VectorSums.measures`, `l0`, `r2_norm <target>` (x and one_pass.TARGETS: |.|^2 predicted from
    x), and how well a number alone predicts |error|^2 or |nonlinear|^2:
    `r2_<part>_from_<token|loss|active|x>`
`variants.parquet`: sae, intercept bool, ridge double, r2_vector, r2_vector_weighted, fvu_nonlinear
    (NaN where x does not determine the regression)
`scaling.parquet`: small, large string, target ("error" or "nonlinear"), given ("error", or
    "error + nonlinear" of the small one), r2, low, high: of lengths, token by token
`downstream.parquet`: sae, setting (see downstream.py), ce (nats a token), recovered, low, high (%)
`tokens.parquet`: of about SHOWN test contexts: context, position int64, text, sae string, x, error,
    nonlinear (squared lengths), loss double
`earlier.parquet`, if earlier SAEs were given: sae, r2
`fits.safetensors`: weights [saes, d, d], intercept [saes, d], scale [saes], x_mean [d], e_mean
    [saes, d], in the order of the manifest's `names`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.store import RunWriter, save_tensors
from .ladder import LADDER

if TYPE_CHECKING:
    from ..model.subject import Subject
    from ..saes.open import Readers

HEADLINES = ("fvu", "fvu_nonlinear", "r2_vector_weighted", "r2_norm error")
"""Measures among the run's metrics."""


@dataclass(frozen=True)
class ErrorsConfig:
    """What every study of the errors of a site's SAEs is asked: which SAEs, on which tokens."""

    STUDY: ClassVar[str]
    VERSION: ClassVar[int] = 2

    model: str = "smollm2-135m"
    """A catalog name, hub id, folder or .gguf file."""
    saes: str = ""
    """A ladder's run, a folder of SAEs, or sae-lens' release:sae_id; by default the shipped."""
    site: str = ""
    """Which site's SAEs, where the folder holds several sites' or they do not say."""
    corpus: str = ""
    """Text, or ids (.safetensors); by default the installed Python's own text."""
    tokens: int = 100_000
    """Tokens of the one pass: 40 % to fit on, 30 % to fit norms on, 30 % measured."""
    length: int = 256
    """Tokens in a context."""
    skip: int = 1
    """Positions at a context's beginning that are left out: attention sinks."""
    longest: float = 10.0
    """Tokens with an activation of more median lengths are left out too (0: none); see Reader."""
    ridge: float = 0.0
    """Ridge of the main regression, in mean variances of x; others are shown beside it."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where the model runs."""

    @property
    def source(self) -> str:
        return self.saes or str(LADDER)

    @property
    def contexts(self) -> int:
        return self.tokens // self.length

    def fingerprints(self) -> dict[str, str]:
        from ..model.weights import open_weights
        from ..saes.open import saes_fingerprint
        from ..text.corpus import fingerprint

        return {
            **open_weights(self.model).fingerprints(),
            "corpus": fingerprint(self.corpus or None),
            "saes": saes_fingerprint(self.source),
        }

    def check(self) -> None:
        if not 0 <= self.skip < self.length - 1:
            raise UserError("give contexts longer than what is skipped of them")
        if self.contexts < 10:
            raise UserError(
                f"{self.tokens} tokens are {self.contexts} contexts of {self.length}, too few to "
                "split: give 10 or more (--tokens), or shorter ones (--length)"
            )
        if not self.ridge >= 0:
            raise UserError(f"--ridge {self.ridge:g} must not be negative: give 0 or more")
        if self.longest != 0 and not self.longest >= 1:
            raise UserError(
                f"--longest {self.longest:g} are no median lengths: give 1 or more, or 0"
            )


@dataclass(frozen=True)
class DarkMatterConfig(ErrorsConfig):
    """Cut the errors of a site's SAEs into a linear and a nonlinear part, and price both."""

    STUDY: ClassVar[str] = "darkmatter.run"

    earlier: tuple[str, ...] = ()
    """SAEs of sites before, each site=source: do they explain the nonlinear error?"""
    downstream: int = 16
    """How many test contexts, evenly spread, are run again with the site replaced."""

    def fingerprints(self) -> dict[str, str]:
        from ..saes.open import saes_fingerprint

        prints = super().fingerprints()
        for given in self.earlier:
            prints[given] = saes_fingerprint(given.partition("=")[2])
        return prints

    def check(self) -> None:
        super().check()
        if self.downstream < 0:
            raise UserError(f"--downstream {self.downstream} must not be negative: give 0 or more")
        if not all("=" in given for given in self.earlier):
            raise UserError("give --earlier as site=source, such as 1.resid_post=FOLDER")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from ..model.subject import open_subject
        from ..saes.open import open_saes
        from .report import fits, tables
        from .streamed import Streamed

        parted = (given.partition("=") for given in self.earlier)
        earlier = tuple(open_saes(source, site, model=self.model) for site, _, source in parted)
        subject = open_subject(self.model, device=self.device)
        readers = self.readers(subject)
        made = Streamed(self, subject, readers, earlier)
        made.read()
        found = tables(made.sums, made.prices, made.shown)
        for name, table in found.items():
            with out.part(f"{name}.parquet") as path:
                table.to_parquet(path)
        with out.part("fits.safetensors") as path:
            save_tensors(fits(made.sums), path)
        out.facts = {
            "names": list(readers.names),
            "site": str(readers.site),
            "left_out": made.activations.left_out,
            "documents": made.documents,
            "parity": subject.parity,
            "device": self.device,
            "seconds": {name: round(value, 2) for name, value in made.seconds.items()},
        }
        kept = found["measures"]
        kept = kept[kept["measure"].isin(HEADLINES)]
        return {
            f"{row['measure']} {row['sae']}": round(row["value"], 4)
            for row in kept.to_dict("records")
        }

    def readers(self, subject: Subject) -> Readers:
        """Whose errors are studied."""
        from ..saes.open import open_saes

        return open_saes(self.source, self.site, model=self.model)


@dataclass(frozen=True)
class PursuitConfig(DarkMatterConfig):
    """Like `darkmatter run`, with latents also found by gradient pursuit, without the encoders."""

    STUDY: ClassVar[str] = "darkmatter.pursuit"

    tokens: int = 20_000
    """Tokens of the one pass: pursuit costs a hundred times the encoder."""

    def readers(self, subject: Subject) -> Readers:
        from ..saes.open import open_saes

        return open_saes(self.source, self.site, pursued=True, model=self.model)
