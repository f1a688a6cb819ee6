"""`interp circuits …`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from ..circuits.groups import GroupConfig
from ..circuits.heads import HeadConfig
from ..circuits.patching import PatchConfig
from ..circuits.picked import opened
from ..circuits.roles import RolesConfig
from ..circuits.steering import SteerConfig
from ..circuits.trace import TraceConfig
from ..circuits.truth import TruthConfig
from ..errors import UserError
from ..runs.store import Run, Store
from .circuits_heads import looks, moved, roles, says
from .circuits_truth import steer, truth
from .common import Flag, Json, Runs, answered, command, print_rows, say, study_command

circuits = SubcommandApp()


def _largest(run: Run) -> None:
    """The largest nodes, by the names that `circuits group` takes, and what they write."""
    graph = opened(run)
    by = "effect" if graph.has_effects else "attribution"
    order = graph.parts[by].abs().sort_values(ascending=False, kind="stable").index
    largest = graph.parts.loc[order[:20]].drop(columns="name")
    said = largest.rename(columns={"label": "name", "top": "writes", "bottom": "against"})
    print_rows(said, f"name token activation {by} writes against")


def _groups(run: Run) -> None:
    """The groups of a grouped circuit."""
    graph = opened(run)
    by = "effect" if graph.has_effects else "attribution"
    print_rows(graph.parts[graph.parts["kind"] == "group"], f"name {by} inside members")


study_command(circuits, TraceConfig, _largest)
study_command(circuits, GroupConfig, _groups)
study_command(circuits, TruthConfig, truth)
study_command(circuits, SteerConfig, steer)
study_command(circuits, HeadConfig, looks, says)
study_command(circuits, PatchConfig, moved)
study_command(circuits, RolesConfig, roles)


@command(circuits, "export")
def export(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    index: Flag = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Write a circuit to a file: .html, one page that stands alone, or .json, which the front end
    of circuit-tracer and Neuronpedia read.

    Args:
        run: A run of circuits.trace or circuits.group: its folder, the first letters of its key, or
            one of these names: its newest run.
        file: What to write; its ending says which.
        index: With .json, enter it in graph-metadata.json beside it, which circuit-tracer's server
            lists.
    """
    from ..circuits.export import write_json
    from ..circuits.html import page
    from ..runs.parts import export_text

    kind = file.suffix.lower()
    if kind not in (".json", ".html"):
        raise UserError(f"a circuit is written as .json or .html, not as '{file.name}'")
    if index and kind == ".html":
        raise UserError("--index is for a .json file")
    found = Store(runs).find(run)
    graph = opened(found)
    if kind == ".json":
        write_json(graph, file, index)
    else:
        export_text(file, page(graph))
    numbers = {"nodes": len(graph.nodes), "edges": len(graph.edges), "bytes": file.stat().st_size}
    if not answered(json, "circuits.export", numbers, found.path, file=str(file)):
        say(file)
