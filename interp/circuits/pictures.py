"""The figures of a run of any study of circuits."""

from __future__ import annotations

from ..plots import Figures
from ..runs.store import Run
from . import figures, figures_heads, figures_truth


def of_run(run: Run) -> Figures:
    """The figures of a run by name."""
    if run.study in ("circuits.truth", "circuits.steer"):
        return figures_truth.of_run(run)
    return figures.of_run(run) or figures_heads.of_run(run)
