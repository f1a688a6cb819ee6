"""Do concept neurons do what they say? Clamp sweeps of many, with random neurons as a control.

For every word of a list, the atlas's best-scoring neuron (`search.find`) is held at every value of
a sweep, at all positions, over a few neutral prompts; `directions.sweep` says what its gain is. The
controls are random other neurons of the same layer and kind, read for the same word.

Tables of the run:
`effects/neurons.parquet`, one row a word: word, name, side, score, logprob (unclamped mean), gain,
    value (where it is reached), control_mean, control_max (gains of the controls), beats (whether
    the gain exceeds every control's)
`effects/sweep.parquet`, one row a (word, neuron, value): word, name, control bool, value, logprob
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..directions.sweep import PROMPTS, Sweep, check_prompts, gain_of
from ..errors import UserError
from ..model.neuron import NeuronName, parse_neuron
from ..model.places import Kind
from ..runs.parted_tables import Made, parted_tables
from ..runs.query import word_ids
from ..runs.study import PartedStudy, TextStudy, plan
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter
from . import search
from .atlas import AtlasConfig, stored_or_made
from .concepts import word_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ..model.subject import Subject


@dataclass(frozen=True)
class EffectsConfig(TextStudy, PartedStudy):
    """Clamp the best neuron of every word of a list, and random neurons beside it."""

    STUDY: ClassVar[str] = "neurons.effects"
    VERSION: ClassVar[int] = 2

    weights: tuple[Kind, ...] = ()
    """The vectors among which the best neuron is looked for. By default all that the model has. A
    stored atlas that has them is used; without one, it is made."""
    lens: str = field(default="", metadata={"key": False})
    """The lens of the atlas in which it is looked for, as `interp neurons atlas` takes it."""
    k: int = field(default=16, metadata={"key": False})
    """Tokens a side of the atlas; its key is part of this one."""
    up_to: int = field(default=-1, metadata={"key": False})
    """The last layer in which it is looked for, part of the key where it is set; -1 for all."""
    words: tuple[str, ...] = (
        *("dog", "music", "Python", "Monday", "doctor", "water"),
        *("school", "money", "war", "church", "king", "blood"),
    )
    """The concepts; each is represented by its best-scoring neuron."""
    prompts: tuple[str, ...] = PROMPTS
    """Neutral texts; the word's probability is read after each."""
    values: tuple[float, ...] = (-60.0, -30.0, -10.0, 10.0, 30.0, 60.0)
    """The values to hold a neuron at."""
    controls: int = 5
    """The number of random neurons of the same layer and kind for each word."""
    seed: int = 0
    """Seed of the random neurons."""

    @property
    def atlas(self) -> AtlasConfig:
        """The atlas that has what is needed and no more."""
        return AtlasConfig(
            model=self.model, weights=self.weights, lens=self.lens, k=self.k, device=self.device
        )

    def fingerprints(self) -> dict[str, str]:
        layers = {"up to layer": str(self.up_to)} if self.up_to >= 0 else {}
        return {"atlas": plan(self.atlas)["key"], **layers, **self.start_print()}

    def check(self) -> None:
        super().check()
        assert self.spread
        assert self.atlas.kinds
        if not (self.words and self.prompts and self.values and self.controls > 0):
            raise UserError("give at least one word, prompt, value and control")
        if not all(map(math.isfinite, self.values)):
            raise UserError("--values needs finite numbers")
        check_prompts(self.prompts)
        weights = self.stored_weights
        weights.check_dense("neurons effects")
        if self.controls >= weights.spec.d_mlp:
            raise UserError(f"a layer has only {weights.spec.d_mlp - 1} neurons for --controls")
        tokens = [tuple(word_tokens(weights, word)) for word in self.words]
        if len(set(tokens)) < len(tokens):
            raise UserError("two of the --words are the same: give each once")

    def run(self, out: RunWriter) -> dict[str, Any]:
        atlas = stored_or_made(self.atlas, "clamp effects")
        kinds = self.atlas.kinds
        last = self.up_to if self.up_to >= 0 else None
        found = (search.find(atlas, word, limit=1, kinds=kinds, up_to=last) for word in self.words)
        chosen = [rows.iloc[0] for rows in found]
        words = tuple(
            Word(word, tuple(word_ids(atlas, word)), row["name"])
            for word, row in zip(self.words, chosen, strict=True)
        )
        task, how = _Words.of(self, words=words), (self.spread, "clamp effects", "words")
        (sweep,) = parted_tables(out, ("effects/sweep",), task, range(len(words)), *how)
        picked = zip(self.words, chosen, strict=True)
        table = out.table("effects/neurons", [_summary(sweep, word, row) for word, row in picked])
        out.facts["atlas"] = str(atlas.path)
        return {
            "words": len(table),
            "beats_every_control": int(table["beats"].sum()),
            "median_gain": float(table["gain"].median()),
            "median_control_gain": float(table["control_mean"].median()),
        }

    def swept(self, sweep: Sweep, i: int, word: Word) -> Iterator[dict[str, Any]]:
        """Rows of `effects/sweep` of the i-th word."""
        own = parse_neuron(word.neuron)
        for neuron in (own, *self._controls(own, i)):
            label = {"word": word.word, "name": str(neuron), "control": neuron != own}
            means = _logprobs(sweep, neuron, word.ids)
            for value, logprob in zip((None, *self.values), means, strict=True):
                yield {**label, "value": value, "logprob": logprob}

    def _controls(self, own: NeuronName, i: int) -> list[NeuronName]:
        import numpy as np

        others = [n for n in range(self.stored_weights.spec.d_mlp) if n != own.neuron]
        drawn = np.random.default_rng([self.seed, i]).choice(others, self.controls, replace=False)
        return [own._replace(neuron=int(n)) for n in drawn]


class Word(NamedTuple):
    """What is swept of a word."""

    word: str
    ids: tuple[int, ...]
    neuron: str
    """Its best-scoring one."""


@dataclass(frozen=True)
class _Words(StudyTask[EffectsConfig]):
    """Makes the rows of a word."""

    words: tuple[Word, ...]

    def opened(self) -> tuple[Subject, Sweep]:
        subject = self.config.open_here()
        return subject, Sweep(subject, self.config.prompts, self.config.values)

    def made(self, opened: tuple[Subject, Sweep], part: int) -> Made:
        subject, sweep = opened
        rows = self.config.swept(sweep, part, self.words[part])
        return Made.of(self.config.facts_of(subject), rows)


def _logprobs(sweep: Sweep, neuron: NeuronName, ids: Sequence[int]) -> list[float]:
    """Unclamped, then at each value."""
    from ..model.edits import clamp
    from ..model.neuron import clamp_site

    at, number = clamp_site(neuron), neuron.neuron
    return sweep.logprobs(ids, lambda values, where: clamp(at, number, values, where))


def _summary(sweep: pd.DataFrame, word: str, row: pd.Series) -> dict[str, Any]:
    about = {"word": word, "name": row["name"], "side": row["side"], "score": float(row["score"])}
    return {**about, **gain_of(sweep[sweep["word"] == word])._asdict()}
