"""The neuron atlas: every MLP neuron of a model decoded through its LM head.

Source: Davies, 'Decoding specialised feature neurons in LLMs with the final projection layer'. For
a neuron's vector w in residual space, `logits = W_U @ w`, then softmax. The decoded vectors are the
rows of `up_proj` and `gate_proj` (what a neuron reads) and the columns of `down_proj` (what it
writes), each with both signs, since in SwiGLU the product takes either. A column of `down_proj` is
what it adds to the stream: times the gain of the norm after the MLP and the family's factor, where
there are such (`Weights.in_stream`). Naive equivalent, for one layer and kind, of what one part of
the atlas holds:

    L = in_stream(kind, layer) @ W_U.T;  L.topk(k), (-L).topk(k), moments

With a lens the vectors are carried from their layer to the last one first, and so are the random
directions beside them: `L = (in_stream(kind, layer) @ T.T * gain) @ W_U.T`, of `interp.lens.lens`.

Beside the neurons stand random directions, decoded in the same pass: how special a score is, is
read off them (`chance.py`).

Tables of the run:

`neurons/L000.parquet` …, one file a layer, one row per (layer, kind, neuron, side):
    layer int16, kind string (up | gate | down), neuron int32
    expert string      only of a model with experts: e0, e1, …, shared; "" in its dense layers
    side string        top: the vector itself; bottom: its negation
    ids list<int32>[k] token ids, most extreme first, equal logits by the lowest id
    tokens list<string>[k], logits list<float>[k]    (logits of the vector, not negated)
    z float            distance of the first logit from the row's mean, in row standard deviations
    std float          standard deviation of the row's logits
    margin float       the lead of the first token over the best of the k tokens that is of another
                       word family, in the same unit; where all k are of one family, over the k-th
    coherence float    how much the k tokens belong together (`coherence.py`), from -1 to 1; null
                       where all are of one word family
    skewness, kurtosis float    of the row's logits (excess; skewness signed by the side)
    norm float         length of the vector (of a down vector: of what one unit of activation adds)
`random/L000.parquet` …, the same columns: a random direction in the place of each of some neurons
    of the layer, of the neuron's length
`vocabulary/tokens.parquet`: id int32, token string, word string (its word family); ids that are no
    token are not in it, and count nowhere, unless `all_ids` is set
`index/*.parquet`: what makes a search quick (`indexing.py`)

No column but std and norm (and the logits) depends on the vector's length, however short or long.
A row of zeros, or one whose std float32 cannot hold (below 1.2e-38), is no neuron and spells
nothing: its z, margin, coherence, skewness and kurtosis are null, so it never ranks. The softmax of
a raw vector depends on its length, so it is not kept: where the logits are small, its entropy is
log V - std^2 / 2.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..model.site import Site
from ..model.vocabulary import has_text, without_string
from ..progress import in_words, log, progress
from ..runs.parts import file_of, write_table
from ..runs.store import Run, Store
from ..runs.study import ModelStudy, PartedStudy, plan, run_or_load
from ..runs.workers import map_parts
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from ..lens.lens import Lens
    from .decode import Decoder

Kind = Literal["up", "gate", "down"]
FOLDERS = ("random", "neurons")
"""Of a layer's tables, in the order that they are made in."""
TOKENS, VOCABULARY = "vocabulary/tokens.parquet", -1
"""The table of the tokens, and its number among the parts."""
FLOPS_A_CORE = 5e10
"""Operations a second, for an estimate: 4.6e10 with SmolLM2 and 8.9e10 with Gemma 3 270M, measured
on two cores of an x86 server."""


