"""Do latents raise their own words? Sweeps of many, beside random latents and plain directions.

A latent's words are its top tokens through the LM head. It is clamped (`saes.edits.clamp_latent`)
at every strength of a sweep over a few neutral prompts, and its gain read as `directions.sweep`
says. Beside it, for the same words:
  - other latents of the same SAE, drawn from those most like it: in density, where a survey of the
    SAE is stored; else in the length of the row they write;
  - the plain direction: the same multiple of its row added, whatever the latent's activation is.
A strength is a length in units of the mean length of the activations at the prompts: at 1, what
each of them writes is as long as the stream, however long their rows are.

Tables of the run:
`effects/latents.parquet`, one row a latent: latent int64, word string (that it was chosen for, ""
    for one drawn at random), words list<string>, ids list<int64>, density double (null without a
    survey), length double (of its row), logprob (mean, without an edit), gain, value (the strength
    where it is reached), activation (that it is held at there), control_mean, control_max (gains of
    the other latents), beats (whether the gain exceeds each of theirs), direction (the plain
    direction's gain)
`effects/sweep.parquet`, one row a strength: latent int64 (whose words are read), name string
    ("latent 7"), control bool, direction bool (whether it is added plainly), value double (the
    strength; null without an edit), logprob
`effects/means.parquet`, over the latents: measure string (gain, control_mean, direction, beats, and
    gain - control_mean, gain - direction, of each latent), mean, mean_low, mean_high (the ends of a
    95 % interval), n int64, unit string ("latent": what is resampled)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..directions.sweep import PROMPTS, Sweep, check_prompts, gain_of
from ..errors import UserError
from ..runs.intervals import mean_of
from ..runs.parted_tables import Made, parted_tables
from ..runs.store import Run, Store, newest
from ..runs.study import PartedStudy, TextStudy
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter
from . import search
from .chosen import Chosen, Rows
from .survey import SHIPPED

if TYPE_CHECKING:
    import pandas as pd

    from ..directions.sweep import Swept
    from ..model.prompting import Bos
    from ..model.subject import Subject
    from ..saes import Sae


@dataclass(frozen=True)
class LatentEffectsConfig(TextStudy, PartedStudy):
    """Clamp latents of an SAE and read the words they promote, beside random latents."""

    STUDY: ClassVar[str] = "saes.effects"
    VERSION: ClassVar[int] = 1

    saes: str = ""
    """A folder of one SAE, or sae-lens' release:sae_id; by default the widest that ships."""
    latents: tuple[int, ...] = ()
    """Which latents; by default some drawn at random."""
    words: tuple[str, ...] = ()
    """Instead of numbers: of each word, the latent that raises it most in a stored survey."""
    sample: int = 24
    """How many latents are drawn where neither is given; of a survey, those that fire."""
    k: int = 5
    """How many of a latent's top tokens are its words."""
    prompts: tuple[str, ...] = PROMPTS
    """Neutral texts; the words' probability is read after each."""
    values: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0, 2.0)
    """The strengths: lengths of what is written, in mean lengths of the stream."""
    controls: int = 5
    """The number of other latents for each."""
    seed: int = 0
    """Seed of the latents that are drawn."""
    anyway: bool = field(default=False, kw_only=True, metadata={"key": False})
    """Take an SAE that names another model; the manifest says so."""

    @property
    def source(self) -> str:
        return self.saes or str(SHIPPED)

    @cached_property
    def feeding(self) -> Bos:
        """`bos`; by default as the SAE says that it was trained, if it does."""
        from ..saes.open import saes_bos

        return saes_bos(self.source) if self.bos == "auto" else self.bos

    @cached_property
    def survey(self) -> Run | None:
        """The newest stored survey of this SAE and model."""
        wanted = {**self.stored_weights.fingerprints(), "saes": self._sae_print}
        same = [
            run
            for run in Store().runs(search.STUDY)
            if wanted.items() <= run.manifest["fingerprints"].items()
        ]
        return newest(same) if same else None

    @cached_property
    def _sae_print(self) -> str:
        from ..saes.open import saes_fingerprint

        return saes_fingerprint(self.source)

    def fingerprints(self) -> dict[str, str]:
        own = {**super().fingerprints(), "saes": self._sae_print}
        return {**own, "survey": self.survey.manifest["key"]} if self.survey else own

    def check(self) -> None:
        super().check()
        assert self.spread
        if self.latents and self.words:
            raise UserError("give --latents or --words, not both")
        if self.words and self.survey is None:
            raise UserError(
                f"--words needs a survey of {self.source}: make one with `interp saes survey`, or "
                "give --latents"
            )
        if not (self.prompts and self.values and min(self.controls, self.sample, self.k) > 0):
            raise UserError("give at least one prompt, value, control, word and latent")
        if not all(math.isfinite(v) and v != 0 for v in self.values):
            raise UserError("--values needs finite numbers other than 0")
        check_prompts(self.prompts)

    def run(self, out: RunWriter) -> dict[str, Any]:
        sae, others = self.opened()
        rows = Rows(self, sae)
        items = list(enumerate(rows.chosen))
        out.facts |= {
            "matched_in": "density" if self.survey else "length",
            "survey": str(self.survey.path) if self.survey else None,
            **({"anyway": others} if others else {}),
        }
        task = _Latents.of(self, latents=tuple(rows.swept(i) for i, _ in items))
        how = (range(len(items)), self.spread, "latent effects", "latents")
        (sweep,) = parted_tables(out, ("effects/sweep",), task, *how)
        length = out.facts["mean_length"]
        each = [rows.about(i) | _summary(sweep, j, length / rows.lengths[j]) for i, j in items]
        table = out.table("effects/latents", each)
        means = out.table("effects/means", _means(table)).set_index("measure")["mean"]
        return {
            "latents": len(table),
            "beats_every_control": int(table["beats"].sum()),
            **{name: float(means[name]) for name in ("gain", "control_mean", "direction")},
        }

    def swept(self, opened: _Opened, chosen: Chosen) -> Iterator[dict[str, Any]]:
        """Rows of `effects/sweep` of a latent."""
        for other, row in chosen.acts:
            for plain in (False, True) if other == chosen.latent else (False,):
                about = {"latent": chosen.latent, "name": f"latent {other}"}
                about |= {"control": other != chosen.latent, "direction": plain}
                unit = opened.length / row
                act = _act(opened, other, unit, plain)
                means = opened.sweep.logprobs(chosen.ids, act)
                for value, logprob in zip((None, *self.values), means, strict=True):
                    yield {**about, "value": value, "logprob": logprob}

    def opened(self) -> tuple[Sae, list[str]]:
        """The SAE, and what it says of itself that does not fit.

        Raises:
            UserError: one that cannot be acted by, or whose rows say no words.
        """
        from ..model.site import HEAD_KINDS, Site
        from ..saes import open_sae
        from ..saes.edits import check_acts, check_latents

        sae = open_sae(self.source, self.own_device)
        check_acts(sae, self.source)
        fits = sae.check_model(self.model, self.source, self.anyway)
        width = self.stored_weights.spec.d_model
        if sae.d_in != width or Site.parse(sae.site).kind in HEAD_KINDS:
            raise UserError(
                f"{self.source} writes {sae.d_in} numbers at {sae.site}, which is not the residual "
                "stream: its rows promote no words"
            )
        if sae.normalises:
            raise UserError(
                f"{self.source} normalises its input ({sae.normalises}), so what a latent writes "
                "has no length of its own: give another SAE"
            )
        check_latents(sae, self.latents)
        named = f"{self.source} is an SAE of {sae.model}, not of {self.model}"
        return sae, [] if fits else [named]

    def length(self, subject: Subject, sae: Sae) -> float:
        """Mean length of the activations at the prompts, where the edits act."""
        batch = subject.tokens(self.prompts)
        site = next(iter(subject.matching([sae.site])))
        counts = subject.counted(batch, sae.no_data(subject.prompting))
        counts[range(len(counts)), batch.mask.int().argmax(1)] = False
        if not counts.any():
            raise UserError("--prompts hold one token each: give longer ones")
        x = subject.capture(batch, [site])[site][counts]
        return float(x.double().norm(dim=-1).mean())


