"""The neuron atlas: every MLP neuron of a model decoded through its LM head.

Source: Davies, 'Decoding specialised feature neurons in LLMs with the final projection layer'. For
a neuron's vector w in residual space, `logits = W_U @ w`, then softmax. The decoded vectors are the
rows of `up_proj` and `gate_proj` (what a neuron reads) and the columns of `down_proj` (what it
writes), each with both signs, since in SwiGLU the product takes either. Naive equivalent, for one
layer and kind, of what one part of the atlas holds:

    L = W_kind(layer) @ W_U.T;  L.topk(k), (-L).topk(k), softmax statistics, moments

Tables of the run:

`neurons/L000.parquet` …, one file a layer, one row per (layer, kind, neuron, side):
    layer int16, kind string (up | gate | down), neuron int32
    side string        top: the vector itself; bottom: its negation
    ids list<int32>[k] token ids, most extreme first, equal logits by the lowest id
    tokens list<string>[k], logits list<float>[k]    (logits of the vector, not negated)
    z float            distance of the first logit from the row's mean, in row standard deviations
    std float          standard deviation of the row's logits
    margin float       the lead of the first token over the best of the k tokens that is of another
                       word family, in the same unit; where all k are of one family, over the k-th
    skewness, kurtosis float    of the row's logits (excess; skewness signed by the side)
    entropy float      of the softmax of the (signed) logits, in nats; log(V) where it is uniform
    max_prob float     the largest probability of that softmax
    norm float         length of the vector
`vocabulary/tokens.parquet`: id int32, token string, word string (its word family)

z, margin, skewness and kurtosis do not depend on the vector's length; entropy and max_prob do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..model.vocabulary import token_strings, word_family
from ..progress import progress
from ..runs.study import ModelStudy
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from interp.kernels import Projection

Kind = Literal["up", "gate", "down"]


@dataclass(frozen=True)
class AtlasConfig(ModelStudy):
    """Decode every MLP neuron of a model through its LM head."""

    STUDY: ClassVar[str] = "neurons.atlas"
    VERSION: ClassVar[int] = 2

    weights: tuple[Kind, ...] = ()
    """The vectors of a neuron to decode: up, gate, down. By default all that the model has."""
    norm: Literal["raw", "final", "mlp"] = "raw"
    """The norm whose gain multiplies the vectors: none, the final one, or the one before the
    MLP."""
    k: int = 16
    """The number of tokens to keep for each vector and side."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds decoded, in the order up, gate, down."""
        has = self.stored_weights.spec.kinds
        absent = [kind for kind in self.weights if kind not in has]
        if absent:
            raise UserError(f"{self.model} has no '{absent[0]}' neurons, only {', '.join(has)}")
        return tuple(kind for kind in has if kind in (self.weights or has))  # type: ignore[misc]

    def check(self) -> None:
        vocabulary = self.stored_weights.spec.d_vocab
        assert self.kinds
        super().check()
        if not 2 <= self.k <= vocabulary:
            raise UserError(f"k must be between 2 and the vocabulary's {vocabulary}, not {self.k}")
        token_strings(self.stored_weights.folder, vocabulary)

    def run(self, out: RunWriter) -> dict[str, Any]:
        import numpy as np
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        weights, spec, kinds = self.stored_weights, self.stored_weights.spec, self.kinds
        tokens = token_strings(weights.folder, spec.d_vocab)
        ids = np.arange(len(tokens), dtype=np.int32)
        words = [word_family(token) for token in tokens]
        vocabulary = pd.DataFrame({"id": ids, "token": tokens, "word": words})
        out.table_once("vocabulary/tokens", lambda: vocabulary)
        strings, word_codes = pa.array(tokens), pd.factorize(vocabulary["word"])[0]
        parts = [f"neurons/L{layer:03d}.parquet" for layer in range(spec.n_layers)]
        missing = [layer for layer, part in enumerate(parts) if not out.has(part)]
        per_layer, resumed = len(kinds) * spec.d_mlp, spec.n_layers - len(missing)
        readout = weights.W_U().to(self.device)
        started, total = time.monotonic(), per_layer * spec.n_layers
        with progress(f"atlas of {self.model}", total, "vectors", per_layer * resumed) as advance:
            for layer in missing:
                vectors = self._vectors(layer, kinds)
                projection = _project(vectors, readout, self.k)
                table = _table(layer, kinds, vectors, projection, strings, word_codes)
                with out.part(parts[layer]) as path:
                    pq.write_table(table, path, compression="zstd")
                advance(per_layer, f"layer {layer}")
        out.facts = {"model": spec.facts, "kinds": list(kinds), "device": self.device}
        return {
            "vectors": total,
            "layers_computed": len(missing),
            "layers_resumed": resumed,
            "atlas_s": round(time.monotonic() - started, 2),
        }

    def _vectors(self, layer: int, kinds: tuple[Kind, ...]) -> Tensor:
        """[len(kinds) * d_mlp, d_model], kind by kind, times the norm's gain."""
        import torch

        weights = self.stored_weights
        vectors = torch.cat([weights.neurons(kind, layer) for kind in kinds])
        if self.norm != "raw":
            vectors *= weights.gain("mlp", layer) if self.norm == "mlp" else weights.gain("final")
        return vectors


