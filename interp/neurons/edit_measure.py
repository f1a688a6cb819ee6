"""What an edit of weights does: to the prompts of concepts, and to ordinary text.

The layers before the edited ones are run once for all edits (`Again`), and what is known of an edit
is not measured again: the model as it is stands at the beginning of every set of edits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.again import Again
from ..model.subject import Subject
from ..runs.intervals import mean_of
from ..text.corpus import read_corpus, token_rows
from .concepts import Concept, word_tokens
from .weight_edits import WeightEdit

Rows = list[dict[str, Any]]
ROWS = 4
"""So many contexts of ordinary text go through the model at once."""


class EditMeasure:
    """Measures edits of a subject's weights.

    Args:
        corpus: ordinary text: a file or a folder; "" for the installed Python's own.
        tokens: how many of it.
    """

    def __init__(self, subject: Subject, corpus: str, tokens: int) -> None:
        self._subject = subject
        self._divergence = _kl_meter(subject, corpus, tokens)
        self._passes: dict[tuple[str, ...], Again] = {}
        self._known: dict[Hashable, Any] = {}

    def __call__(
        self, edit: WeightEdit, concepts: Sequence[Concept]
    ) -> tuple[list[Rows], dict[str, Any]]:
        """For every concept the rows of its prompts and of its neighbour's; the divergence."""
        made = (edit.neurons, edit.new.numpy().tobytes())
        changed = min((neuron.layer for neuron in edit.neurons), default=None)

        def once(what: str, measure: Callable[[], Any]) -> Any:
            if (made, what) not in self._known:
                self._known[made, what] = measure()
            return self._known[made, what]

        with edit.applied(self._subject):
            asked = [
                once(concept.word, lambda c=concept: list(self._asked(c, changed)))  # type: ignore[misc]
                for concept in concepts
            ]
            return asked, once("", lambda: self._divergence(changed))

    def _asked(self, concept: Concept, changed: int | None) -> Iterator[dict[str, Any]]:
        """The probability of the concept's and of its neighbour's word on their own prompts."""
        both = ((concept.word, concept.prompts), (concept.neighbour, concept.neighbour_prompts))
        for word, prompts in both:
            assert self._subject.weights is not None
            ids, key = word_tokens(self._subject.weights, word), tuple(prompts)
            if key not in self._passes:
                self._passes[key] = Again(self._subject, self._subject.tokens(prompts))
            logprobs = self._passes[key].logits(changed)[:, -1].double().log_softmax(-1)
            of_word = logprobs[:, ids].logsumexp(-1)
            for prompt, logprob in zip(prompts, of_word.tolist(), strict=True):
                chance = float(math.exp(logprob))
                yield {"word": word, "prompt": prompt, "probability": chance, "logprob": logprob}


def _kl_meter(subject: Subject, corpus: str, tokens: int) -> Callable[[int | None], dict[str, Any]]:
    """Measures KL(plain || as the model is at the call) in nats, after every token of ordinary text
    but the first of each row; what follows a BOS or another special token is no text. It is called
    with the first layer that is edited."""
    length = min(128, tokens, subject.context or 128)
    packed = token_rows(read_corpus(corpus or None), subject.prompting, length, tokens)
    document, rows = zip(*packed.numbered, strict=True)
    batches = [subject.pad(rows[start : start + ROWS]) for start in range(0, len(rows), ROWS)]
    counted = [subject.counted(batch) for batch in batches]
    for where in counted:
        where[:, 0] = False
    sizes = torch.cat([where.sum(1) for where in counted]).cpu().numpy()
    _, group = np.unique(np.repeat(document, sizes), return_inverse=True)
    passes = [Again(subject, batch) for batch in batches]

    def logprobs(changed: int | None) -> Iterator[Tensor]:
        for again, where in zip(passes, counted, strict=True):
            yield again.logits(changed)[where].log_softmax(-1)

    plain = list(logprobs(None))

    def divergence(changed: int | None) -> dict[str, Any]:
        pairs = zip(plain, logprobs(changed), strict=True)
        values = torch.cat([(p.exp() * (p - now)).sum(-1) for p, now in pairs])
        sums = np.bincount(group, weights=values.double().cpu())
        mean = mean_of(sums, np.bincount(group)).columns("kl_mean")
        about = {"documents": len(sums), "kl_unit": "document"}
        return {"kl_median": float(values.median()), **mean, **about}

    return divergence