class _Opened(NamedTuple):
    """What a worker keeps from latent to latent."""

    subject: Subject
    sae: Sae
    length: float
    """The mean of the activations."""
    sweep: Sweep


def _act(opened: _Opened, latent: int, unit: float, plain: bool) -> Swept:
    """Acting with a latent at strengths of `unit` activations each."""
    from ..saes.edits import clamp_latent, steer_latent

    act, prompting = steer_latent if plain else clamp_latent, opened.subject.prompting
    return lambda values, where: act(opened.sae, latent, values * unit, prompting, where)


@dataclass(frozen=True)
class _Latents(StudyTask[LatentEffectsConfig]):
    """Makes the rows of a latent."""

    latents: tuple[Chosen, ...]

    def opened(self) -> _Opened:
        sae, _ = self.config.opened()
        config, subject = self.config, self.config.open_here()
        sweep = Sweep(subject, config.prompts, config.values)
        return _Opened(subject, sae, config.length(subject, sae), sweep)

    def made(self, opened: _Opened, part: int) -> Made:
        facts = {**self.config.facts_of(opened.subject), "mean_length": opened.length}
        return Made.of(facts, self.config.swept(opened, self.latents[part]))


def _summary(sweep: pd.DataFrame, latent: int, unit: float) -> dict[str, Any]:
    rows = sweep[sweep["latent"] == latent]
    own = gain_of(rows[~rows["direction"]])._asdict()
    plain = rows[rows["direction"] & rows["value"].notna()]["logprob"].max() - own["logprob"]
    return {**own, "activation": own["value"] * unit, "direction": float(plain)}


def _means(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of `effects/means`."""
    measures = {name: table[name] for name in ("gain", "control_mean", "direction", "beats")}
    for other in ("control_mean", "direction"):
        measures[f"gain - {other}"] = table["gain"] - table[other]
    for name, values in measures.items():
        interval = mean_of(values.to_numpy(float)).columns("mean")
        yield {"measure": name, **interval, "n": len(table), "unit": "latent"}
