"""Vectors through the LM head, as rows of an atlas (whose docstring says what the columns are)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.readout import open_readout
from ..model.vocabulary import token_strings, word_family
from ..model.weights import Weights
from .coherence import coherence, whitened


class Decoder:
    """A model's read-out and words, opened once for all layers."""

    def __init__(self, weights: Weights, k: int, all_ids: bool = False, device: str = "cpu"):
        self._k, self._readout = k, open_readout(weights, all_ids).to(device)
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        ids = self._readout.ids.cpu().numpy().astype(np.int32)
        tokens = [strings[i] for i in ids]
        words = [word_family(token) for token in tokens]
        self.vocabulary = pd.DataFrame({"id": ids, "token": tokens, "word": words})
        self._strings = pa.array(strings)
        self._words = pd.factorize(self.vocabulary["word"])[0]

    @cached_property
    def _units(self) -> Tensor:
        return whitened(self._readout.rows)

    def rows(self, vectors: Float[Tensor, "n d_model"], index: pd.DataFrame) -> list[pa.Table]:
        """The top sides of some vectors and their bottom sides, each with the columns of `index`
        first."""
        found = self._readout.project(vectors, self._k)
        moments, numbers = found.moments, {"norm": vectors.norm(dim=1)}
        assert moments is not None
        std = moments.var.sqrt().clamp_min(1e-30)
        sides = []
        for side, sign, extremes in (("top", 1.0, found.top), ("bottom", -1.0, found.bottom)):
            assert extremes is not None
            logits, places = extremes.logits, torch.searchsorted(self._readout.ids, extremes.ids)
            words = self._words[places.cpu().numpy()]
            lead = logits[:, 0] - logits.gather(1, _rival(words).to(places.device))[:, 0]
            numbers |= {
                "z": sign * (logits[:, 0] - moments.mean) / std,
                "std": std,
                "margin": sign * lead / std,
                "coherence": coherence(places, self._units, self._words),
                "skewness": sign * moments.skewness,
                "kurtosis": moments.kurtosis,
            }
            columns: dict[str, Any] = {str(name): pa.array(index[name]) for name in index}
            columns["side"] = pa.array([side] * len(vectors))
            columns |= self._lists(extremes.ids.cpu().numpy(), logits.cpu().numpy())
            columns |= {
                name: pa.array(x.cpu().numpy(), pa.float32()) for name, x in numbers.items()
            }
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
    lengths = vectors[drawn].norm(dim=1, keepdim=True)
    scaled = noise * torch.where(lengths > 0, lengths, 1.0) / noise.norm(dim=1, keepdim=True)
    return drawn, scaled
