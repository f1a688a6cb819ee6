"""Directions on disk: `vectors.safetensors`, `index.parquet`, `directions.json`. A folder may come
from anyone, so what is read is held against what directions are."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype
from torch import Tensor

from ..errors import UserError
from ..model.files import sha256
from ..model.site import Site
from ..plain_json import check, read_json, record
from ..plain_path import lacks
from ..plain_tables import read_table
from ..plain_tensors import read_tensors
from ..runs.parts import check_part, write_table
from ..runs.writer import save_tensors
from .encoder import Encoder
from .provenance import Provenance
from .reading import Coordinate, Product, Reading, Scale, Unread
from .sets import FILES

FIX = "make them anew"
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Stored:
    """What the three files hold."""

    site: Site
    vectors: Float[Tensor, "n d"]
    index: pd.DataFrame
    provenance: Provenance
    reading: Reading


def read_folder(folder: Path) -> Stored:
    """What `Directions.save` wrote; what an earlier version wrote is upgraded (`old_layout`).

    Raises:
        UserError: no directions there, or damaged ones.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no directions ({lacks(folder, name)})")
        check_part(folder / name)
    about = read_json(folder / "directions.json", FIX)
    for name, kind in {"site": str, "provenance": dict[str, Any]}.items():
        check(about.get(name), kind, f"'{name}' of {folder / 'directions.json'}", FIX)
    saved = about.get("sha256", {})  # folders of earlier versions do not say it
    check(saved, dict[str, str], f"'sha256' of {folder / 'directions.json'}", FIX)
    for name in FILES[1:]:
        if name in saved and sha256(folder / name) != saved[name]:
            raise UserError(f"{folder / name} is not what was saved with {FILES[0]}: {FIX}")
    vectors = _vectors(folder / "vectors.safetensors")
    index = read_table(folder / "index.parquet", len(vectors), FIX)
    site = Site.parse(about["site"])
    if "reading" in about:
        made = record(Provenance, about["provenance"], f"the provenance of {folder}", FIX)
        reading = read_reading(about["reading"], f"the reading of {folder}")
    else:
        from .old_layout import upgraded

        made, reading, index = upgraded(about["provenance"], index, site, folder.name)
    _check_index(index, reading, folder / "index.parquet")
    return Stored(site, vectors, index, made, reading)


def read_reading(given: Any, where: str) -> Reading:
    """What `Reading.record` gave.

    Raises:
        UserError: another form.
    """
    check(given, dict[str, Any], where, FIX)
    kinds = {each.KIND: each for each in (Coordinate, Encoder, Unread)}
    kind, rest = given.get("kind"), {name: given[name] for name in given if name != "kind"}
    if kind == Product.KIND:
        norm = record(Scale, rest, where, FIX) if rest else None
        if norm and not 0 <= norm.eps < 1:
            raise UserError(f"{where} has the epsilon {norm.eps}, which no norm has: {FIX}")
        return Product(norm)
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{where} is of no kind that is known: {FIX}")
    return record(kinds[kind], rest, where, FIX)


def write_set(stored: Stored, part: Callable[[str], AbstractContextManager[Path]]) -> None:
    """Write the three files, the one that says that they are whole last.

    Args:
        part: gives, by a file's name, where to write it.
    """
    hashes = {}
    with part("vectors.safetensors") as making:
        save_tensors({"vectors": stored.vectors}, making)
        hashes["vectors.safetensors"] = sha256(making)
    with part("index.parquet") as making:
        write_table(stored.index, making)
        hashes["index.parquet"] = sha256(making)
    about = {
        "site": str(stored.site),
        "reading": stored.reading.record(),
        "provenance": stored.provenance.record(),
        "sha256": hashes,
    }
    with part("directions.json") as making:
        making.write_text(json.dumps(about, indent=1))


def _vectors(path: Path) -> Float[Tensor, "n d"]:
    vectors = read_tensors(path, FIX).by_name.get("vectors")
    if vectors is None:
        raise UserError(f"{path} holds no tensor 'vectors': {FIX}")
    if vectors.ndim != 2 or vectors.dtype not in _DTYPES or not vectors.shape[1]:
        kind = f"{list(vectors.shape)} of {str(vectors.dtype).removeprefix('torch.')}"
        raise UserError(f"{path} holds {kind}, not vectors [n, d] of decimal numbers: {FIX}")
    if not vectors.isfinite().all():
        raise UserError(f"{path} holds a NaN or an infinity: {FIX}")
    return vectors


def _check_index(index: pd.DataFrame, reading: Reading, path: Path) -> None:
    """Raise UserError for an index that lacks what a reading needs, or has it in another kind."""
    if missing := {"name", reading.COLUMN} - {"", *index.columns}:
        raise UserError(f"{path} lacks the column {', '.join(sorted(missing))}: {FIX}")
    if column := reading.COLUMN:
        numbers = index[column]
        if not is_integer_dtype(numbers) or (len(numbers) and numbers.min() < 0):
            raise UserError(f"the column '{column}' of {path} counts nothing: {FIX}")
    if isinstance(reading, Product) and "constant" in index:
        constants = index["constant"]
        plain = is_numeric_dtype(constants) and not is_bool_dtype(constants)
        if not (plain and np.isfinite(constants.to_numpy(float, na_value=np.nan)).all()):
            raise UserError(f"the column 'constant' of {path} holds no finite numbers: {FIX}")
