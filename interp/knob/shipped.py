"""The run that ships: its tables, the knob and the adapter, without a manifest of its own
(data/knob/README.md tells how it was made)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from interp.data import FOLDER

from ..model.tensor_files import remembered_sha256
from ..runs.parts import read_table
from ..runs.store import Run

MODEL = "smollm2-135m"
SHIPPED = FOLDER / "knob" / MODEL


def shipped_run() -> Run:
    """It as a run of `knob.run`: what it was made with where that is not the default, and its
    parts."""
    files: dict[str, dict[str, Any]] = {
        path.relative_to(SHIPPED).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": remembered_sha256(path),
        }
        for path in sorted(SHIPPED.rglob("*.*"))
    }
    several = [read_table(path) for path in sorted(SHIPPED.glob("effects/configurations-*"))]
    apart, right = (pd.concat(t[name] for t in several) for name in ("separation", "pair_acc"))
    made = {
        "study": "knob.run",
        "config": {"model": MODEL, "template": "chat", "adapter": "shipped"},
        "metrics": {"separation correlates": float(np.corrcoef(apart, right)[0, 1])},
        "files": files,
        "finished": "shipped",
        "seal": "shipped " + " ".join(part["sha256"][:8] for part in files.values()),
    }
    return Run(SHIPPED, made)
