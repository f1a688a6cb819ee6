"""Clamp a neuron and watch: the concept's probability, and the text, over a sweep of values.

Source: Davies, 'Decoding specialised feature neurons…': with the 'dog' neuron held up, an instruct
model that is asked for its favourite animal talks of dogs. What is held is the neuron's own
activation: of `29.gate.808` the gate projection's output and of `29.up.808` the up projection's,
before activation and product; of `29.down.808` the down projection's input. Naive equivalent of one
row:

    h = gate_proj(x); h[..., 808] = value; model(...).logits[-1].softmax()[ids of the word].sum()

Tables of the run:
`curve/values.parquet`: value double (null = not clamped), probability double (of the word's tokens
    as the next token, summed), logprob double (its log), text string (greedy continuation)
`curve/activation.parquet`: position int64, token string, activation double: the neuron's own
    activation on the prompt, which shows what a large value is
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..model.neuron import NeuronName, clamp_site, parse_neuron
from ..model.vocabulary import token_strings
from ..progress import progress
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .concepts import word_tokens

if TYPE_CHECKING:
    from ..model.subject import Batch, Subject


@dataclass(frozen=True)
class ClampConfig(TextStudy):
    """Hold a neuron at a sweep of values and read a word's probability and the text."""

    STUDY: ClassVar[str] = "neurons.clamp"
    VERSION: ClassVar[int] = 1

    neuron: str = "29.gate.808"
    """The neuron, layer.kind.index. The kind says where it is held: at the output of the up or gate
    projection, or at the input of the down projection."""
    prompt: str = "What is your favourite animal?"
    """The user's message; with --no-chat, the text to continue."""
    word: str = ""
    """The word whose probability is read. By default the neuron's own first token."""
    value: tuple[float, ...] = (-40.0, -20.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0, 40.0)
    """The values to hold it at."""
    where: Literal["all", "last"] = "all"
    """Hold it at all positions, or from the prompt's last position on."""
    chat: bool = True
    """Put the prompt into the model's chat template."""
    tokens: int = 24
    """Length of the generated texts."""

    def check(self) -> None:
        super().check()
        self._checked_neuron()

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        neuron, weights = self._checked_neuron(), self.stored_weights
        word = self.word or self._first_token(neuron)
        ids = word_tokens(weights, word)
        subject, site = self.open(out), clamp_site(neuron)
        message = {"role": "user", "content": self.prompt}
        batch = subject.chat([message]) if self.chat else subject.tokens(self.prompt)
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        tokens = [strings[i] for i in batch.ids[0].tolist()]
        own = subject.capture(batch, [site])[site][0, :, neuron.neuron].double().tolist()
        activation = {"position": range(len(own)), "token": tokens, "activation": own}
        out.table("curve/activation", pd.DataFrame(activation))
        rows = self._swept(subject, batch, neuron, ids)
        out.table("curve/values", rows)
        out.facts["word"] = word
        best = max(rows[1:], key=lambda row: row["probability"])
        return {
            "word": word,
            "probability_before": rows[0]["probability"],
            "probability_best": best["probability"],
            "value_best": best["value"],
        }

    def _swept(
        self, subject: Subject, batch: Batch, neuron: NeuronName, ids: list[int]
    ) -> list[dict[str, Any]]:
        """Rows of `curve/values`: not clamped, then at every value."""
        from ..model.edits import clamp

        rows, site = [], clamp_site(neuron)
        with progress(f"clamp {neuron}", len(self.value) + 1, "values") as advance:
            for value in (None, *self.value):
                held = () if value is None else (clamp(site, neuron.neuron, value, self.where),)
                with subject.edited(*held):
                    logprobs = subject.logits(batch)[0, -1].double().log_softmax(-1)[ids]
                    text = subject.text(subject.generate(batch, self.tokens)[0])
                row = {"value": value, "probability": float(logprobs.exp().sum())}
                rows.append({**row, "logprob": float(logprobs.logsumexp(0)), "text": text})
                advance(1, "unclamped" if value is None else f"at {value:g}")
        return rows

    def _checked_neuron(self) -> NeuronName:
        neuron, spec = parse_neuron(self.neuron), self.stored_weights.spec
        if neuron.kind not in spec.kinds:
            raise UserError(
                f"{self.model} has no '{neuron.kind}' neurons, only {', '.join(spec.kinds)}"
            )
        if neuron.layer >= spec.n_layers or neuron.neuron >= spec.d_mlp:
            raise UserError(
                f"no {neuron} in {self.model}: layers 0..{spec.n_layers - 1}, neurons "
                f"0..{spec.d_mlp - 1}"
            )
        if not self.value or self.tokens < 1:
            raise UserError("give at least one --value and at least one token")
        if not all(map(math.isfinite, self.value)):
            raise UserError("--value needs finite numbers")
        if not self.prompt.strip():
            raise UserError("the prompt is empty: give --prompt some text")
        return neuron

    def _first_token(self, neuron: NeuronName) -> str:
        """The first token of the side on which the vector is more specialised."""
        from ..directions.sources import neuron_directions

        weights = self.stored_weights
        row = neuron_directions(weights, [neuron]).decode(weights, k=1).iloc[0]
        return str(row["top" if row["top_z"] >= row["bottom_z"] else "bottom"][0])
