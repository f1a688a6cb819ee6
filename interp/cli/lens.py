"""`interp lens …`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from ..lens.compare import LensCompareConfig
from ..lens.fit import FitConfig
from ..lens.grid import ShowConfig
from ..lens.tune import TuneConfig
from ..model.catalog import DEFAULT_MODEL
from ..runs.store import Run
from .common import Flag, Json, answered, command, print_rows, say, study_command, with_table

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
study_command(lens, TuneConfig, with_table("layers"))
study_command(lens, ShowConfig, _grid)
study_command(lens, LensCompareConfig, with_table("layers", most=200))


@command(lens, "export")
def export(
    asked: Annotated[str, tyro.conf.Positional, tyro.conf.arg(name="lens", metavar="LENS")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    model: str = DEFAULT_MODEL,
    half: Flag = False,
    card: Flag = False,
    json: Json = False,
) -> None:
    """Write a fitted lens as a file: .safetensors, or as Jacobian lenses are published, .pt.

    Args:
        asked: tuned, jacobian, a run's folder or key, or a file.
        out: The file; its ending says the format.
        model: The model it is of.
        half: In float16, half as large.
        card: Also write README.md beside it: what it was fitted on, and how sure it is by layer.
    """
    from ..lens.card import card as written
    from ..lens.files import export as write
    from ..lens.files import open_lens
    from ..model.weights import open_weights
    from ..runs.parts import write_file

    opened = open_lens(asked, open_weights(model))
    if card:
        text = written(opened, out.name)
    write(opened, out, half)
    if card:
        write_file(out.with_name("README.md"), text)
    size = out.stat().st_size
    metrics = {"layers": len(opened.maps), "prompts": opened.prompts, "bytes": size}
    if not answered(json, "lens.export", metrics, file=str(out)):
        say(f"{out}: the {opened.name} lens of {model}, {opened.prompts} prompts, {size:,} bytes")
