"""Canonical weight views, read tensor by tensor from safetensors files without building the model.

Conventions: the unembedding `W_U` is [d_vocab, d_model]; every neuron matrix is one *row a
neuron* in residual space, [d_mlp, d_model]: rows of the stored up and gate projections, columns of
the down projection. Heads come apart: `W_V` [n_kv_heads, d_head, d_model] reads the stream (after
the input norm), `W_O` [n_heads, d_model, d_head] writes to it; head h uses the values of kv head
h // (n_heads / n_kv_heads). A bias that is not stored is zero. Norm gains are the effective ones
(Gemma's stored gain + 1). All are float32 on the CPU, but `norm`, whose sum needs float64 to be
exact. Peak memory is that of the tensor asked for plus a 64 MiB slice.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from .catalog import resolve
from .families import FAMILIES, ModelSpec, read_spec
from .files import sha256
from .folder import check_folder
from .tensor_files import read_tensor, remembered_sha256
from .tokenizer_files import tokenizer_files

Kind = Literal["up", "gate", "down"]
NormKind = Literal["attn", "attn_post", "mlp", "mlp_post", "final"]


class NormWeights(NamedTuple):
    """What a norm does to the normalised vector: times gain, plus offset (float64)."""

    gain: Float[Tensor, " d_model"]
    offset: Float[Tensor, " d_model"]


class Weights:
    """The weights of one model folder, by canonical name.

    Raises:
        UserError: no plain checkpoint of a known family (`check_folder`), a tensor that is missing
            or has the wrong shape.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config, self._shard_of = check_folder(folder)
        self.spec: ModelSpec = read_spec(config)
        self._family = FAMILIES[self.spec.model_type]
        embed = self._family.embed
        stored = next(
            (n for n in (embed, embed.removeprefix(self._family.prefix)) if n in self), ""
        )
        # multi-modal checkpoints: the same names behind, or with, another prefix
        nested = [n for n in self._shard_of if n.endswith(f".{embed.removeprefix('model.')}")]
        self._embed = stored or (nested[0] if len(nested) == 1 else embed)
        last = self._stored(self._family.up.format(self.spec.n_layers - 1))
        if last not in self:
            layers = self.spec.n_layers
            raise UserError(f"{folder} has no tensor '{last}', but its config.json {layers} layers")

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._shard_of

    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Token embeddings."""
        return self._read(self._family.embed, (self.spec.d_vocab, self.spec.d_model))

    def W_U(self) -> Float[Tensor, "d_vocab d_model"]:
        """The unembedding (LM head); the embedding where they are tied and no head is stored."""
        if self.spec.tied and self._stored(self._family.head) not in self:
            return self.W_E()
        return self._read(self._family.head, (self.spec.d_vocab, self.spec.d_model))

    def neurons(self, kind: Kind, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """One row a neuron: the vector it reads with (up, gate) or writes (down)."""
        if kind not in self.spec.kinds:
            raise UserError(
                f"a {self.spec.model_type} model has no '{kind}' neurons, only "
                + ", ".join(self.spec.kinds)
            )
        name, _, row_per_neuron = self.neuron_matrix(kind, layer)
        shape = (self.spec.d_mlp, self.spec.d_model)
        matrix = self._read(name, shape if row_per_neuron else shape[::-1])
        return matrix if row_per_neuron else matrix.T.contiguous()

    def neuron_matrix(self, kind: Kind, layer: int) -> tuple[str, str, bool]:
        """Where `neurons` are stored: the matrix's name in transformers' causal-LM class, its name
        in the files, and whether a neuron is a row of it (a column otherwise)."""
        name = self._at(getattr(self._family, kind), layer)
        return name, self._stored(name), (kind == "down") == self._family.transposed

    def shard(self, stored: str) -> Path:
        """The file that holds a tensor, by its name in the files."""
        return self._shard_of[stored]

    def before_unembedding(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What the unembedding reads where the stream ends in x: the final norm, in float64."""
        norm, x = self.norm("final"), x.double()
        assert norm is not None
        centred = x - x.mean(-1, keepdim=True) if self.spec.norm == "layer" else x
        scale = (centred.square().mean(-1, keepdim=True) + self.spec.eps).sqrt()
        normed: Tensor = centred / scale * norm.gain + norm.offset
        return normed

    def bias(self, kind: Kind, layer: int) -> Float[Tensor, " width"]:
        """Of a projection of the MLP: [d_mlp] for up and gate, [d_model] for down."""
        width = self.spec.d_model if kind == "down" else self.spec.d_mlp
        return self._bias(self._at(getattr(self._family, kind), layer), width)

    def W_V(self, layer: int) -> Float[Tensor, "n_kv_heads d_head d_model"]:
        """What the heads read: the values are W_V x + b_V."""
        shape = (self._value_width, self.spec.d_model)
        transposed = self._family.transposed
        name = self._at(self._family.value, layer)
        matrix = self._read(name, shape[::-1] if transposed else shape)
        return self._values(matrix.T if transposed else matrix).contiguous()

    def b_V(self, layer: int) -> Float[Tensor, "n_kv_heads d_head"]:
        return self._values(self._bias(self._at(self._family.value, layer), self._value_width))

    def W_O(self, layer: int) -> Float[Tensor, "n_heads d_model d_head"]:
        """What the heads write: attention adds b_O and the sum over heads of W_O z."""
        spec, family = self.spec, self._family
        width = spec.n_heads * spec.d_head
        shape = (width, spec.d_model) if family.transposed else (spec.d_model, width)
        matrix = self._read(self._at(family.output, layer), shape)
        joined = matrix if family.transposed else matrix.T
        return joined.view(spec.n_heads, spec.d_head, spec.d_model).transpose(1, 2).contiguous()

    def b_O(self, layer: int) -> Float[Tensor, " d_model"]:
        return self._bias(self._at(self._family.output, layer), self.spec.d_model)

    def norm(self, kind: NormKind, layer: int | None = None) -> NormWeights | None:
        """A norm's effective gain and its offset: "attn" and "mlp" are those the two read
        through, "attn_post" and "mlp_post" those that what they add goes through (None in models
        without), "final" the one before the unembedding."""
        stored = getattr(self._family, f"{kind}_norm")
        if not stored:
            return None
        name = stored if layer is None else self._at(stored, layer)
        width = self.spec.d_model
        gain = self._read(name, (width,)).double() + self._family.gain_offset
        return NormWeights(gain, self._bias(name, width).double())

    def gain(self, kind: NormKind, layer: int | None = None) -> Float[Tensor, " d_model"]:
        """Effective gain of a norm that the model has, as `norm` but in float32."""
        norm = self.norm(kind, layer)
        assert norm is not None
        return norm.gain.float()

    def fingerprint(self) -> str:
        """sha256 over config.json and every weight file's sha256."""
        files = [self.folder / "config.json", *sorted(set(self._shard_of.values()))]
        parts = [f"{path.name}:{remembered_sha256(path)}" for path in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def fingerprints(self) -> dict[str, str]:
        """What a result depends on where text goes through the model: it, and its tokenizer."""
        files = tokenizer_files(self.folder)
        parts = "\n".join(f"{path.name}:{sha256(path)}" for path in files)
        tokenizer = hashlib.sha256(parts.encode()).hexdigest()
        return {"model": self.fingerprint(), "tokenizer": tokenizer}

    @property
    def _value_width(self) -> int:
        parts = 1 if self._family.value_rows == "all" else 3
        return self.spec.n_kv_heads * self.spec.d_head * parts

    def _values(self, rows: Tensor) -> Tensor:
        """The rows of the value projection that are values, by head."""
        if self._family.value_rows == "last third":
            rows = rows[2 * len(rows) // 3 :]
        parts = 3 if self._family.value_rows == "by head" else 1
        heads = rows.view(self.spec.n_kv_heads, parts, self.spec.d_head, *rows.shape[1:])
        return heads[:, -1]

    def _bias(self, weight: str, width: int) -> Tensor:
        """The bias stored beside a weight; zero if there is none."""
        name = weight.removesuffix("weight") + "bias"
        return self._read(name, (width,)) if self._stored(name) in self else torch.zeros(width)

    def _at(self, name: str, layer: int) -> str:
        if not 0 <= layer < self.spec.n_layers:
            raise UserError(f"no layer {layer}: this model has layers 0..{self.spec.n_layers - 1}")
        return name.format(layer)

    def _stored(self, name: str) -> str:
        """The name in the files: the family's, with the embedding's prefix for its own."""
        prefix = self._family.prefix
        if not name.startswith(prefix):
            return name
        own = self._family.embed.removeprefix(prefix)
        return self._embed.removesuffix(own) + name.removeprefix(prefix)

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor in float32, converted a slice at a time; its shape and values are checked."""
        stored = self._stored(name)
        if stored not in self:
            raise UserError(
                f"{self.folder} has no tensor '{stored}', which a {self.spec.model_type} model "
                "should have"
            )
        return read_tensor(self._shard_of[stored], stored, shape)


def open_weights(name: str) -> Weights:
    """Weights of a model by any name the catalog resolves."""
    return Weights(resolve(name))
