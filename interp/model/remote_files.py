"""The weights of a checkpoint that stays in a store: the headers of its files, kept in a folder
here (`remote` makes it), and tensors read in ranges.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import plain_json
from ..errors import UserError
from .files import home, read_json, state_of
from .remote_store import RemoteFile, read_range

if TYPE_CHECKING:
    from torch import Tensor

NOTE = "remote.json"
"""The file of such a folder that names the address and has the headers."""
PREFIX = "remote-"
"""What the names of such folders begin with."""
PIECE_BYTES = 8 * 2**20
"""Of one request; `THREADS` are under way at once, as a single stream is slow."""
THREADS = 8
LONGEST_HEADER = 100_000_000
"""Bytes, as safetensors has it."""
_FIRST_BYTES = 2**14
"""Of a file, in which most headers end."""
_BITS = {
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_TORCH = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_AGAIN = "upload it again"


class RemoteTensor(NamedTuple):
    """A tensor of a remote file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin in the file."""


class RemoteShard(NamedTuple):
    """A remote file of tensors, and its header."""

    file: RemoteFile
    tensors: dict[str, RemoteTensor]


class RemoteFolder(NamedTuple):
    """A folder here of a model whose weights are elsewhere."""

    address: str
    """As it was asked for."""
    shards: dict[str, RemoteShard]
    """By file name."""


def remote_folder(folder: Path) -> RemoteFolder | None:
    """What stands in the note of a folder that `remote` made; None of any other. A note in another
    folder counts for nothing: whoever wrote it would choose what is asked for with the reader's
    credentials."""
    made_here = folder.name.startswith(PREFIX) and _is_own(folder.parent)
    note = folder / NOTE
    return _noted(note, state_of(note)) if made_here and note.is_file() else None


def _is_own(models: Path) -> bool:
    return models.resolve() == (home() / "models").resolve()


@lru_cache(maxsize=4)
def _noted(note: Path, state: str) -> RemoteFolder:
    """The note's content, kept until it changes: of a model with many experts it is 10 MB."""
    said, fix = read_json(note), f"remove {note.parent}"
    plain_json.check(said.get("address"), str, f"'address' of {note}", fix)
    plain_json.check(said.get("shards"), dict[str, list[Any]], f"'shards' of {note}", fix)
    try:
        shards = {
            name: RemoteShard(
                RemoteFile(*file),
                {t: RemoteTensor(kind, tuple(shape), at) for t, (kind, shape, at) in own.items()},
            )
            for name, (file, own) in said["shards"].items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{note} is damaged: {fix}") from error
    return RemoteFolder(said["address"], shards)


def check_is_here(folder: Path) -> None:
    """Raise UserError for a folder whose weights are elsewhere, where the whole model is needed."""
    if remote := remote_folder(folder):
        fetch = "copy it to a folder and name that"
        if remote.address.startswith("hf://"):
            fetch = f"name it {remote.address.removeprefix('hf://')}, which fetches it"
        raise UserError(
            f"the weights of {remote.address} stay where they are, and this needs the whole model "
            f"here: {fetch}"
        )


def read_header(file: RemoteFile) -> dict[str, RemoteTensor]:
    """The tensors of a safetensors file, by name in their order.

    Raises:
        UserError: it is no such file, is truncated, or cannot be read.
    """
    begin = read_range(file, 0, min(file.size, _FIRST_BYTES)) if file.size >= 8 else b""
    length = int.from_bytes(begin[:8], "little")
    if len(begin) < 8 or not 2 <= length <= min(file.size - 8, LONGEST_HEADER):
        raise UserError(f"{file} is truncated or no safetensors file: {_AGAIN}")
    if 8 + length > len(begin):
        begin += read_range(file, len(begin), 8 + length)
    try:
        text = begin[8 : 8 + length].decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the header of {file} is no UTF-8 text: {_AGAIN}") from error
    said = plain_json.parsed(text, f"the header of {file}", _AGAIN)
    said.pop("__metadata__", None)
    return _checked(said, file, 8 + length)


def _checked(said: dict[str, Any], file: RemoteFile, body: int) -> dict[str, RemoteTensor]:
    """The tensors of a header, which fill the file without holes, as safetensors has it."""
    where, ends, found = f"the header of {file}", body, {}
    plain_json.check(said, dict[str, dict[str, Any]], where, _AGAIN)
    for name, about in said.items():
        for key in ("shape", "data_offsets"):
            plain_json.check(about.get(key), list[int], f"'{key}' of '{name}' in {where}", _AGAIN)
        if about.get("dtype") not in _BITS or len(about["data_offsets"]) != 2:
            raise UserError(f"{where} has '{name}' in a form that is not known: {_AGAIN}")
    for name, about in sorted(said.items(), key=lambda each: each[1]["data_offsets"]):
        shape, (start, end) = about["shape"], about["data_offsets"]
        bits = prod(shape) * _BITS[about["dtype"]]
        if min(shape, default=0) < 0 or 8 * (end - start) != bits or body + start != ends:
            raise UserError(f"{where} gives '{name}' other bytes than its shape takes: {_AGAIN}")
        ends = body + end
        found[name] = RemoteTensor(about["dtype"], tuple(shape), body + start)
    if ends != file.size:
        raise UserError(f"{file} is {file.size} bytes where its header says {ends}: {_AGAIN}")
    return dict(sorted(found.items()))


class RemoteView:
    """What safetensors' `get_slice` gives, of a tensor elsewhere: an index reads its own bytes, of
    some columns those of the whole rows, some at a time.

    Args:
        at_once: the most bytes of rows that are held beside the columns that are asked for.
    """

    def __init__(self, file: RemoteFile, tensor: RemoteTensor, at_once: int) -> None:
        self.file, self.tensor, self.at_once = file, tensor, at_once

    def __getitem__(self, part: tuple[slice, ...]) -> Tensor:
        import torch

        kind, shape, start = self.tensor
        dtype: torch.dtype = getattr(torch, _TORCH[kind])
        whole = (slice(None),) * (len(shape) - len(part))
        spans = [s.indices(n)[:2] for s, n in zip((*part, *whole), shape, strict=True)]
        outer, (left, right) = (spans[:-1], spans[-1]) if len(spans) > 1 else (spans, (0, 1))
        width = shape[-1] if len(spans) > 1 else 1
        sizes = [max(stop - first, 0) for first, stop in spans]
        row, last = 0, 0
        for (first, stop), size in zip(outer, shape, strict=False):
            row, last = row * size + first, last * size + stop - 1
        made = torch.empty(sizes, dtype=dtype)
        if not made.numel():
            return made
        rows = last + 1 - row
        lines = made.view(-1, right - left)
        if len(lines) != rows:
            raise ValueError("these entries do not lie one behind the other")
        if right - left == width:
            self._read(made, start + row * width * dtype.itemsize)
            return made
        step = max(self.at_once // (width * dtype.itemsize), 1)
        for done in range(0, rows, step):
            block = torch.empty((min(step, rows - done), width), dtype=dtype)
            self._read(block, start + (row + done) * width * dtype.itemsize)
            lines[done : done + step] = block[:, left:right]
        return made

    def _read(self, into: Tensor, start: int) -> None:
        """Fill a tensor with the bytes from there on, some pieces at a time."""
        import numpy as np
        import torch

        held = into.view(-1).view(torch.uint8).numpy()

        def fetch(at: int) -> None:
            end = min(at + PIECE_BYTES, len(held))
            held[at:end] = np.frombuffer(read_range(self.file, start + at, start + end), np.uint8)

        pieces = range(0, len(held), PIECE_BYTES)
        if len(pieces) == 1:
            return fetch(0)
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(fetch, pieces):
                pass
        return None
