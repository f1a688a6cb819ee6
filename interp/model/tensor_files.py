"""The files of a model folder: which holds which tensor, one tensor out of them, their sha256."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from .files import home, read_json, sha256

SLICE_BYTES = 64 * 2**20


def tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it, from the headers or the shard index.

    A folder with both a single file and an index: the single file, as transformers takes it.

    Raises:
        UserError: no safetensors, a shard that is missing, a damaged index or header.
    """
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.exists() and not path.exists():
        names = read_json(index).get("weight_map")
        if not (isinstance(names, dict) and names and {type(f) for f in names.values()} == {str}):
            raise UserError(f"{index} is damaged: fetch it again")
        missing = sorted({f for f in names.values() if not (folder / f).is_file()})
        if missing:
            raise UserError(f"{folder} lacks {missing[0]}, which its index names: fetch it again")
        return {name: folder / file for name, file in names.items()}
    if not path.is_file():
        raise UserError(
            f"{folder} has no model.safetensors (nor an index of shards): save the model with "
            "transformers' save_pretrained first"
        )
    try:
        with safe_open(path, "pt") as file:
            return dict.fromkeys(file.keys(), path)
    except (SafetensorError, OSError) as error:
        raise UserError(_unreadable(path, error)) from error


def read_tensor(path: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of a safetensors file in float32, converted a slice at a time.

    Raises:
        UserError: it has another shape or a dtype that is not floating point, holds a NaN or an
            infinity, or the file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            view = file.get_slice(name)
            if view.get_dtype() not in ("F16", "BF16", "F32", "F64"):
                raise UserError(
                    f"'{name}' is stored as {view.get_dtype()}: dequantise the model to float16 "
                    "or float32 first"
                )
            if tuple(view.get_shape()) != shape:
                raise UserError(
                    f"'{name}' in {path} is {view.get_shape()} where config.json implies "
                    f"{list(shape)}"
                )
            whole = torch.empty(shape, dtype=torch.float32)
            step = max(SLICE_BYTES // (4 * (shape[1] if len(shape) > 1 else 1)), 1)
            for start in range(0, shape[0], step):
                whole[start : start + step] = view[start : start + step]
    except (SafetensorError, OSError) as error:
        raise UserError(_unreadable(path, error)) from error
    if not torch.isfinite(torch.stack(torch.aminmax(whole))).all():
        raise UserError(f"'{name}' in {path} holds a NaN or an infinity: the file is damaged")
    return whole


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"cannot read {path}: {error.strerror}"
    return f"{path} is truncated or corrupt ({error}): fetch it again"


def remembered_sha256(path: Path) -> str:
    """sha256 of a file, remembered by path, size and time of change: weights can be 800 GB."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    note = home() / "fingerprints" / hashlib.sha256(key.encode()).hexdigest()
    if note.exists() and re.fullmatch(rb"[0-9a-f]{64}", remembered := note.read_bytes()):
        return remembered.decode()
    digest = sha256(path)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(".new")
        fresh.write_text(digest)
        fresh.rename(note)
    except OSError as error:
        raise UserError(f"cannot write {note}: {error.strerror}; set INTERP_HOME") from error
    return digest
