"""How good the SAEs of a site are: reconstruction, loss recovered, and SAEBench's tests.

Karvonen et al., 'SAEBench' (2025), whose definitions these are where it has them; what differs, and
why, is said where it is computed: reconstruction.py, splicing.py, probing.py, perturbation.py and
absorption.py. One pass over the corpus for the first two; the labelled texts (labelled.py) and the
words of the spelling prompts are read beside it.

Written to the run:
`measures.parquet`: sae string, d_sae int64, measure string, value, low, high double, unit string
    (what the 95 % intervals resample: "document"; fewer than three documents: no interval, NaN).
    Measures: those of reconstruction.py and splicing.py, and `dead`, `dense`: the shares of latents
    that are active on none, and on more than a tenth, of the measured tokens, counted over all
    latents, so without an interval
`losses.parquet`: sae, setting string ("original", "zero", "mean", of no SAE; "sae"), ce (nats a
    token), low, high, unit; only if `--spliced` is not 0
`probing.parquet`: sae string ("" for the model), features string ("activations", "latents"), k
    int64 (0: all), class string ("": all classes), accuracy, accuracy_low, accuracy_high double,
    unit ("file", or "text" with --classes); only if `--texts` is not 0, as
`perturbation.parquet`: sae, n int64 (latents set to 0), class ("": the mean over classes),
    intended, unintended, score, each with _low and _high, unit
`absorption.parquet`: sae, letter string ("": the mean over letters), probe_f1 double, words int64
    (tested words that the probe finds), split int64, latents list of int64 (the split latents),
    fraction, full, each with _low and _high, unit ("word"; of the mean "letter"); no rows if the
    model knows no letter; only if `--words` is not 0
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.checkpoint import Checkpoint
from ..runs.intervals import Interval, resampled
from ..runs.writer import RunWriter
from ..saes.study import SaesStudy

if TYPE_CHECKING:
    from ..saes.open import Saes
    from ..text.contexts import ContextStream
    from .measure_pass import MeasurePass

DENSE = 0.1
"""A latent that is active on a larger share of the tokens is dense."""
UNIT = "document"
"""The independent unit that intervals of the corpus resample, as tables name it."""
FEWEST_WORDS = 50
"""Of fewer there is no letter to test on."""
HEADLINES = ("fvu", "l0", "dead", "loss_recovered")
"""Measures among the run's metrics."""


