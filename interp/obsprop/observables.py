"""Observables: linear functionals on the logits, n in R^V, and where they start in the stream.

Source: Dunefsky & Cohan, 'Observable propagation'. ' she' - ' he' is {" she": 1, " he": -1}; its
value is n.logits, and in the space behind the final norm it is m0 = W_U^T n. Only the tokens of n
are kept, so m0 costs as many rows of W_U and no [V] vector is made.

A word is looked up as it is written: ' she' (inside a sentence) and 'she' (at its beginning) are
two tokens. A word that is no single token stands for its first one. Both are easy to get wrong,
so `notes` says it and the log warns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
    """What is worth knowing about how the words were looked up."""

    def value(self, logits: Float[Tensor, "... d_vocab"]) -> Float[Tensor, ...]:
        """n.logits"""
        found: Tensor = logits[..., self.ids.to(logits.device)] @ self.weights.to(logits)
        return found

    def start(self, W_U: Float[Tensor, "d_vocab d_model"]) -> Float[Tensor, " d_model"]:
        """m0 = W_U^T n, in float64: what reads the final norm's output."""
        found: Tensor = self.weights.double() @ W_U[self.ids].double()
        return found

    def dense(self, d_vocab: int) -> Float[Tensor, " d_vocab"]:
        """n itself."""
        return torch.zeros(d_vocab, dtype=torch.float64).index_add_(
            0, self.ids, self.weights.double()
        )


def make_observable(name: str, words: Mapping[str, float], weights: Weights) -> Observable:
    """An observable from words and their weights, in a model's vocabulary.

    Raises:
        UserError: no words, a word with no token, words that cancel.
    """
    if not words:
        raise UserError(f"the observable '{name}' has no words: give at least one")
    lookup = _Vocabulary(weights)
    total: dict[int, float] = {}
    notes: list[str] = []
    for word, weight in words.items():
        token, note = lookup.token(word)
        notes += [note] if note else []
        total[token] = total.get(token, 0.0) + float(weight)
    kept = {token: weight for token, weight in total.items() if weight != 0}
    if len(total) < len(words):
        notes.append("some of its words begin with the same token")
    if cap := weights.spec.softcap:
        notes.append(f"its values are of the logits before the model's soft cap of {cap:g}")
    if not kept:
        raise UserError(
            f"the words of the observable '{name}' cancel: they begin with the same token in this "
            "model's vocabulary; choose others"
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


class _Vocabulary:
    """Token of a word: the one that is spelled exactly so, or the first of several."""

    def __init__(self, weights: Weights) -> None:
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        self._exact: dict[str, int] = {}
        for token, text in enumerate(strings):
            self._exact.setdefault(text, token)
        self._strings, self._folder = strings, weights.folder

    def token(self, word: str) -> tuple[int, str]:
        """(the id, what is worth knowing about it)"""
        if word in self._exact:
            spaced = f" {word}"
            if word[:1].isalpha() and spaced in self._exact:
                return self._exact[word], (
                    f"'{word}' is the token without a space before it; inside a sentence the "
                    f"model says '{spaced}'"
                )
            return self._exact[word], ""
        ids = [i for i in self._encode()(word) if self._strings[i].strip()]
        if not ids:
            raise UserError(f"'{word}' has no token in this model's vocabulary: choose another")
        first = self._strings[ids[0]]
        return ids[0], f"'{word}' is {len(ids)} tokens: its first, '{first}', stands for it"

    def _encode(self) -> Callable[[str], list[int]]:
        path = self._folder / "tokenizer.json"
        if not path.exists():
            return lambda word: []
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        return lambda word: list(tokenizer.encode(word, add_special_tokens=False).ids)
