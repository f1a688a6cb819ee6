"""`interp circuits …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..circuits.heads import HeadConfig
from ..circuits.patching import PatchConfig
from ..circuits.roles import HeadsConfig
from ..circuits.trace import TraceConfig
from ..runs.store import Run
from .circuits_heads import looks, moved, roles, says
from .common import print_rows, study_command

circuits = SubcommandApp()


def _largest(run: Run) -> None:
    """The largest nodes and what they write."""
    nodes = run.table("nodes").query("kind not in ('target', 'remainder')")
    by = "attribution" if nodes["effect"].isna().all() else "effect"
    largest = nodes.reindex(nodes[by].abs().sort_values(ascending=False).index)
    print_rows(largest.head(20), f"name position token activation {by} top bottom")


study_command(circuits, TraceConfig, _largest)
study_command(circuits, HeadConfig, looks, says)
study_command(circuits, PatchConfig, moved)
study_command(circuits, HeadsConfig, roles)
