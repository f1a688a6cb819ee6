"""What `interp circuits head` and `interp circuits patch` print."""

from __future__ import annotations

from ..circuits.patching import said_position
from ..runs.store import Run
from .common import print_rows, say

WIDEST = 8
"""Columns of a grid on a screen."""


def looks(run: Run) -> None:
    """The five keys with most of the last token's attention, and what it gets from each."""
    cells, sources = run.table("pattern"), run.table("sources")
    last = cells[cells["query"] == cells["query"].max()].nlargest(5, "weight")
    shown = last.merge(sources, left_on="key", right_on="position", suffixes=("", "_source"))
    say("the last token looks at:")
    names = ["key", "key_token", "weight", "length", "direct", "total", "top", "bottom"]
    kept = [name for name in names if name not in ("direct", "total") or shown[name].notna().all()]
    print_rows(shown, " ".join(kept))


def says(run: Run) -> None:
    """Its OV circuit: on the prompt's tokens, and its singular vectors."""
    copies, vectors = run.table("copies"), run.table("vectors")
    say("W_U OV on the prompt's tokens (above: tokens that are placed above the token itself):")
    print_rows(copies[copies["given"]], "token above below top")
    say("its largest singular vectors:")
    print_rows(vectors, "number singular share reads writes writes_not")


def moved(run: Run) -> None:
    """Layers by the last positions, or by heads: the share of the gap that is moved."""
    cells = run.table("cells")
    cells["position"] = cells["position"].map(said_position)
    heads = bool((cells["head"] >= 0).any())
    if heads:
        names = "layer head position value moved"
        say("the heads that move most:")
        print_rows(cells.loc[cells["moved"].abs().nlargest(15).index], names)
        return
    grid = cells.pivot(index="layer", columns="position", values="moved")
    shown = grid[grid.columns[-WIDEST:]]
    tokens = cells.drop_duplicates("position").set_index("position")["token"]
    titles = {at: at if at == "all" else f"{at} {token!r}" for at, token in tokens.items()}
    print_rows(shown.rename(columns=titles).iloc[::-1].reset_index())


def roles(run: Run) -> None:
    """The heads with most of each score."""
    heads = run.table("heads")
    for score in ("induction", "duplicate", "previous"):
        say(f"most {score}:")
        print_rows(heads.nlargest(5, score))
