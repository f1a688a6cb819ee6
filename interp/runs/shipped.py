"""The runs that ship with the workbench: read-only, shown where a store has none of its own."""

from __future__ import annotations

from functools import cache

from interp.data import FOLDER

from .store import Run, open_run


def shipped(study: str) -> list[Run]:
    """The shipped runs of a study; [] where none ships. A run's `manifest["shipped"]` says what of
    it does not."""
    return [run for run in shipped_runs() if run.study == study]


def is_shipped(run: Run) -> bool:
    """Whether a run lies among the workbench's own files."""
    return run.path.is_relative_to(FOLDER)


@cache
def shipped_runs() -> tuple[Run, ...]:
    """All of them."""
    return tuple(open_run(path.parent) for path in sorted(FOLDER.glob("*/*/manifest.json")))
