"""`interp figure`, `interp report` and `interp cite`: what a stored run gives away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..citing import citation
from ..errors import UserError
from ..runs.fit import check_fits
from ..runs.shipped import shipped_runs
from ..runs.store import Store
from .common import Json, Runs, answered, bound, say

RunName = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="RUN",
        help="A run's folder, the first letters of its key, or a study: its newest run. Where the "
        "store has none of that name, a run that ships.",
    ),
]
FigureName = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="NAME", help="Which figure. Without one, the run's figures are listed."),
]


def _figure(
    run: RunName,
    name: FigureName = "",
    out: Path | None = None,
    width: int = 820,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Save a figure of a run as SVG, PDF or PNG.

    Args:
        out: The file to write; its ending says the format. By default NAME.svg.
        width: Width in pixels; a PNG has twice as many.
    """
    from ..plots import save_figure
    from ..report.of_run import figures_of

    found = Store(runs).find(run, others=shipped_runs())
    check_fits(found.path, found.manifest)
    figures = figures_of(found)
    if not figures:
        raise UserError(f"a run of {found.study} has no figure: its tables are in {found.path}")
    if not name:
        if not answered(json, "figure", {"figures": len(figures)}, found.path, names=list(figures)):
            say(*figures)
        return
    if name not in figures:
        raise UserError(f"this run has no figure '{name}': it has {', '.join(figures)}")
    file = save_figure(figures[name](), out or f"{name}.svg", width)
    if not answered(json, "figure", {"bytes": file.stat().st_size}, found.path, file=str(file)):
        say(file)


def _report(run: RunName, out: Path | None = None, runs: Runs = None, json: Json = False) -> None:
    """Write a run as one HTML file that stands alone: figures, tables, versions, what to cite.

    Args:
        out: The file to write. By default STUDY-KEY.html.
    """
    from ..report.of_run import report_of
    from ..runs.parts import export_text

    found = Store(runs).find(run, others=shipped_runs())
    file = out or Path(f"{found.study}-{found.manifest['key']}.html")
    if file.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"a report is written as .html, not as '{file.name}'")
    export_text(file, report_of(found))
    if not answered(json, "report", {"bytes": file.stat().st_size}, found.path, file=str(file)):
        say(file)


def _cite(run: RunName, runs: Runs = None, json: Json = False) -> None:
    """What to cite for a run, as BibTeX: its method, model, the workbench, and the run."""
    found = Store(runs).find(run, others=shipped_runs())
    text = citation(found)
    if not answered(json, "cite", {}, found.path, bibtex=text):
        say(*text.rstrip("\n").split("\n"))


figure, report, cite = bound(_figure), bound(_report), bound(_cite)
