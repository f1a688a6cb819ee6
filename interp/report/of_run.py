"""A report of a stored run: all its figures and the beginnings of its tables, no model needed."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pyarrow.parquet import read_schema

from ..analyses import analyses, label, load
from ..plots import Figures
from ..runs.command import command, shell_line
from ..runs.fit import check_fits
from ..runs.query import query
from ..runs.store import Run
from .document import report
from .section import Section
from .tables import KEPT

if TYPE_CHECKING:
    import pandas as pd


def report_of(run: Run) -> str:
    """The document.

    Raises:
        UserError: the run does not fit its study, or a part was changed.
    """
    check_fits(run.path, run.manifest)
    figures = figures_of(run)
    made = [_figure(name, figures) for name in figures]
    made += [_table(run, name) for name in tables_of(run)]
    model = str(run.config.get("model", ""))
    title = " · ".join(filter(None, [run.study, model, label(run.study, run.config)]))
    return report(title, [_about(run), *made], [run])


def figures_of(run: Run) -> Figures:
    """The figures of a run by name; {} where its analysis has none."""
    entry = analyses().get(run.study.partition(".")[0])
    found: Figures = load(entry.figures)(run) if entry and entry.figures else {}
    return found


def tables_of(run: Run) -> list[str]:
    """Its tables: those that are files of the run itself, and folders of parts of one table."""
    found = [PurePosixPath(name) for name in run.files if name.endswith(".parquet")]
    folders = dict.fromkeys(path.parent for path in found if path.parent.name)
    single = [str(path.with_suffix("")) for path in found if not path.parent.name]
    return single + [name for folder in folders for name in _of_folder(run, folder, found)]


def _of_folder(run: Run, folder: PurePosixPath, found: list[PurePosixPath]) -> list[str]:
    """A folder's tables, or the folder itself where they are parts of one table."""
    inside = [path for path in found if path.parent == folder]
    if len(inside) > PARTS and len({_columns(run, path) for path in inside}) == 1:
        return [str(folder)]
    return [str(path.with_suffix("")) for path in inside]


def _columns(run: Run, path: PurePosixPath) -> tuple[str, ...]:
    return tuple(read_schema(run.part(str(path))).names)


PARTS = 4
"""More tables than this in one folder, of the same columns, are parts of one."""


def _about(run: Run) -> Section:
    line = shell_line(command(run.study, run.config))
    numbers = {name: _short(value) for name, value in run.metrics.items()}
    return Section("What was run", facts={**_settings(run), **numbers}, command=line)


def _settings(run: Run) -> dict[str, str]:
    return {
        name.replace("_", " "): str(value)
        for name, value in run.config.items()
        if value not in (None, "", [])
    }


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure(name: str, figures: Figures) -> Section:
    figure = figures[name]()
    return Section(name.replace("-", " ").replace("_", " "), figures=(figure,))


def _table(run: Run, name: str) -> Section:
    rows, total = _beginning(run, name)
    return Section(
        f"Table {name}", rows=rows, total=total, notebook=f"run.table({name!r})", of=run.study
    )


def _beginning(run: Run, name: str) -> tuple[pd.DataFrame, int]:
    """The first rows of a table, and how many it has."""
    if run.has(name):
        rows = run.table(name)
        return rows.head(KEPT), len(rows)
    source = run.sql(name)
    total = int(query(f"SELECT count(*) AS n FROM {source}")["n"][0])
    return query(f"SELECT * FROM {source} LIMIT {KEPT}"), total
