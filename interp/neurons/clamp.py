"""Clamp a neuron and watch: the concept's probability, and the text, over a sweep of values.

Source: Davies, 'Decoding specialised feature neurons…': with the 'dog' neuron held up, an instruct
model that is asked for its favourite animal talks of dogs. What is held is the neuron's own
activation: of `29.gate.808` the gate projection's output and of `29.up.808` the up projection's,
before activation and product; of `29.down.808` the down projection's input. Naive equivalent of one
row:

    h = gate_proj(x); h[..., 808] = value; model(...).logits[-1].softmax()[ids of the word].sum()

Tables of the run:
`curve/values.parquet`, one row a (value, prompt): value double (null = not clamped), prompt string,
    probability double (of the word's tokens as the next token, summed), logprob double (its log),
    text string (greedy continuation)
`curve/means.parquet`, one row a value: value, probability and logprob (means over the prompts),
    …_low and …_high (the ends of their 95 % intervals; null with one prompt, which has none), n
    int64 (of prompts), unit string ("prompt": what is resampled)
`curve/activation.parquet`: prompt string, position int64, token string, activation double: the
    neuron's own activation on the prompts, which shows what a large value is
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..model.neuron import NeuronName, check_neuron, clamp_site, parse_neuron
from ..model.tokenizer_files import tokenizer_files
from ..model.vocabulary import check_chat_template, token_strings
from ..runs.parted_tables import Made, parted_tables
from ..runs.study import PartedStudy, TextStudy
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter
from .concepts import word_tokens

if TYPE_CHECKING:
    import pandas as pd

    from ..model.batch import Batch
    from ..model.subject import Subject

TABLES = ("curve/values", "curve/activation")
"""What has rows of each prompt."""


@dataclass(frozen=True)
class ClampConfig(TextStudy, PartedStudy):
    """Hold a neuron at a sweep of values and read a word's probability and the text."""

    STUDY: ClassVar[str] = "neurons.clamp"
    VERSION: ClassVar[int] = 2
    FACTS: ClassVar[dict[str, Any]] = {"word": str}

    neuron: str = "29.gate.808"
    """The neuron, layer.kind.index. The kind says where it is held: at the output of the up or gate
    projection, or at the input of the down projection."""
    prompt: tuple[str, ...] = field(
        default=("What is your favourite animal?",), metadata={"earlier": str}
    )
    """The user's message; with --no-chat, the text to continue. Of several, each is asked by
    itself: the probability is then a mean with an interval."""
    word: str = ""
    """The word whose probability is read. By default the neuron's own first token."""
    value: tuple[float, ...] = (-40.0, -20.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0, 40.0)
    """The values to hold it at."""
    where: Literal["all", "last"] = "all"
    """Hold it at all positions, or from the prompt's last position on."""
    chat: bool = True
    """Put each prompt into the model's chat template."""
    tokens: int = 24
    """Length of the generated texts."""

    def __post_init__(self) -> None:
        """Raise UserError for what is wrong whatever the model is, before it is opened."""
        clamp_site(parse_neuron(self.neuron))
        if not self.value:
            raise UserError("give at least one --value")
        if self.tokens < 1:
            raise UserError(f"--tokens must be at least 1, not {self.tokens}")
        if not all(map(math.isfinite, self.value)):
            raise UserError("--value needs finite numbers")
        if isinstance(self.prompt, str) or not self.prompt:
            raise UserError("give the prompts as a list of at least one text")
        if not all(text.strip() for text in self.prompt):
            raise UserError("the prompt is empty: give --prompt some text")
        if len(set(self.prompt)) < len(self.prompt):
            raise UserError("two of the prompts are the same: give each once")
        if len(set(self.value)) < len(self.value):
            raise UserError("two of the values are the same: give each once")

    def check(self) -> None:
        super().check()
        assert self.spread
        self.checked_neuron()
        folder = self.stored_weights.folder
        if not tokenizer_files(folder):
            raise UserError(f"{self.model} has no tokenizer: a prompt needs one")
        if self.chat:
            check_chat_template(folder, self.model, "--no-chat")

    def run(self, out: RunWriter) -> dict[str, Any]:
        neuron = self.checked_neuron()
        word = self.word or self._first_token(neuron)
        task = _Texts.of(self, ids=tuple(word_tokens(self.stored_weights, word)))
        parts = range((1 + len(self.value)) * len(self.prompt))
        how = (self.spread, f"clamp {neuron}", "texts")
        rows, _ = parted_tables(out, TABLES, task, parts, *how)
        means = out.table("curve/means", _means(rows, (None, *self.value)))
        out.facts["word"] = word
        plain, held = means.iloc[0], means.iloc[1:]
        best = held.iloc[int(held["probability"].argmax())]
        return {
            "word": word,
            "probability_before": float(plain["probability"]),
            "probability_best": float(best["probability"]),
            "value_best": float(best["value"]),
        }

    def batch(self, subject: Subject, text: str) -> Batch:
        """A prompt, as the model gets it."""
        message = {"role": "user", "content": text}
        return subject.chat([message]) if self.chat else subject.tokens(text)

    def activations(self, subject: Subject, prompt: str) -> Iterator[dict[str, Any]]:
        """A prompt's rows of `curve/activation`."""
        neuron, weights = self.checked_neuron(), self.stored_weights
        batch, site = self.batch(subject, prompt), clamp_site(neuron)
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        own = subject.capture(batch, [site])[site][0, :, neuron.neuron].double().tolist()
        for position, (token, value) in enumerate(zip(batch.ids[0].tolist(), own, strict=True)):
            at = {"prompt": prompt, "position": position}
            yield {**at, "token": strings[token], "activation": value}

    def clamped(
        self, subject: Subject, value: float | None, prompt: str, ids: Sequence[int]
    ) -> dict[str, Any]:
        """A row of `curve/values`."""
        from ..model.edits import clamp

        neuron, batch = self.checked_neuron(), self.batch(subject, prompt)
        at, number = clamp_site(neuron), neuron.neuron
        held = () if value is None else (clamp(at, number, value, self.where),)
        with subject.edited(*held):
            logits, new = subject.said(batch, self.tokens)
        logprobs, text = logits[0].double().log_softmax(-1)[list(ids)], subject.text(new[0])
        chance = {"probability": float(logprobs.exp().sum())}
        chance["logprob"] = float(logprobs.logsumexp(0))
        said = math.nan if value is None else value
        return {"value": said, "prompt": prompt, **chance, "text": text}

    def checked_neuron(self) -> NeuronName:
        neuron = parse_neuron(self.neuron)
        check_neuron(neuron, self.stored_weights)
        return neuron

    def _first_token(self, neuron: NeuronName) -> str:
        """The first token of the side on which the vector is more specialised, as in an atlas."""
        from ..directions.sources import neuron_directions

        weights = self.stored_weights
        row = neuron_directions(weights, [neuron]).decode(weights, k=1).iloc[0]
        if math.isnan(row["top_z"]):
            raise UserError(f"{neuron} is a vector of zeros, which spells no word: give --word")
        return str(row["top" if row["top_z"] >= row["bottom_z"] else "bottom"][0])


@dataclass(frozen=True)
class _Texts(StudyTask[ClampConfig]):
    """Makes the rows of TABLES of a prompt that is not clamped, then at every value."""

    ids: tuple[int, ...]
    """Of the word."""

    def opened(self) -> Subject:
        return self.config.open_here()

    def made(self, opened: Subject, part: int) -> Made:
        own = self.config
        at, which = divmod(part, len(own.prompt))
        value, prompt = (None, *own.value)[at], own.prompt[which]
        activations = own.activations(opened, prompt) if value is None else ()
        row = own.clamped(opened, value, prompt, self.ids)
        return Made.of(own.facts_of(opened), [row], activations)


def _means(rows: pd.DataFrame, values: Sequence[float | None]) -> Iterator[dict[str, Any]]:
    """Rows of `curve/means`."""
    from ..runs.intervals import mean_of

    for value in values:
        of = rows["value"].isna() if value is None else rows["value"] == value
        means = {"value": value}
        for name in ("probability", "logprob"):
            means |= mean_of(rows[of][name]).columns(name)
        yield {**means, "n": int(of.sum()), "unit": "prompt"}
