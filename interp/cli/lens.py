"""`interp lens …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..lens.fit import FitConfig
from ..lens.grid import ShowConfig
from ..runs.store import Run
from .common import print_rows, study_command, with_table

lens = SubcommandApp()


def _grid(run: Run) -> None:
    """A row a layer: the likeliest token at each of the last positions."""
    cells = run.table("cells")
    said = cells.pivot(index="layer", columns="position", values="said")
    tokens = cells.drop_duplicates("position").set_index("position")["token"]
    shown = said[said.columns[-8:]]
    shown.columns = [f"{position} {tokens[position]!r}" for position in shown.columns]
    print_rows(shown.iloc[::-1].reset_index())


study_command(lens, FitConfig, with_table("layers"))
study_command(lens, ShowConfig, _grid)
