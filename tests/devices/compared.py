"""A study on the CPU and on the pretended device, and what is not the same."""

from __future__ import annotations

import re
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from interp.runs.store import Run, Store
from interp.runs.study import run_or_load

from ..runs.small_studies import kinds
from .pretend import DEVICE, DEVICES

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
"""Where a device takes another way: products and sums in float32 in another order."""
COUNTED = {("othello.compare", "maps"): 1e-3}
"""Tables that rank activations and count them above thresholds, beyond which rounding carries some:
the share of their numbers that may be others (5e-4 were, all of latents that hardly fire)."""
DIGEST = re.compile("[0-9a-f]{64}")


def compared(study: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What `studies.py` prints of a study with the settings that are asked for."""
    config, fault, differs = kinds()[study](**asked), "", list[str]()
    DEVICES.begin()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            there = run_or_load(replace(config, device=DEVICE), Store(Path(folder, "there")))
        except Exception:  # noqa: BLE001  any at all is the fault that is looked for
            fault = traceback.format_exc()
        crossed = [[*what, times] for what, times in DEVICES.moved.most_common()]
        passes = DEVICES.passes
        if not fault:
            here = run_or_load(config, Store(Path(folder, "here")))
            differs = list(differences(here, there))
    return {
        "study": study, "fault": fault, "differs": differs, "moved": crossed, "passes": passes,
        "seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def differences(one: Run, other: Run) -> Iterator[str]:
    """What of two runs is not the same, to rounding."""
    files, others = one.manifest["files"], other.manifest["files"]
    if files.keys() != others.keys():
        yield f"files: {sorted(files.keys() ^ others.keys())}"
        return
    for name in files:
        if files[name]["sha256"] != others[name]["sha256"]:
            few = COUNTED.get((one.manifest["study"], Path(name).parts[0]), 0.0)
            for said in unlike(one.path / name, other.path / name, few):
                yield f"{name}: {said}"


def unlike(one: Path, other: Path, few: float) -> Iterator[str]:
    """What of two files is not the same, but for so small a share of each array's numbers."""
    if one.suffix not in READ:
        yield "other bytes"
        return
    a, b = READ[one.suffix](one), READ[one.suffix](other)
    if a.keys() != b.keys():
        yield f"columns: {sorted(a.keys() ^ b.keys())}"
        return
    for name in a:
        if a[name].shape != b[name].shape:
            yield f"{name} is {b[name].shape}, not {a[name].shape}"
        elif a[name].dtype.kind != "f":
            if not np.array_equal(a[name], b[name]):
                yield name
        elif (
            others := ~np.isclose(a[name], b[name], equal_nan=True, **CLOSE)
        ).sum() > few * others.size:
            most = np.nanmax(np.abs(a[name] - b[name]))
            yield f"{name} by {most:.3g}, {others.sum()} of {others.size}"


def _columns(path: Path) -> dict[str, np.ndarray]:
    table = pd.read_parquet(path)
    return {name: _flat(table[name]) for name in table}


def _flat(column: pd.Series) -> np.ndarray:
    lists = len(column) and all(isinstance(each, np.ndarray) for each in column)
    return np.concatenate(list(column)) if lists else column.to_numpy()


def _tensors(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in load_file(path).items()}


def _text(path: Path) -> dict[str, np.ndarray]:
    return {"text": np.array(DIGEST.sub("", path.read_text()))}


READ = {".parquet": _columns, ".safetensors": _tensors, ".json": _text}
