"""SAEBench's tests on labelled texts and on words: what is read, and the tables made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..runs.checkpoint import Checkpoint
from ..runs.writer import RunWriter
from ..saes.open import Saes
from ..text.contexts import ContextStream
from .absorption import letter_rows, truths_of
from .labelled import Labelled, Words, text_rows
from .means import Codes, gathered
from .perturbation import Perturbed, perturbation_rows
from .pooled import Pooled
from .probing import ClassProbes, probing_rows

LENGTH = 128
"""Tokens of a labelled text, at most."""


def class_tables(out: RunWriter, stream: ContextStream, saes: Saes, given: Labelled) -> None:
    """Sparse probing, and targeted probe perturbation of the SAEs whose latents have x's scale."""
    rows = list(text_rows(stream.subject.prompting, given.texts, LENGTH))
    own = replace(stream, left_out=0)
    x, codes = gathered(own, saes, rows, Checkpoint(out, "texts"), "labelled texts")
    probes = ClassProbes(Pooled(x, given.label, given.unit, given.tested))
    out.table("probing", probing_rows(probes, codes, given.classes, given.unit_name))
    out.table("perturbation", _perturbed(probes, saes, codes, given))


def _perturbed(
    probes: ClassProbes, saes: Saes, codes: Codes, given: Labelled
) -> Iterator[dict[str, Any]]:
    for name in scaled(saes):
        perturbed = Perturbed(probes, codes[name], saes.by_name[name].W_dec)
        yield from perturbation_rows(name, perturbed, given.classes, given.unit_name)


def letter_table(out: RunWriter, stream: ContextStream, saes: Saes, words: Words) -> list[str]:
    """Absorption of the SAEs whose latents have x's scale; the letters that could be judged."""
    own = replace(stream, longest=0.0, positions=_last, left_out=0)
    x, codes = gathered(own, saes, words.rows, Checkpoint(out, "words"), "spelling prompts")
    pooled = Pooled(x, words.label, words.label, words.tested)
    truths = truths_of(pooled)
    rows = (
        row
        for name in scaled(saes)
        for row in letter_rows(name, pooled, codes[name], saes.by_name[name].W_dec, truths)
    )
    out.table("absorption", rows)
    return list(truths)


def scaled(saes: Saes) -> list[str]:
    """The SAEs whose latents have the scale of x: those that do not normalise their input."""
    return [name for name, sae in saes.by_name.items() if not sae.normalises]


def _last(length: int) -> range:
    return range(length - 1, length)
