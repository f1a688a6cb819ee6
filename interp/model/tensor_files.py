"""The files of a model folder: which holds which tensor, one tensor out of them, their sha256."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..plain_path import plain_path
from .files import read_json, remembered, sha256, state_of
from .remote_files import RemoteFolder, RemoteTensor, RemoteView, remote_folder
from .remote_store import RemoteFile, check_same

if TYPE_CHECKING:
    from torch import Tensor

SLICE_BYTES = 64 * 2**20
_CLOCK_STEP = 10**8
"""Nanoseconds, more than between two times that a file system tells apart."""


class Stored(NamedTuple):
    """A tensor in a model's folder."""

    name: str
    file: Path | RemoteFile
    dtype: str
    """As safetensors spells it: F32, BF16, I8."""
    shape: tuple[int, ...]
    start: int = 0
    """Where its bytes begin in a remote file."""
    state: str = ""
    """Of a file here, when its folder was opened (`state_of`)."""


SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The single file, or the index of shards, or neither. Of remote weights the single file is
    elsewhere.

    A folder with both: the single file, as transformers takes it.
    """
    remote = remote_folder(folder)
    elsewhere = remote.shards if remote else {}
    names = (SINGLE, INDEX)
    return [path for n in names if (path := folder / n).is_file() or n in elsewhere][:1]


def stored_tensors(folder: Path) -> list[Stored]:
    """The tensors of a folder that has weights, from the headers of all its files.

    Raises:
        UserError: a shard that is missing, lacks what the index says or holds what it does not
            say, a damaged index, a file that is truncated or corrupt.
    """
    remote = remote_folder(folder)
    where = remote.address if remote else folder
    (path,) = weight_files(folder)
    if path.name == SINGLE:
        return _held(folder, remote, SINGLE) or []
    names = indexed(path, f"{where}/{INDEX}")
    held = {file: _held(folder, remote, file) for file in sorted(set(names.values()))}
    if missing := [file for file, tensors in held.items() if tensors is None]:
        raise UserError(f"{where} lacks {missing[0]}, which its index names: fetch it again")
    found = {(t.name, file): t for file, tensors in held.items() for t in tensors or []}
    if lacking := [name for name, file in names.items() if (name, file) not in found]:
        file = f"{where}/{names[lacking[0]]}"
        raise UserError(f"{file} lacks '{lacking[0]}', which the index names: fetch it again")
    # transformers reads all that a shard holds, and of a name that is there twice the last
    for name, file in found:
        if file != names.get(name):
            says = f"gives to {names[name]}" if name in names else "does not name"
            raise UserError(
                f"{where}/{file} holds '{name}', which the index {says}: fetch it again"
            )
    return [found[each] for each in names.items()]


def _held(folder: Path, remote: RemoteFolder | None, name: str) -> list[Stored] | None:
    """The tensors of a file of a folder; None where it is not there."""
    if remote is None:
        return header(folder / name) if (folder / name).is_file() else None
    if name not in remote.shards:
        return None
    file, tensors = remote.shards[name]
    return [Stored(each, file, *about) for each, about in tensors.items()]


def indexed(path: Path, where: str) -> dict[str, str]:
    """The file of each tensor, by an index of shards.

    Args:
        where: what the index is called in a complaint.

    Raises:
        UserError: it is damaged, or names what is no file of its folder.
    """
    names = read_json(path).get("weight_map")
    if not (isinstance(names, dict) and names and {type(f) for f in names.values()} == {str}):
        raise UserError(f"{where} is damaged: its weight_map names no files; fetch it again")
    if outside := [file for file in sorted(set(names.values())) if not _is_inside(file)]:
        raise UserError(
            f"{where} names '{outside[0]}', which is no file of the folder: fetch it again"
        )
    return names


def _is_inside(name: str) -> bool:
    """Whether a name that stands in a file can only lead to one beside it or below. Links that lie
    there are followed: the hub's cache is made of them."""
    path = PurePosixPath(name)
    try:
        plain_path(name)
    except UserError:
        return False
    return bool(path.parts) and not (path.is_absolute() or ".." in path.parts or "\\" in name)