@dataclass(frozen=True)
class AtlasConfig(ModelStudy, PartedStudy):
    """Decode every MLP neuron of a model through its LM head."""

    STUDY: ClassVar[str] = "neurons.atlas"
    VERSION: ClassVar[int] = 4
    FACTS: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("model.n_layers", "model.d_mlp"), int),
        **dict.fromkeys(("model.n_experts", "model.d_expert", "model.d_shared"), int),
        "model": dict[str, Any], "kinds": list[str], "metrics.vectors": int,
        "lens": dict[str, Any], "lens.name": str, "lens.prompts": int, "lens.file": str,
    }  # fmt: skip

    weights: tuple[Kind, ...] = ()
    """The vectors of a neuron to decode: up, gate, down. By default all that the model has."""
    norm: Literal["raw", "final", "mlp"] = "raw"
    """The norm whose gain multiplies the vectors: none, the final one, or the one before the
    MLP."""
    lens: str = field(default="", metadata={"key": False})
    """The lens that reads the vectors, each from its own layer: raw or final; tuned or jacobian,
    the model's newest fit or the shipped one; a run's folder or key; or a .safetensors or .pt
    file. By default none, which is raw. Its fingerprint is part of the key."""
    k: int = 16
    """The number of tokens to keep for each vector and side."""
    random: int = 512
    """The number of random directions for each kind, spread over the layers."""
    seed: int = 0
    """Seed of the random directions."""
    all_ids: bool = False
    """Also decode to ids that are no token: rows that fill the vocabulary up to its size."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds decoded, in the order up, gate, down."""
        has = self.stored_weights.spec.kinds
        absent = [kind for kind in self.weights if kind not in has]
        if absent:
            raise UserError(f"{self.model} has no '{absent[0]}' neurons, only {', '.join(has)}")
        return tuple(kind for kind in has if kind in (self.weights or has))  # type: ignore[misc]

    @cached_property
    def opened_lens(self) -> Lens:
        """`lens`; without one the raw one."""
        from ..lens.files import open_lens

        return open_lens(self.lens or "raw", self.stored_weights)

    def fingerprints(self) -> dict[str, str]:
        plain = self.lens in ("", "raw")  # the atlas without a lens
        lens = {} if plain else {"lens": self.opened_lens.identity}
        return {**super().fingerprints(), **lens}

    def check(self) -> None:
        assert self.kinds
        super().check()
        assert self.spread
        if self.lens and self.norm != "raw":
            raise UserError(f"--lens says which gain there is: leave out --norm {self.norm}")
        tokens = self._tokens()
        if not 2 <= self.k <= tokens:
            raise UserError(f"k must be between 2 and the vocabulary's {tokens}, not {self.k}")
        if self.random < 1:
            raise UserError(f"--random must be at least 1, not {self.random}")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .indexing import AtlasTables, write_index

        spec, kinds = self.stored_weights.spec, self.kinds
        names = [f"L{layer:03d}.parquet" for layer in range(spec.n_layers)]
        missing = [
            layer
            for layer, name in enumerate(names)
            if not (out.has(f"random/{name}") and out.has(f"neurons/{name}"))
        ]
        sizes = [self._vectors(layer) for layer in range(spec.n_layers)]
        started, total, ahead = time.monotonic(), sum(sizes), sum(sizes[i] for i in missing)
        self._announce(ahead)
        with progress(f"atlas of {self.model}", total, "vectors", total - ahead) as advance:
            self._write_layers(out, {layer: names[layer] for layer in missing}, sizes, advance)
        decoded = time.monotonic() - started
        write_index(out, AtlasTables.of_folder(out.path, names))
        out.facts = {"model": spec.facts, "kinds": list(kinds), "device": self.device}
        if self.lens:
            out.facts["lens"] = self.opened_lens.about
        return {
            "vectors": total,
            "layers_computed": len(missing),
            "layers_resumed": spec.n_layers - len(missing),
            "atlas_s": round(decoded, 2),
            "index_s": round(time.monotonic() - started - decoded, 2),
        }

    def _write_layers(
        self,
        out: RunWriter,
        names: dict[int, str],
        sizes: list[int],
        advance: Callable[..., None],
    ) -> None:
        """Write the tables of these layers as they are finished. The read-outs leave memory before
        the index is made."""
        files = {layer: [f"{folder}/{names[layer]}" for folder in FOLDERS] for layer in names}
        if not out.has(TOKENS):
            files = {VOCABULARY: [TOKENS], **files}
        task = _Layers(replace(self), tuple(self.fingerprints().items()))
        for layer, tables in map_parts(task, list(files), self.spread, log.warning):
            for name, content in zip(files[layer], tables, strict=True):
                with out.part(name) as path:
                    path.write_bytes(content)
            if layer != VOCABULARY:
                advance(sizes[layer], f"layer {layer}")

    def _vectors(self, layer: int) -> int:
        """How many vectors a layer has, of the kinds decoded."""
        return len(self.kinds) * sum(bank.size for bank in self.stored_weights.banks(layer))

    def _announce(self, vectors: int) -> None:
        spec, cores = self.stored_weights.spec, os.cpu_count() or 1
        what = f"{vectors:,} vectors through {self._tokens():,} tokens"
        seconds = 2 * vectors * spec.d_vocab * spec.d_model / (FLOPS_A_CORE * cores)
        about = f"; about {in_words(seconds)} on {cores} cores" if self.own_device == "cpu" else ""
        log.info("atlas of %s: %s%s", self.model, what, about)
        if not has_text(self.stored_weights.folder, spec.d_vocab):
            log.warning(
                "%s has no tokenizer: its tokens are written #0, #1, …, and `neurons search` finds "
                "no word; if it should have one, put tokenizer.json into its folder",
                self.model,
            )

    def _tokens(self) -> int:
        """How many ids are decoded to."""
        size, folder = self.stored_weights.spec.d_vocab, self.stored_weights.folder
        absent = len(without_string(folder, size))
        return size if self.all_ids else size - absent

    def decoded(self, layer: int, decoder: Decoder) -> Iterator[pa.Table]:
        """One layer's random directions and its neurons (FOLDERS) as tables, decoded in one pass; a
        layer of experts expert by expert."""
        import pyarrow as pa

        layers, banks = self.stored_weights.spec.n_layers, self.stored_weights.banks(layer)
        share = self.random // layers + (layer < self.random % layers)
        parts = [
            self._bank(layer, bank.expert, share // len(banks) + (i < share % len(banks)), decoder)
            for i, bank in enumerate(banks)
        ]
        for tables in zip(*parts, strict=True):
            yield pa.concat_tables(tables)

    def _bank(
        self, layer: int, expert: str, random: int, decoder: Decoder
    ) -> tuple[pa.Table, pa.Table]:
        """Random directions and neurons of a layer's MLP or of one of its experts."""
        import numpy as np
        import pandas as pd
        import pyarrow as pa
        import torch

        from .decode import random_like

        weights = self.stored_weights
        vectors, numbers, randoms, drawn = [], [], [], []
        for kind in self.kinds:
            rows = weights.in_stream(kind, layer, expert)
            seed = [self.seed, layer, *f"{expert}{kind}".encode()]
            places, directions = random_like(rows, random, seed)
            vectors.append(rows)
            numbers.append(np.arange(len(rows)))
            randoms.append(directions)
            drawn.append(places)
        of_kind = np.repeat(2 * self.kinds, [len(places) for places in (*numbers, *drawn)])
        index = {"layer": np.full(len(of_kind), layer, np.int16), "kind": of_kind}
        if weights.spec.n_experts:
            index["expert"] = np.full(len(of_kind), expert)
        index["neuron"] = np.concatenate([*numbers, *drawn]).astype(np.int32)
        every = torch.cat([*vectors, *randoms])
        if self.lens:
            every = self.opened_lens.vectors(every, Site("mlp_out", layer))
        elif self.norm != "raw":
            every *= weights.gain("mlp", layer) if self.norm == "mlp" else weights.gain("final")
        sides = decoder.rows(every, pd.DataFrame(index))
        neurons = sum(map(len, vectors))
        return (
            pa.concat_tables([side.slice(neurons) for side in sides]),
            pa.concat_tables([side.slice(0, neurons) for side in sides]),
        )


@dataclass(frozen=True)
class _Layers:
    """Makes the tables of an atlas's layers as the bytes of their files."""

    config: AtlasConfig
    prints: tuple[tuple[str, str], ...]
    """The fingerprints that the run is of."""

    def open(self) -> Decoder:
        from .decode import Decoder

        own = self.config
        own.check_same(dict(self.prints))
        return Decoder(own.stored_weights, own.k, own.all_ids, own.own_device)

    def make(self, opened: Decoder, part: int) -> list[bytes]:
        """The files of a layer, as FOLDERS has them; of VOCABULARY the one table of the tokens."""
        from .indexing import write_rows

        if part == VOCABULARY:
            return [file_of(lambda file: write_table(opened.vocabulary, file))]
        tables = self.config.decoded(part, opened)
        return [file_of(partial(write_rows, rows)) for rows in tables]


def stored_or_made(wanted: AtlasConfig, purpose: str) -> Run:
    """A stored atlas with the rows of the one that is wanted; without one, it is made, and a line
    says so first.

    Other kinds of vectors, and other random directions, may stand beside those rows.

    Args:
        purpose: what needs it.
    """
    planned = plan(wanted)
    same = [run for run in Store().runs(wanted.STUDY) if _same_rows(run.manifest, planned)]
    for run in same:
        if run.manifest["key"] != planned["key"] and set(wanted.kinds) <= set(
            run.manifest["kinds"]
        ):
            log.info("%s: the atlas in %s has what is needed", purpose, run.path)
            return run
    if not any(run.manifest["key"] == planned["key"] for run in same):
        has = "; ".join(f"one has {' and '.join(run.manifest['kinds'])} only" for run in same)
        kinds = ", ".join(wanted.kinds)
        log.info(
            "%s: needs an atlas of %s with %s, and makes it: none is stored%s",
            *(purpose, wanted.model, kinds, f" ({has}: --weights takes those)" if has else ""),
        )
    return run_or_load(wanted)


def _same_rows(manifest: dict[str, Any], planned: dict[str, Any]) -> bool:
    """Whether two atlases have the same rows of the same vectors."""
    settings = ("norm", "k", "all_ids")
    return all(manifest[part] == planned[part] for part in ("version", "fingerprints")) and all(
        manifest["config"][name] == planned["config"][name] for name in settings
    )
