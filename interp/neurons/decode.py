"""Vectors through the LM head, as rows of an atlas (whose docstring says what the columns are)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.readout import Decoded, Readout, levelled, open_readout
from ..model.vocabulary import token_strings, word_family
from ..model.weights import Weights
from ..runs.workers_lent import Lent, tensor
from .coherence import coherence, whitened


class Found(NamedTuple):
    """What vectors score, before it is rows of an atlas; a thread can make these."""

    decoded: Decoded
    lengths: Float[Tensor, " n"]
    which: pd.DataFrame


class Decoder:
    """A model's read-out and words, opened once for all layers. What only the rows need is made
    when they are first asked for.

    Args:
        lent: what `lent` of another decoder gives; else it is made.
    """

    def __init__(
        self,
        weights: Weights,
        k: int,
        all_ids: bool = False,
        device: str = "cpu",
        lent: Lent | None = None,
    ) -> None:
        own = Readout(tensor(lent["rows"]), tensor(lent["ids"])) if lent else None
        self._k, self._readout = k, (own or open_readout(weights, all_ids)).to(device)
        self._weights, self._lent = weights, lent

    @cached_property
    def _units(self) -> Float[Tensor, "tokens d_model"]:
        lent, rows = self._lent, self._readout.rows
        return tensor(lent["units"]).to(rows.device) if lent else whitened(rows)

    @cached_property
    def _strings(self) -> pa.Array:
        return pa.array(token_strings(self._weights.folder, self._weights.spec.d_vocab))

    @cached_property
    def vocabulary(self) -> pd.DataFrame:
        """The table of the tokens: id, token, word."""
        ids = self._readout.ids.cpu().numpy().astype(np.int32)
        tokens = self._strings.take(pa.array(ids)).to_pylist()
        words = [word_family(token) for token in tokens]
        return pd.DataFrame({"id": ids, "token": tokens, "word": words})

    @cached_property
    def _words(self) -> np.ndarray:
        return pd.factorize(self.vocabulary["word"])[0]

    def lent(self) -> Lent:
        """What decoders of the same model can share: 6 bytes for each number of the unembedding."""
        shared = {**self._readout._asdict(), "units": self._units}
        return {name: each.cpu().numpy() for name, each in shared.items()}

    def find(self, vectors: Float[Tensor, "n d_model"], index: pd.DataFrame) -> Found:
        """What vectors score: all that needs them, and most of the work.

        Args:
            index: which each of them is.
        """
        return Found(self._readout.decode(vectors, self._k), lengths(vectors), index)

    def rows(self, of: Found) -> list[pa.Table]:
        """The top sides of some vectors and their bottom sides, each with the columns of its index
        first.

        Raises:
            UserError: logits or a length beyond what float32 holds.
        """
        found, index = of.decoded, of.which
        moments, std = found.moments, found.std
        own_std = moments.var.sqrt().double() * found.scale
        there = torch.ones_like(std).where(own_std >= torch.finfo(torch.float32).tiny, torch.nan)
        numbers, sides = {"norm": of.lengths, "std": own_std}, []
        for side, sign, extremes in (("top", 1.0, found.top), ("bottom", -1.0, found.bottom)):
            logits, places = extremes.logits, torch.searchsorted(self._readout.ids, extremes.ids)
            words = self._words[places.cpu().numpy()]
            lead = logits[:, 0] - logits.gather(1, _rival(words).to(places.device))[:, 0]
            numbers |= {
                "z": there * sign * found.z(extremes),
                "margin": there * sign * lead / std,
                "coherence": there * coherence(places, self._units, self._words),
                "skewness": there * sign * moments.skewness,
                "kurtosis": there * moments.kurtosis,
            }
            columns: dict[str, Any] = {str(name): pa.array(index[name]) for name in index}
            columns["side"] = pa.array([side] * len(index))
            own = _checked(found.logits(extremes))
            columns |= self._lists(extremes.ids.cpu().numpy(), own.cpu().numpy())
            columns |= {name: _column(x) for name, x in numbers.items()}
            sides.append(pa.table(columns))
        return sides

    def _lists(self, ids: np.ndarray, logits: np.ndarray) -> dict[str, pa.Array]:
        flat = pa.array(ids.ravel(), pa.int32())
        starts = pa.array(np.arange(0, ids.size + 1, ids.shape[1]), pa.int32())
        lists = {
            "ids": flat,
            "tokens": self._strings.take(flat),
            "logits": pa.array(logits.ravel()),
        }
        return {name: pa.ListArray.from_arrays(starts, values) for name, values in lists.items()}


def lengths(vectors: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Of short and long vectors alike, in float64."""
    near_one, scale = levelled(vectors)
    found: Tensor = near_one.norm(dim=1).double() * scale.to(vectors.device)
    return found


def _checked(numbers: Tensor) -> Tensor:
    """In float32, in which they are stored."""
    stored = numbers.float()
    if stored.isinf().any():
        raise UserError(
            "these weights cannot be decoded: a vector's length or logits are beyond float32's "
            "3.4e38"
        )
    return stored


def _column(numbers: Tensor) -> pa.Array:
    """Null where there is no number."""
    return pa.array(_checked(numbers).cpu().numpy(), from_pandas=True)


def _rival(words: np.ndarray) -> Tensor:
    """[n, 1], the place in each list [n, k] of the first token of another word; the last where all
    are of one."""
    others = words != words[:, :1]
    return torch.from_numpy(np.where(others.any(1), others.argmax(1), words.shape[1] - 1)[:, None])


def random_like(
    vectors: Float[Tensor, "m d_model"], n: int, seed: Sequence[int]
) -> tuple[np.ndarray, Float[Tensor, "n d_model"]]:
    """n random directions (Gaussian, so uniform over the sphere), each of the length of one drawn
    from `vectors`: the rows that were drawn, and the directions. For a zero vector length 1."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(vectors), size=n)
    noise = torch.from_numpy(generator.standard_normal((n, vectors.shape[1]), np.float32))
    drawn_lengths = lengths(vectors[drawn]).float()[:, None]
    scaled = noise * torch.where(drawn_lengths > 0, drawn_lengths, 1.0)
    return drawn, scaled / noise.norm(dim=1, keepdim=True)
