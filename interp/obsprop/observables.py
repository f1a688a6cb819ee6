"""Observables: linear functionals on the logits, n in R^V, and where they start in the stream.

Source: Dunefsky & Cohan, 'Observable propagation'. ' she' - ' he' is {" she": 1, " he": -1}; its
value is n.logits, and in the space behind the final norm it is m0 = W_U^T n. Only the tokens of n
are kept, so m0 costs as many rows of W_U and no [V] vector is made.

A word is looked up as it is written: ' she' (inside a sentence) and 'she' (at its beginning) are
two tokens. Of a word of several tokens the first one counts. Both are easy to get wrong, so
`notes` names such words and the log warns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.vocabulary import token_strings
from ..model.weights import Weights

log = logging.getLogger("interp")


@dataclass(frozen=True)
class Observable:
    """n, by the token ids it is not zero at."""

    name: str
    ids: Int[Tensor, " tokens"]
    weights: Float[Tensor, " tokens"]
    notes: tuple[str, ...] = ()
    """Remarks on how the words were looked up, for the reader."""

    def value(self, logits: Float[Tensor, "... d_vocab"]) -> Float[Tensor, ...]:
        """n.logits"""
        value: Tensor = logits[..., self.ids.to(logits.device)] @ self.weights.to(logits)
        return value

    def start(self, W_U: Float[Tensor, "d_vocab d_model"]) -> Float[Tensor, " d_model"]:
        """m0 = W_U^T n, in float64: what reads the final norm's output."""
        m0: Tensor = self.weights.double() @ W_U[self.ids].double()
        return m0


def make_observable(name: str, words: Mapping[str, float], weights: Weights) -> Observable:
    """An observable from words and their weights, in a model's vocabulary.

    Raises:
        UserError: no words, a word with no token, words that cancel.
    """
    if not words:
        raise UserError(f"the observable '{name}' has no words: give at least one")
    strings = token_strings(weights.folder, weights.spec.d_vocab)
    exact = {text: token for token, text in reversed(list(enumerate(strings)))}
    total: dict[int, float] = {}
    notes: list[str] = []
    for word, weight in words.items():
        token, note = _token(word, exact, strings, weights.folder)
        notes += [note] if note else []
        total[token] = total.get(token, 0.0) + float(weight)
    kept = {token: weight for token, weight in total.items() if weight != 0}
    if len(total) < len(words):
        notes.append("some of its words begin with the same token; their weights are added")
    spec = weights.spec
    if spec.logit_scale != 1:
        notes.append(f"its values are those before the model's factor of {spec.logit_scale:g}")
    if spec.softcap:
        notes.append(f"its values are those before the model's soft cap of {spec.softcap:g}")
    if not kept:
        raise UserError(
            f"the words of the observable '{name}' begin with the same token in this model's "
            "vocabulary, and their weights add up to 0: choose others"
        )
    for note in notes:
        log.warning("observable %s: %s", name, note)
    ids, values = torch.tensor(list(kept)), torch.tensor(list(kept.values()), dtype=torch.float64)
    return Observable(name, ids, values, tuple(notes))


def contrast(plus: Sequence[str], minus: Sequence[str]) -> dict[str, float]:
    """Words against words: weights +1 and -1.

    Raises:
        UserError: a word on both sides.
    """
    if both := sorted(set(plus) & set(minus)):
        raise UserError(f"'{both[0]}' is on both sides: give it once")
    return dict.fromkeys(plus, 1.0) | dict.fromkeys(minus, -1.0)


def _token(
    word: str, exact: Mapping[str, int], strings: Sequence[str], folder: Path
) -> tuple[int, str]:
    """The token that is spelled exactly so, or the first of several: (its id, a remark or "")."""
    if word in exact:
        spaced = f" {word}"
        if word[:1].isalpha() and spaced in exact:
            return exact[word], f"'{word}' has no space before it; in a sentence it is '{spaced}'"
        return exact[word], ""
    file, ids = folder / "tokenizer.json", []
    if file.exists():
        from tokenizers import Tokenizer

        coded = Tokenizer.from_file(str(file)).encode(word, add_special_tokens=False)
        ids = [i for i in coded.ids if strings[i].strip()]
    if not ids:
        raise UserError(f"'{word}' has no token in this model's vocabulary: choose another")
    first = strings[ids[0]]
    return ids[0], f"'{word}' is {len(ids)} tokens: only the first, '{first}', counts"