def _project(vectors: Tensor, readout: Tensor, k: int) -> Projection:
    from interp.kernels import project_topk

    try:
        return project_topk(vectors.to(readout.device), readout, k)
    except ValueError as error:
        raise UserError(f"these weights cannot be decoded: {error}") from error


def _table(
    layer: int,
    kinds: tuple[Kind, ...],
    vectors: Tensor,
    projection: Projection,
    tokens: pa.Array,
    word_codes: np.ndarray,
) -> pa.Table:
    """One layer's rows: all top sides, then all bottom sides."""
    import numpy as np
    import pyarrow as pa

    moments, d_mlp = projection.moments, len(vectors) // len(kinds)
    assert moments is not None
    mean, std = (x.cpu().numpy() for x in (moments.mean, moments.var.sqrt().clamp_min(1e-30)))
    index = {
        "layer": np.full(len(vectors), layer, np.int16),
        "kind": np.repeat(kinds, d_mlp),
        "neuron": np.tile(np.arange(d_mlp, dtype=np.int32), len(kinds)),
    }
    sides = []
    for side, sign, extremes in (("top", 1.0, projection.top), ("bottom", -1.0, projection.bottom)):
        assert extremes is not None
        ids, logits = extremes.ids.cpu().numpy(), extremes.logits.cpu().numpy()
        others = word_codes[ids] != word_codes[ids[:, :1]]
        rival = np.where(others.any(1), others.argmax(1), ids.shape[1] - 1)
        lead = logits[:, 0] - np.take_along_axis(logits, rival[:, None], 1)[:, 0]
        flat = pa.array(ids.ravel(), pa.int32())
        starts = pa.array(np.arange(0, ids.size + 1, ids.shape[1]), pa.int32())
        lists = {"ids": flat, "tokens": tokens.take(flat), "logits": pa.array(logits.ravel())}
        numbers = {
            "z": sign * (logits[:, 0] - mean) / std,
            "std": std,
            "margin": sign * lead / std,
            "skewness": sign * moments.skewness.cpu(),
            "kurtosis": moments.kurtosis.cpu(),
            "entropy": extremes.entropy.cpu(),  # type: ignore[union-attr]
            "max_prob": extremes.max_prob.cpu(),  # type: ignore[union-attr]
            "norm": vectors.norm(dim=1),
        }
        columns = {**index, "side": [side] * len(vectors)}
        columns |= {name: pa.ListArray.from_arrays(starts, x) for name, x in lists.items()}
        columns |= {name: pa.array(np.asarray(x), pa.float32()) for name, x in numbers.items()}
        sides.append(pa.table(columns))
    return pa.concat_tables(sides)