def header(path: Path) -> list[Stored]:
    """The tensors of one file; opening it holds its length against its header."""
    try:
        state = state_of(path)
        with safe_open(path, "pt") as file:
            names = file.keys()
            views = {name: file.get_slice(name) for name in names}
            return [
                Stored(name, path, view.get_dtype(), tuple(view.get_shape()), state=state)
                for name, view in views.items()
            ]
    except (SafetensorError, OSError) as error:
        raise UserError(_unreadable(path, error)) from error


def read_tensor(
    stored: Stored,
    shape: tuple[int, ...],
    entry: int | None = None,
    span: slice = slice(None),
    axis: int = 0,
) -> Tensor:
    """A tensor of a safetensors file in float32, or a part of it; nothing else of it is in memory.

    Args:
        shape: the whole tensor's.
        entry: of this entry of the first axis alone (one expert's matrix of a stack of 8 GB).
        span: these rows of the matrix; with axis 1 these columns, each a row of what is returned.

    Raises:
        UserError: it has another shape or a dtype that is not floating point, what is read of it
            holds a NaN or an infinity, or the file cannot be read.
    """
    import torch

    name, path, dtype = stored[:3]
    if dtype not in ("F16", "BF16", "F32", "F64"):
        raise UserError(
            f"'{name}' is stored as {dtype}: dequantise the model to float16 or float32 first"
        )
    if stored.shape != shape:
        raise UserError(wrong_shape(stored, shape))
    with _view(stored) as view:
        part = _part(view, shape, entry, span, axis)
    if part.numel() and not torch.isfinite(torch.stack(torch.aminmax(part))).all():
        raise UserError(f"'{name}' in {path} holds a NaN or an infinity: the file is damaged")
    return part


@contextmanager
def _view(stored: Stored) -> Iterator[Any]:
    """What can be sliced. Behind the last slice it is asked whether the file is the same as when
    its folder was opened: what is made of it bears the fingerprint of that time."""
    name, path, dtype, shape, start, state = stored
    if isinstance(path, RemoteFile):
        yield RemoteView(path, RemoteTensor(dtype, shape, start), SLICE_BYTES)
        check_same(path)
        return
    try:
        with safe_open(path, "pt") as file:
            yield file.get_slice(name)
        if state_of(path) != state:
            raise UserError(
                f"{path} has changed since it was opened: start again, which opens what is there "
                "now"
            )
    except (SafetensorError, OSError) as error:
        raise UserError(_unreadable(path, error)) from error


def _part(view: Any, shape: tuple[int, ...], entry: int | None, span: slice, axis: int) -> Tensor:
    """`read_tensor` of what can be sliced, converted some rows at a time."""
    import torch

    of_entry = () if entry is None else (slice(entry, entry + 1),)
    height, *widths = shape if entry is None else shape[1:]
    first, stop, step = span.indices(widths[0] if axis else height)
    taken = len(range(first, stop, step))
    part = torch.empty((taken, height) if axis else (taken, *widths), dtype=torch.float32)
    width = math.prod([(stop - first)] if axis else widths)
    rows = max(SLICE_BYTES // (4 * max(width, 1)) // step, 1) * step
    for start in range(*(0, height) if axis else (first, stop), rows):
        end = min(start + rows, height if axis else stop)
        columns = (slice(first, stop),) if axis else ()
        read = view[(*of_entry, slice(start, end), *columns)]
        block = read if entry is None else read[0]
        if axis:
            part[:, start:end] = block[:, ::step].T
        else:
            place = (start - first) // step
            own = block[::step]
            part[place : place + len(own)] = own
    return part


def wrong_shape(stored: Stored, shape: tuple[int, ...]) -> str:
    return (
        f"'{stored.name}' in {stored.file} is {list(stored.shape)} where config.json implies "
        f"{list(shape)}"
    )


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"cannot read {path}: {error.strerror}"
    return f"{path} is truncated or corrupt ({error}): fetch it again"


def remembered_sha256(path: Path) -> str:
    """sha256 of a file, remembered by path and `state_of`: weights can be 800 GB."""
    about = f"{path.resolve()}|{state_of(path)}"
    if time.time_ns() - path.stat().st_ctime_ns < _CLOCK_STEP:
        return sha256(path)  # another change now would bear the same time
    return remembered(about, "[0-9a-f]{64}", lambda: sha256(path))


def content_of(file: Path | RemoteFile) -> str:
    """What tells a file's content from others: its sha256, of a remote file what its store says; on
    the hub that is the sha256."""
    return file.content if isinstance(file, RemoteFile) else remembered_sha256(file)
