"""The tables of a survey, a chunk of latents at a time (`survey.py` says what is in them)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from interp.kernels import project_topk

from ..model.prompting import Prompting
from ..model.readout import Readout, open_readout
from ..model.vocabulary import token_strings, without_string, word_family
from ..model.weights import Weights
from ..progress import log, progress
from ..runs.writer import RunWriter, save_tensors
from ..text.contexts import corpus_rows
from .tallies import BEFORE, WINDOW, Examples

if TYPE_CHECKING:
    from ..saes import Sae
    from .gather import SurveyPass

CHUNK = 4096
"""Latents in a file."""


class Wanted(Protocol):
    """What is asked of the tables: a survey's config."""

    @property
    def stored_weights(self) -> Weights: ...

    @property
    def own_device(self) -> str: ...

    @property
    def prompting(self) -> Prompting: ...

    @property
    def corpus(self) -> str: ...

    @property
    def contexts(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def k(self) -> int: ...

    @property
    def norm(self) -> str: ...

    @property
    def neighbours(self) -> int: ...

    @property
    def neurons(self) -> int: ...


class Finish:
    """What is made of a finished pass, the SAE's weights and the model's."""

    def __init__(self, config: Wanted, gathered: SurveyPass, sae: Sae) -> None:
        self._config, self._gathered, self._sae = config, gathered, sae
        self._weights, self._device = config.stored_weights, config.own_device
        in_stream = sae.d_in == self._weights.spec.d_model
        self._readout = open_readout(self._weights).to(self._device) if in_stream else None
        self._neurons = (
            Neurons(self._weights, self._device) if in_stream and config.neurons else None
        )

    def write(self, out: RunWriter) -> None:
        """Every part that the run does not have yet."""
        out.table_once("vocabulary/tokens", lambda: vocabulary(self._weights))
        contexts = self._contexts()
        if not out.has("contexts.safetensors"):
            with out.part("contexts.safetensors") as path:
                save_tensors(contexts, path)
        log.info("decode the latents, and find their nearest rows and neurons")
        rows = normalize(self._sae.W_dec.float(), eps=1e-30).to(self._device)
        with progress("latents", self._sae.d_sae, "latents") as advance:
            for start in range(0, self._sae.d_sae, CHUNK):
                chosen = slice(start, min(start + CHUNK, self._sae.d_sae))
                name = f"{start // CHUNK:05d}"
                out.table_once(f"latents/{name}", partial(self._latents, chosen, rows))
                out.table_once(f"examples/{name}", partial(self._examples, chosen, contexts))
                advance(chosen.stop - chosen.start)

    def _contexts(self) -> dict[str, Tensor]:
        """The contexts that were read."""
        config = self._config
        ids = torch.zeros(config.contexts, config.length, dtype=torch.int32)
        lengths, document = torch.zeros(2, config.contexts, dtype=torch.int32)
        rows = corpus_rows(config, config.corpus, config.length, config.contexts)
        for place, (number, row) in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            lengths[place], document[place] = len(row), number
        return {"ids": ids, "lengths": lengths.clone(), "document": document.clone()}

    def _latents(self, chosen: slice, rows: Float[Tensor, "n d_in"]) -> pd.DataFrame:
        numbers, tokens = self._gathered.tallies.numbers, self._gathered.tallies.tokens
        count = numbers.count[chosen].numpy()
        fired = np.where(count > 0, 1.0, np.nan)
        there = tokens.times[chosen] > 0
        columns: dict[str, Any] = {
            "latent": np.arange(chosen.start, chosen.stop, dtype=np.int32),
            "count": count,
            "density": count / self._gathered.counted,
            "mean": fired * numbers.total[chosen].numpy() / np.maximum(count, 1),
            "max": fired * self._gathered.tallies.top.value[chosen, 0].abs().double().numpy(),
            "histogram": list(numbers.histogram[chosen].numpy()),
            "fires_on": _ragged(tokens.token[chosen], there),
            "fires_times": _ragged(tokens.times[chosen], there),
            "short": tokens.short[chosen].numpy(),
        }
        columns |= self._promoted(chosen) | self._near(chosen, rows)
        columns |= dict(zip(("coactive", "coactive_times"), self._coactive(chosen), strict=True))
        return pd.DataFrame(columns)

    def _promoted(self, chosen: slice) -> dict[str, Any]:
        """Top and bottom tokens."""
        names = [f"{side}_{part}" for side in ("top", "bottom") for part in ("ids", "logits", "z")]
        if self._readout is None:
            return dict.fromkeys(names)
        vectors = self._sae.W_dec[chosen].float().to(self._device)
        if self._config.norm == "final":
            vectors = vectors * self._weights.gain("final").to(vectors.device)
        return decoded(self._readout, vectors, min(self._config.k, len(self._readout.ids)))

    def _near(self, chosen: slice, rows: Float[Tensor, "n d_in"]) -> dict[str, Any]:
        """Nearest decoder rows and nearest neurons."""
        columns: dict[str, Any] = dict.fromkeys(
            ("neighbours", "neighbour_cosines", "neurons", "neuron_cosines")
        )
        wanted = min(self._config.neighbours, len(rows) - 1)
        if wanted > 0:
            ids, cosines = nearest(rows[chosen], rows, wanted + 1)
            own = ids == np.arange(chosen.start, chosen.stop)[:, None]
            own[~own.any(1), -1] = True  # another row is the same vector: the last one goes
            shape = (len(ids), wanted)
            columns["neighbours"] = list(ids[~own].reshape(shape))
            columns["neighbour_cosines"] = list(cosines[~own].reshape(shape))
        if self._neurons is not None:
            names, near = self._neurons.nearest(rows[chosen], self._config.neurons)
            columns |= {"neurons": names, "neuron_cosines": list(near)}
        return columns

    def _coactive(self, chosen: slice) -> tuple[list[list[int]], list[list[int]]]:
        top = self._gathered.tallies.top
        found = [
            Counter(others[others >= 0].flatten().tolist()) for others in top.companions[chosen]
        ]
        # the most frequent first, of equal ones the lowest number
        ordered = [sorted(each.items(), key=lambda item: (-item[1], item[0])) for each in found]
        best = [each[: max(self._config.neighbours, 1)] for each in ordered]
        return [[i for i, _ in each] for each in best], [[n for _, n in each] for each in best]

    def _examples(self, chosen: slice, contexts: dict[str, Tensor]) -> pd.DataFrame:
        return pd.DataFrame(list(self._each_example(chosen, contexts)))

    def _each_example(self, chosen: slice, contexts: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
        tallies = self._gathered.tallies
        for latent in range(chosen.start, chosen.stop):
            for kind, kept in (("top", tallies.top), ("bin", tallies.binned)):
                for rank in kept.value[latent].nonzero()[:, 0].tolist():
                    about = {"latent": np.int32(latent), "kind": kind, "rank": np.int16(rank)}
                    yield about | _shown(kept, latent, rank, contexts)


def _shown(kept: Examples, latent: int, slot: int, contexts: dict[str, Tensor]) -> dict[str, Any]:
    """One example with the part of its window that is inside its context."""
    context, position = int(kept.context[latent, slot]), int(kept.position[latent, slot])
    first, last = position - BEFORE, position - BEFORE + WINDOW
    start, stop = max(first, 0), min(last, int(contexts["lengths"][context]))
    values = kept.window[latent, slot].float()[start - first : stop - first]
    return {
        "value": np.float32(kept.value[latent, slot]),
        "context": np.int32(context),
        "position": np.int32(position),
        "document": np.int32(contexts["document"][context]),
        "start": np.int32(start),
        "ids": contexts["ids"][context, start:stop].numpy(),
        "values": values.numpy(),
    }


def decoded(readout: Readout, vectors: Float[Tensor, "n d_model"], k: int) -> dict[str, Any]:
    """Columns of the tokens that vectors raise and lower most."""
    found = readout.decode(vectors, k)
    columns: dict[str, Any] = {}
    for name, side in (("top", found.top), ("bottom", found.bottom)):
        columns[f"{name}_ids"] = list(side.ids.cpu().numpy().astype(np.int32))
        columns[f"{name}_logits"] = list(found.logits(side).float().cpu().numpy())
        columns[f"{name}_z"] = found.z(side).abs().float().cpu().numpy()
    return columns


def nearest(
    rows: Float[Tensor, "n d"], others: Float[Tensor, "m d"], k: int
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The k of some unit vectors with the largest cosines, and these."""
    found = project_topk(rows, others, k, sides=("top",), stats=False).top
    assert found is not None
    return found.ids.cpu().numpy().astype(np.int32), found.logits.cpu().numpy()


class Neurons:
    """What every MLP neuron writes, layer by layer: the memory of one layer's vectors."""

    def __init__(self, weights: Weights, device: str) -> None:
        self._weights, self._device = weights, device

    def nearest(
        self, rows: Float[Tensor, "n d_model"], k: int
    ) -> tuple[list[list[str]], Float[np.ndarray, "n k"]]:
        """Of each unit vector the neurons with the largest absolute cosine, and their cosines."""
        best, names = torch.zeros(len(rows), 0), np.empty((len(rows), 0), object)
        for layer in range(self._weights.spec.n_layers):
            for bank in self._weights.banks(layer):
                own = self._weights.in_stream("down", layer, bank.expert).float()
                unit = normalize(own, eps=1e-30).to(self._device)
                cosines, ids = self._extremes(rows, unit, min(k, len(unit)))
                prefix = ".".join(filter(None, (str(layer), bank.expert, "down")))
                called = np.array([f"{prefix}.{i}" for i in range(len(unit))], object)
                best = torch.cat([best, cosines], 1)
                names = np.concatenate([names, called[ids.numpy()]], 1)
                order = best.abs().sort(dim=1, descending=True, stable=True).indices[:, :k]
                best, names = best.gather(1, order), np.take_along_axis(names, order.numpy(), 1)
        return [list(row) for row in names], best.numpy()

    @staticmethod
    def _extremes(
        rows: Float[Tensor, "n d"], unit: Float[Tensor, "m d"], k: int
    ) -> tuple[Float[Tensor, "n k2"], Int[Tensor, "n k2"]]:
        found = project_topk(rows, unit, k, stats=False)
        assert found.top is not None
        assert found.bottom is not None
        both = (found.top, found.bottom)
        cosines = torch.cat([side.logits for side in both], 1).cpu()
        ids = torch.cat([side.ids.long() for side in both], 1).cpu()
        # of few neurons both ends name the same ones
        twice = torch.zeros_like(ids, dtype=torch.bool)
        twice[:, k:] = (ids[:, k:, None] == ids[:, None, :k]).any(2)
        return cosines.masked_fill(twice, 0.0), ids


def vocabulary(weights: Weights) -> pd.DataFrame:
    """Every token id that stands for a text, its text and its word family."""
    size = weights.spec.d_vocab
    strings, absent = token_strings(weights.folder, size), set(without_string(weights.folder, size))
    ids = [i for i in range(size) if i not in absent]
    tokens = [strings[i] for i in ids]
    words = [word_family(token) for token in tokens]
    return pd.DataFrame({"id": np.array(ids, np.int32), "token": tokens, "word": words})


def _ragged(values: Int[Tensor, "n k"], there: Tensor) -> list[np.ndarray]:
    return [row[kept].numpy() for row, kept in zip(values, there, strict=True)]
