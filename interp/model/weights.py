"""Canonical weight views, read tensor by tensor from safetensors files without building the model.

Conventions: the unembedding `W_U` is [d_vocab, d_model]; every neuron matrix is one *row a
neuron* in residual space, [d_mlp, d_model]: rows of the stored up and gate projections, columns of
the down projection. Heads come apart: `W_V` [n_kv_heads, d_head, d_model] reads the stream (after
the input norm), `W_O` [n_heads, d_model, d_head] writes to it; head h uses the values of kv head
h // (n_heads / n_kv_heads). A bias that is not stored is zero. Norm gains are the effective ones
(Gemma's stored gain + 1). All are float32 on the CPU, but `norm`, whose sum needs float64 to be
exact. Peak memory is that of the matrix asked for (one expert's of a stack) plus a 64 MiB slice.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..progress import log
from .agreement import check_biases
from .catalog import resolve
from .checkpoint import tensor_names
from .ends import ends_print
from .families import ModelSpec, Names, read_spec
from .files import sha256
from .folder import check_folder
from .places import Bank, Kind, Place, banks, expert_reason, place
from .remote_files import remote_folder
from .remote_store import RemoteFile
from .tensor_files import content_of, read_tensor, wrong_shape
from .tokenizer_files import tokenizer_files

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
        self._config, self._stored = check_folder(folder)
        self._look(read_spec(self._config), self._stored)
        check_biases(folder, self.spec, self._stored, lambda: tensor_names(folder))
        for name, shape in self._implied():
            if name in self and self._stored[name].shape != shape:
                raise UserError(wrong_shape(self._stored[name], shape))

    def _look(self, spec: ModelSpec, there: Collection[str]) -> None:
        """Find the family's parts among the tensors that there are."""
        self.spec, self._family, self._there = spec, spec.family, there
        self._names = Names(self._family, there)
        last = self.banks(spec.n_layers - 1)[0].expert
        name = self.place("down", spec.n_layers - 1, last).stored
        if name not in self:
            raise UserError(
                f"{self} has no tensor '{name}', but its config.json says {spec.n_layers} layers"
            )
        if name.replace(f".{spec.n_layers - 1}.", f".{spec.n_layers}.") in self:
            log.warning(
                "%s has more layers than the %d of its config.json; they are left out, as "
                "transformers leaves them out",
                self,
                spec.n_layers,
            )

    def __str__(self) -> str:
        return remote.address if (remote := remote_folder(self.folder)) else str(self.folder)

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._there

    @property
    def numbers(self) -> int:
        """How many there are in the files."""
        return sum(math.prod(tensor.shape) for tensor in self._stored.values())

    def has(self, layer: int, part: str) -> bool:
        """Whether a layer has the weights of a part, by the table's name: layers differ in kind."""
        return f"{self._part(layer, part)}.weight" in self

    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Token embeddings."""
        return self._read(f"{self._names.embed}.weight", (self.spec.d_vocab, self.spec.d_model))

    def W_U(self) -> Float[Tensor, "d_vocab d_model"]:
        """The unembedding (LM head); the embedding where they are tied and no head is stored."""
        head = self._names.head
        if self.spec.tied and not head:
            return self.W_E()
        name = f"{head or self._family.head[0]}.weight"
        return self._read(name, (self.spec.d_vocab, self.spec.d_model))

    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """The unembedding's bias (GPT-J, Phi)."""
        return self._bias(self._names.head, self.spec.d_vocab)

    def banks(self, layer: int) -> tuple[Bank, ...]:
        """The neurons of a layer: one bank, or one an expert."""
        self._check(layer)
        return banks(self.spec, self._names, layer)

    @property
    def sparse(self) -> tuple[int, ...]:
        """The layers of experts; in the others every neuron acts on every token."""
        return tuple(i for i in range(self.spec.n_layers) if self.banks(i)[0].expert)

    def check_dense(self, purpose: str) -> None:
        """Raise UserError for a model with experts.

        Args:
            purpose: what needs every neuron's activation at every position.
        """
        if layers := self.sparse:
            raise UserError(
                f"{purpose} cannot take this {self.spec.model_type} model: "
                f"{expert_reason(self.spec, layers[0])}"
            )

    def neurons(
        self, kind: Kind, layer: int, expert: str = "", some: slice = slice(None)
    ) -> Float[Tensor, "n d_model"]:
        """One row a neuron, as stored: the vector it reads with (up, gate) or writes (down).

        Args:
            some: these neurons of the bank; the others are not read.

        Raises:
            UserError: a kind, layer or expert that the model lacks; a layer of experts, and none
                is named.
        """
        at = self.place(kind, layer, expert)
        axis = 0 if at.rows else 1
        return self._read(at.stored, at.shape, at.entry, at.within(some), axis)

    def in_stream(
        self, kind: Kind, layer: int, expert: str = "", some: slice = slice(None)
    ) -> Float[Tensor, "n d_model"]:
        """One row a neuron: the vector it reads with (up, gate), or what one unit of its activation
        adds to the stream (down): the stored vector times `write_gain`."""
        rows = self.neurons(kind, layer, expert, some)
        return rows * self.write_gain(layer) if kind == "down" else rows

    def write_gain(self, layer: int) -> Float[Tensor, " d_model"]:
        """What a write vector is multiplied by before it is added: the gain of the norm after the
        MLP (Gemma 2 and 3, OLMo 2, GLM-4) and `residual_scale` (Granite); ones without either. The
        norm's own scale, which depends on the token, is left out."""
        return self.gain("mlp_post", layer) * self.spec.residual_scale

    def place(self, kind: Kind, layer: int, expert: str = "") -> Place:
        """Where `neurons` are stored."""
        return place(self.spec, self._names, kind, layer, self.bank(kind, layer, expert))

    def bank(self, kind: Kind, layer: int, expert: str = "") -> Bank:
        """The bank of `neurons`, which has vectors of this kind."""
        if kind not in self.spec.kinds:
            raise UserError(
                f"a {self.spec.model_type} model has no '{kind}' neurons, only "
                + ", ".join(self.spec.kinds)
            )
        every = {bank.expert: bank for bank in self.banks(layer)}
        if expert not in every:
            shared = " and shared" if "shared" in every else ""
            has = f"the experts e0 to e{self.spec.n_experts - 1}{shared}"
            has = "no experts" if "" in every else has
            missing = f"no '{expert}'" if expert else f"name one, as in {layer}.e0.{kind}.0"
            raise UserError(f"layer {layer} has {has}: {missing}")
        return every[expert]

    def shard(self, stored: str) -> Path | RemoteFile:
        """The file that holds a tensor, by its name in the files."""
        return self._stored[stored].file

    def before_unembedding(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What the unembedding reads where the stream ends in x: the final norm, in float64."""
        return self.normed("final", None, x)

    def normed(
        self, kind: NormKind, layer: int | None, x: Float[Tensor, "... d_model"]
    ) -> Float[Tensor, "... d_model"]:
        """What a norm makes of x, in float64 and where x is; x itself in a family without it."""
        norm, x = self.norm(kind, layer), x.double()
        if norm is None:
            return x
        centred = x - x.mean(-1, keepdim=True) if self.spec.norm == "layer" else x
        scale = (centred.square().mean(-1, keepdim=True) + self.spec.eps).sqrt()
        normed: Tensor = centred / scale * norm.gain.to(x.device) + norm.offset.to(x.device)
        return normed

    def bias(self, kind: Kind, layer: int, expert: str = "") -> Float[Tensor, " width"]:
        """Of the projection of `neurons`: one number a neuron for up and gate, [d_model] for
        down; zero if none is stored."""
        at, down = self.place(kind, layer, expert), kind == "down"
        outputs = at.shape[-2 if at.rows != down else -1]
        if at.bias in self:
            stack = at.shape[:1] if at.entry is not None else ()
            whole = self._read(at.bias, (*stack, outputs), at.entry)
        else:
            whole = torch.zeros(outputs)
        return whole if down else whole[at.span]

    def W_V(self, layer: int) -> Float[Tensor, "n_kv_heads d_head d_model"]:
        """What the heads read: the values are W_V x + b_V.

        Raises:
            UserError: a layer whose attention has no such heads.
        """
        if self._family.no_heads:
            raise UserError(f"{self.spec.model_type} has no W_V: {self._family.no_heads}")
        name = self._part(layer, self._family.value)
        shape = (self._value_width, self.spec.d_model)
        transposed = self._family.transposed
        matrix = self._read(f"{name}.weight", shape[::-1] if transposed else shape)
        return self._values(matrix.T if transposed else matrix).contiguous()

    def b_V(self, layer: int) -> Float[Tensor, "n_kv_heads d_head"]:
        name = self._part(layer, self._family.value)
        return self._values(self._bias(name, self._value_width))

    def W_O(self, layer: int) -> Float[Tensor, "n_heads d_model d_head"]:
        """What the heads write: attention adds b_O and the sum over heads of W_O z, all times
        `residual_scale`."""
        spec, family = self.spec, self._family
        if not family.output:
            raise UserError(f"{spec.model_type} has no W_O: {family.no_heads}")
        matrix = self._read(f"{self._part(layer, family.output)}.weight", self._output_shape)
        joined = matrix if family.transposed else matrix.T
        return joined.view(spec.n_heads, spec.d_head, spec.d_model).transpose(1, 2).contiguous()

    def b_O(self, layer: int) -> Float[Tensor, " d_model"]:
        return self._bias(self._part(layer, self._family.output), self.spec.d_model)

    def norm(self, kind: NormKind, layer: int | None = None) -> NormWeights | None:
        """A norm's effective gain and its offset: "attn" and "mlp" are those the two read
        through, "attn_post" and "mlp_post" those that what they add goes through, "final" the one
        before the unembedding. None in a family without it."""
        stored = getattr(self._family, f"{kind}_norm")
        if not stored:
            return None
        width = self.spec.d_model
        if not self._family.norm_gain:
            return NormWeights(torch.ones(width).double(), torch.zeros(width).double())
        name = self._names.final_norm if layer is None else self._part(layer, stored)
        gain = self._read(f"{name}.weight", (width,)).double() + self._family.gain_offset
        return NormWeights(gain, self._bias(name, width).double())

    def gain(self, kind: NormKind, layer: int | None = None) -> Float[Tensor, " d_model"]:
        """Effective gain of a norm, as `norm` but in float32; ones in a family without it."""
        norm = self.norm(kind, layer)
        return torch.ones(self.spec.d_model) if norm is None else norm.gain.float()

    def fingerprint(self) -> str:
        """sha256 over config.json and every weight file's sha256; of files in a store that does not
        know it, over what it says of their content (`content_of`)."""
        files = [
            self.folder / "config.json",
            *sorted({each.file for each in self._stored.values()}),
        ]
        parts = [f"{path.name}:{content_of(path)}" for path in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def fingerprints(self) -> dict[str, str]:
        """What a result depends on where text goes through the model: it, its tokenizer, and which
        tokens end a text, where that does not follow (`ends`)."""
        files = tokenizer_files(self.folder)
        parts = "\n".join(f"{path.name}:{sha256(path)}" for path in files)
        tokenizer = hashlib.sha256(parts.encode()).hexdigest()
        ends = ends_print(self.folder, self._config, tokenizer)
        return {"model": self.fingerprint(), "tokenizer": tokenizer, **ends}

    def _implied(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The shapes of some tensors, by which all sizes are known."""
        spec, family, last = self.spec, self._family, self.spec.n_layers - 1
        yield f"{self._names.embed}.weight", (spec.d_vocab, spec.d_model)
        down = self.place("down", last, self.banks(last)[0].expert)
        yield down.stored, down.shape
        if family.output:
            yield f"{self._part(last, family.output)}.weight", self._output_shape
        if not family.no_heads:
            shape = (self._value_width, spec.d_model)
            name = f"{self._part(last, family.value)}.weight"
            yield name, shape[::-1] if family.transposed else shape

    @property
    def _output_shape(self) -> tuple[int, int]:
        """Of the projection of attention's output, as it is stored."""
        inside, stream = self.spec.n_heads * self.spec.d_head, self.spec.d_model
        return (inside, stream) if self._family.transposed else (stream, inside)

    @property
    def _value_width(self) -> int:
        """Of the projection that gives the values, and in some families queries and keys too."""
        spec, alone = self.spec, self._family.value_rows == "all"
        return (spec.n_kv_heads if alone else spec.n_heads + 2 * spec.n_kv_heads) * spec.d_head

    def _values(self, rows: Tensor) -> Tensor:
        """The rows of the value projection that are values, by head."""
        spec, n = self.spec, self.spec.n_kv_heads
        if self._family.value_rows == "last":
            rows = rows[-n * spec.d_head :]
        return rows.view(n, -1, *rows.shape[1:])[:, -spec.d_head :]

    def _bias(self, name: str, width: int) -> Tensor:
        """The bias stored beside a weight; zero if there is none."""
        stored = f"{name}.bias"
        return self._read(stored, (width,)) if stored in self else torch.zeros(width)

    def _part(self, layer: int, name: str) -> str:
        self._check(layer)
        return self._names.part(layer, name)

    def _check(self, layer: int) -> None:
        if not 0 <= layer < self.spec.n_layers:
            raise UserError(f"no layer {layer}: this model has layers 0..{self.spec.n_layers - 1}")

    def _read(self, stored: str, shape: tuple[int, ...], *part: Any) -> Tensor:
        """A tensor in float32, or a part of it (`read_tensor`); its shape and values are
        checked."""
        if stored not in self:
            raise UserError(
                f"{self} has no tensor '{stored}', which a {self.spec.model_type} model should have"
            )
        return read_tensor(self._stored[stored], shape, *part)


def open_weights(name: str) -> Weights:
    """Weights of a model by any name the catalog resolves."""
    return Weights(resolve(name))
