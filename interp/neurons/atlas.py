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

`neurons/L000.parquet` …, one file a layer, or for a wide one `L000-000.parquet` …, one a slice
    (`slices.py`), one row per (layer, kind, neuron, side):
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
    norm float         length of the vector that is decoded: with a gain or a lens, after it (of a
                       down vector: of what one unit of activation adds)
`random/L000.parquet` …, the same columns: a random direction in the place of each of some neurons
    of the layer, as long as the neuron's is before a gain or a lens
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..model.places import Kind
from ..model.vocabulary import has_text, without_string
from ..plain_numbers import size_said
from ..progress import Advance, in_words, log, progress
from ..runs.store import Run, Store
from ..runs.study import ModelStudy, PartedStudy, plan, run_or_load
from ..runs.workers import map_parts
from ..runs.writer import RunWriter
from .slices import NUMBERS, VOCABULARY, Part, Slice, slices

if TYPE_CHECKING:
    from ..lens.lens import Lens

FOLDERS = ("random", "neurons")
"""Of a layer's tables, in the order that they are made in."""
TOKENS = "vocabulary/tokens.parquet"
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
        parts = {part: file for layer in range(spec.n_layers) for part, file in self._files(layer)}
        missing = {
            part: file
            for part, file in parts.items()
            if not all(out.has(f"{folder}/{file}") for folder in FOLDERS)
        }
        sizes = {part: self.slices(part.layer)[part.number].vectors for part in parts}
        started, total = time.monotonic(), sum(sizes.values())
        ahead = sum(sizes[part] for part in missing)
        self._announce(ahead)
        with progress(f"atlas of {self.model}", total, "vectors", total - ahead) as advance:
            self._write(out, missing, sizes, advance)
        decoded = time.monotonic() - started
        write_index(out, AtlasTables.of_folder(out.path, list(parts.values())))
        out.facts = {"model": spec.facts, "kinds": list(kinds), "device": self.own_device}
        if self.lens:
            out.facts["lens"] = self.opened_lens.about
        layers = len({part.layer for part in missing})
        return {
            "vectors": total,
            "layers_computed": layers,
            "layers_resumed": spec.n_layers - layers,
            "atlas_s": round(decoded, 2),
            "index_s": round(time.monotonic() - started - decoded, 2),
        }

    def _write(
        self, out: RunWriter, names: dict[Part, str], sizes: dict[Part, int], advance: Advance
    ) -> None:
        """Write the tables of these slices as they are finished. The read-outs leave memory before
        the index is made."""
        from .making import Slices

        files = {part: [f"{folder}/{names[part]}" for folder in FOLDERS] for part in names}
        if not out.has(TOKENS):
            files = {VOCABULARY: [TOKENS], **files}
        for part, tables in map_parts(Slices.of(self), list(files), self.spread, advance):
            for name, content in zip(files[part], tables, strict=True):
                with out.part(name) as path:
                    path.write_bytes(content)
            if part != VOCABULARY:
                advance(sizes[part], f"layer {part.layer}")

    @property
    def worker_bytes(self) -> int:
        from .memory import worker_bytes

        spec = self.stored_weights.spec
        return worker_bytes(spec, [s for i in range(spec.n_layers) for s in self.slices(i)])

    def slices(self, layer: int) -> list[Slice]:
        """What of a layer is decoded at once: all of it in most models."""
        weights = self.stored_weights
        layers, banks = weights.spec.n_layers, weights.banks(layer)
        random = self.random // layers + (layer < self.random % layers)
        return slices(banks, self.kinds, weights.spec.d_model, random, NUMBERS)

    def _files(self, layer: int) -> Iterator[tuple[Part, str]]:
        """The parts of a layer, and the name of the tables of each."""
        count = len(self.slices(layer))
        for number in range(count):
            own = f"-{number:03d}" if count > 1 else ""
            yield Part(layer, number), f"L{layer:03d}{own}.parquet"

    def _announce(self, vectors: int) -> None:
        from .memory import shared_bytes

        spec, cores = self.stored_weights.spec, os.cpu_count() or 1
        what = f"{vectors:,} vectors through {self._tokens():,} tokens"
        seconds = 2 * vectors * spec.d_vocab * spec.d_model / (FLOPS_A_CORE * cores)
        about = f"; about {in_words(seconds)} on {cores} cores" if self.own_device == "cpu" else ""
        log.info("atlas of %s: %s%s", self.model, what, about)
        if self.spread.beside:
            log.info(
                "each worker takes at most %s, beside %s that those of a machine share",
                *map(size_said, (self.worker_bytes, shared_bytes(spec))),
            )
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