@dataclass(frozen=True)
class MeasureConfig(SaesStudy):
    """Measure the SAEs of a site: FVU, L0, dead latents, loss recovered, and SAEBench's tests."""

    STUDY: ClassVar[str] = "saes.measure"
    VERSION: ClassVar[int] = 1

    tokens: int = 100_000
    """Tokens of the corpus to read: a tenth for the mean of x, the rest measured."""
    spliced: int = 32
    """How many measured contexts, evenly spread, are run again with the site replaced."""
    classes: str = ""
    """A file of texts with the fields text and label; by default packages of Python's library."""
    texts: int = 24
    """Labelled texts of each class, for sparse probing and perturbation (0: neither)."""
    words: int = 800
    """Words in spelling prompts, for absorption (0: none)."""

    def fingerprints(self) -> dict[str, str]:
        from ..text.corpus import fingerprint

        prints = super().fingerprints()
        if self.texts:
            prints["classes"] = fingerprint(self.classes or None)
        return prints

    def check(self) -> None:
        super().check()
        if self.tokens // self.length < 4:
            raise UserError(
                f"{self.tokens} tokens make {self.tokens // self.length} contexts of "
                f"{self.length}: give 4 contexts or more (--tokens), or shorter ones (--length)"
            )
        if self.spliced < 0:
            raise UserError(f"--spliced must be 0 or more, not {self.spliced}")
        if self.texts < 3 and self.texts != 0:  # every third is tested on
            raise UserError(f"--texts must be 0, or 3 or more to test on some, not {self.texts}")
        if self.words < FEWEST_WORDS and self.words != 0:
            raise UserError(
                f"--words must be 0, or {FEWEST_WORDS} or more to test on some, not {self.words}"
            )

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .measure_pass import MeasurePass

        saes = self.opened()
        subject = self.open(out)
        if (self.texts or self.words) and not subject.prompting.reads_text:
            raise UserError(f"{self.model} has no tokenizer: give --texts 0 --words 0")
        stream = self.stream(subject, saes)
        read = MeasurePass(stream, saes, self.tokens // self.length, self.spliced)
        read.read(Checkpoint(out, "pass"))
        rows = out.table("measures", _measures(read))
        if read.losses.sums:
            out.table("losses", _losses(read))
        out.facts |= self._benchmarked(out, stream, saes)
        out.facts |= saes.facts | {
            "names": list(saes.names),
            "site": str(saes.site),
            "measured_tokens": read.tokens,
            "left_out": stream.left_out,
            "documents": {
                "measured": len(read.documents),
                "spliced": len(set(read.losses.documents)),
            },
            "seconds": {name: round(value, 2) for name, value in read.seconds.items()},
        }
        return {
            f"{row['measure']} {row['sae']}": round(row["value"], 4)
            for row in rows[rows["measure"].isin(HEADLINES)].to_dict("records")
        }

    def _benchmarked(self, out: RunWriter, stream: ContextStream, saes: Saes) -> dict[str, Any]:
        """Write the tables of SAEBench's tests; what the manifest says of them."""
        from ..model.vocabulary import token_strings
        from . import benchmark
        from .labelled import labelled_file, python_packages, spelled_words

        facts: dict[str, Any] = {}
        if self.texts:
            given = labelled_file(self.classes, self.texts) if self.classes else None
            given = given or python_packages(self.texts)
            benchmark.class_tables(out, stream, saes, given)
            facts |= {"classes": given.classes, "texts": len(given.texts)}
        if self.words:
            subject = stream.subject
            strings = token_strings(self.stored_weights.folder, subject.spec.d_vocab)
            words = spelled_words(subject.prompting, strings, self.words)
            letters = benchmark.letter_table(out, stream, saes, words)
            facts |= {"letters": letters, "words": len(words.texts)}
        left = [name for name in saes.by_name if name not in benchmark.scaled(saes)]
        if left and facts:
            facts["not perturbed, no absorption: they normalise their input"] = left
        return facts


def columns(found: Interval, name: str = "value", unit: str = UNIT) -> dict[str, Any]:
    """The columns of a value with its interval and the interval's unit."""
    return {name: found.value, "low": found.low, "high": found.high, "unit": unit}


def _measures(read: MeasurePass) -> Iterator[dict[str, Any]]:
    import torch

    drawn = resampled(read.sums.count)
    weights = torch.from_numpy(drawn.weights)
    settled = read.losses.settled() if read.losses.sums else None
    for at, (name, sae) in enumerate(read.saes.by_name.items()):
        found = {
            measure: drawn.interval(values)
            for measure, values in read.sums.measures(at, weights).items()
        }
        found |= settled.measures(at) if settled else {}
        fired = read.sums.fired[at]
        counted = {"dead": fired == 0, "dense": fired > DENSE * read.tokens}
        nan = float("nan")
        found |= {k: Interval(float(v.double().mean()), nan, nan) for k, v in counted.items()}
        for measure, interval in found.items():
            unit = "" if measure in counted else UNIT
            about = {"sae": name, "d_sae": sae.d_sae, "measure": measure}
            yield {**about, **columns(interval, unit=unit)}


def _losses(read: MeasurePass) -> Iterator[dict[str, Any]]:
    from .splicing import BASES

    settled = read.losses.settled()
    settings = [("", base) for base in BASES] + [(name, "sae") for name in read.saes.by_name]
    for at, (sae, setting) in enumerate(settings):
        yield {"sae": sae, "setting": setting, **columns(settled.nats(at), "ce")}
