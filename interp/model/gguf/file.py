"""A GGUF file as it is: its metadata, and where its tensors lie (versions 2 and 3 of the format).

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A vocabulary of 262,144
tokens is read in .2 s; no tensor is read before it is asked for.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from ...errors import UserError

_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Value type of the format -> struct's and numpy's code."""
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
"""Where the file does not say how its tensors are aligned."""


@dataclass(frozen=True)
class Stored:
    """A tensor of the file; its numbers are read and dequantised where they are wanted."""

    shape: tuple[int, ...]
    """As in PyTorch: the last dimension lies side by side."""
    kind: GGMLQuantizationType
    packed: NDArray[np.uint8]
    """[rows, bytes of a row], mapped from the file; a vector of numbers has a row for each."""

    def rows(self, chosen: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Some rows as float32 [rows, columns].

        Raises:
            UserError: they are stored in a way that the gguf package does not read.
        """
        packed = np.ascontiguousarray(self.packed[chosen])
        try:
            return dequantize(packed, self.kind).astype(np.float32, copy=False)
        except NotImplementedError as error:
            raise UserError(f"a tensor is stored as {self.kind.name}, which is not read") from error

    def stack(self) -> list[Stored]:
        """The matrices of a stack [n, rows, columns]."""
        n, rows = self.shape[0], len(self.packed) // self.shape[0]
        parts = self.packed.reshape(n, rows, -1)
        return [Stored(self.shape[1:], self.kind, part) for part in parts]


@dataclass(frozen=True)
class GgufFile:
    """Metadata and tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def read_gguf(path: Path) -> GgufFile:
    """Read a file's metadata and the table of its tensors.

    Raises:
        UserError: it is no GGUF file, is truncated or damaged, names a key or a tensor twice, has
            two tensors in one place, or holds an unknown type of tensor.
    """
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file
            raise UserError(f"{path} is no GGUF file") from error
    cursor = _Cursor(path, content)
    if content[:4] != b"GGUF":
        raise UserError(f"{path} is no GGUF file")
    cursor.at = 4
    version, n_tensors, n_values = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    if version not in (2, 3):
        raise UserError(f"{path} is GGUF version {version}: convert the model again (version 3)")
    metadata: dict[str, Any] = {}
    for _ in range(n_values):
        key = cursor.string()
        if key in metadata:
            raise UserError(f"{path} has '{key}' twice in its metadata: fetch it again")
        metadata[key] = cursor.value(cursor.number("I"))
    entries = [cursor.entry() for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _damaged(path)
    start = -(-cursor.at // alignment) * alignment
    data = np.frombuffer(content, np.uint8)
    tensors: dict[str, Stored] = {}
    places = []
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise UserError(f"{path} has a tensor '{name}' twice: fetch it again")
        tensors[name] = _stored(path, data, name, shape, kind, start + offset)
        places.append((offset, offset + tensors[name].packed.size, name))
    for (_, end, before), (begin, _, name) in pairwise(sorted(places)):
        if begin < end:
            raise UserError(f"{path} has '{before}' and '{name}' in one place: fetch it again")
    return GgufFile(path, metadata, tensors)


def _stored(
    path: Path, data: NDArray[np.uint8], name: str, shape: tuple[int, ...], kind: int, start: int
) -> Stored:
    try:
        quantisation = GGMLQuantizationType(kind)
    except ValueError as error:
        raise UserError(f"'{name}' in {path} is stored as type {kind}, which is unknown") from error
    per_block, bytes_of_block = GGML_QUANT_SIZES[quantisation]
    # a row is what is packed together; a vector of plain numbers has none longer than one
    columns = 1 if len(shape) == 1 and per_block == 1 else shape[-1]
    rows, row = prod(shape) // columns, columns // per_block * bytes_of_block
    if columns % per_block or start + rows * row > len(data):
        raise _damaged(path)
    return Stored(shape, quantisation, data[start : start + rows * row].reshape(rows, row))


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.at = path, content, 0

    def skip(self, size: int) -> int:
        """Move on; the place before."""
        before, self.at = self.at, self.at + size
        if self.at > len(self.content):
            raise _damaged(self.path)
        return before

    def number(self, code: str) -> Any:
        return struct.unpack_from("<" + code, self.content, self.skip(struct.calcsize(code)))[0]

    def string(self) -> str:
        size = self.number("Q")
        before = self.skip(size)
        try:
            return self.content[before : before + size].decode()
        except UnicodeDecodeError as error:
            raise _damaged(self.path) from error

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise _damaged(self.path)
        kind, count = self.number("I"), self.number("Q")
        if kind == _STRING:
            return [self.value(kind) for _ in range(count)]
        if kind not in _NUMBERS:  # lists of lists mean nothing here
            raise _damaged(self.path)
        numbers = np.dtype(_NUMBERS[kind]).newbyteorder("<")
        before = self.skip(count * numbers.itemsize)
        return np.frombuffer(self.content, numbers, count, before).tolist()

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """A line of the table of tensors: name, shape, type, and where it is among the data."""
        name = self.string()
        sizes = [self.number("Q") for _ in range(self.number("I"))]
        if not sizes or not all(sizes):
            raise _damaged(self.path)
        return name, tuple(reversed(sizes)), self.number("I"), self.number("Q")


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is truncated or damaged: fetch it again")
