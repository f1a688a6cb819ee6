"""Clamp a neuron and watch: the concept's probability, and the text, over a sweep of values.

Source: Davies, 'Decoding specialised feature neurons…': holding the 'dog' neuron up makes an
instruct model talk of dogs when asked for its favourite animal. A neuron `29.gate.808` is held at
its own activation: the gate or up projection's output, before activation and product, or the down
projection's input. Naive equivalent of one row:

    h = gate_proj(x); h[..., 808] = value; model(...).logits[-1].softmax()[ids of the word].sum()

Tables of the run:
`curve/values.parquet`: value double (null = not clamped), probability double (of the word's tokens
    as the next token, summed), logprob double (its log), text string (greedy continuation)
`curve/activation.parquet`: position int64, token string, activation double: the neuron's own
    activation on the prompt, to judge what is a large value
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..model.neuron import NeuronName, parse_neuron
from ..model.vocabulary import token_strings
from ..progress import progress
from ..runs.store import RunWriter
from .concepts import word_tokens

if TYPE_CHECKING:
    import torch

    from ..model.subject import Batch, Subject
    from ..model.weights import Weights


@dataclass(frozen=True)
class ClampConfig:
    """Hold a neuron at a sweep of values and read a word's probability and the text."""

    STUDY: ClassVar[str] = "neurons.clamp"
    VERSION: ClassVar[int] = 1

    model: str = "smollm2-135m"
    """A catalog name, hub id, folder or .gguf file."""
    neuron: str = "29.gate.808"
    """The neuron, layer.kind.index; the kind says where it is held (up, gate, or down's input)."""
    prompt: str = "What is your favourite animal?"
    """The user's message, or with --no-chat the text to continue."""
    word: str = ""
    """The word whose probability is read; by default the neuron's own first token."""
    value: tuple[float, ...] = (-40.0, -20.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0, 40.0)
    """The values to hold it at."""
    where: Literal["all", "last"] = "all"
    """Hold it at all positions, or from the prompt's last one on."""
    chat: bool = True
    """Put the prompt into the model's chat template."""
    tokens: int = 24
    """Length of the generated texts."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    @cached_property
    def _weights(self) -> Weights:
        from ..model.weights import open_weights

        return open_weights(self.model)

    def fingerprints(self) -> dict[str, str]:
        return self._weights.fingerprints()

    def check(self) -> None:
        self._checked()

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..model.subject import open_subject

        neuron = self._checked()
        strings = token_strings(self._weights.folder, self._weights.spec.d_vocab)
        word = self.word or self._first_token(neuron)
        ids = word_tokens(self._weights, word)
        subject = open_subject(self.model, device=self.device)
        batch = self._prompt(subject)
        with out.part("curve/activation.parquet") as path:
            _activation(subject, batch, neuron, strings).to_parquet(path)
        with progress(f"clamp {neuron}", len(self.value) + 1, "values") as advance:
            rows = []
            for value in (None, *self.value):
                rows.append(self._row(subject, batch, neuron, value, ids))
                advance(1, "unclamped" if value is None else f"at {value:g}")
        table = pd.DataFrame(rows)
        with out.part("curve/values.parquet") as path:
            table.to_parquet(path)
        out.facts = {"word": word, "parity": subject.parity, "device": self.device}
        best = max(rows[1:], key=lambda row: row["probability"])
        return {
            "word": word,
            "probability_before": rows[0]["probability"],
            "probability_best": best["probability"],
            "value_best": best["value"],
        }

    def _checked(self) -> NeuronName:
        neuron, spec = parse_neuron(self.neuron), self._weights.spec
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
        """Of the side on which the vector is more specialised."""
        from ..directions.sources import neuron_directions

        row = neuron_directions(self._weights, [neuron]).decode(self._weights, k=1).iloc[0]
        return str(row["top" if row["top_z"] >= row["bottom_z"] else "bottom"][0])

    def _prompt(self, subject: Subject) -> Batch:
        if self.chat:
            return subject.chat([{"role": "user", "content": self.prompt}])
        return subject.tokens(self.prompt)

    def _row(
        self,
        subject: Subject,
        batch: Batch,
        neuron: NeuronName,
        value: float | None,
        ids: list[int],
    ) -> dict[str, Any]:
        from ..model.edits import clamp
        from ..model.neuron import clamp_site

        made = (
            () if value is None else (clamp(clamp_site(neuron), neuron.neuron, value, self.where),)
        )
        with subject.edited(*made):
            probability, logprob = word_probability(subject, batch, ids)
            text = subject.text(subject.generate(batch, self.tokens)[0])
        return {"value": value, "probability": probability, "logprob": logprob, "text": text}


def word_probability(subject: Subject, batch: Batch, ids: list[int]) -> tuple[float, float]:
    """Probability that the next token is one of `ids`, and its log; edits in scope apply."""
    logprobs = subject.logits(batch)[0, -1].double().log_softmax(-1)
    log = float(logprobs[ids].logsumexp(0))
    return float(logprobs[ids].exp().sum()), log


def _activation(subject: Subject, batch: Batch, neuron: NeuronName, strings: list[str]) -> Any:
    import pandas as pd

    from ..model.neuron import clamp_site

    site = clamp_site(neuron)
    values: torch.Tensor = subject.capture(batch, [site])[site][0, :, neuron.neuron]
    ids: Iterator[int] = iter(batch.ids[0].tolist())
    return pd.DataFrame(
        {
            "position": range(len(values)),
            "token": [strings[i] for i in ids],
            "activation": values.double().tolist(),
        }
    )
