"""Batched fused projections, and what else runs through the same core (as `interp.kernels`)."""

from pathlib import Path

from .auroc import rank_auroc
from .gram import Fit, Gram
from .project import project_topk
from .projection import Extremes, Moments, Projection, Side
from .scores import RunningScores, Scores
from .statistics import Statistics

__all__ = [
    "Extremes",
    "Fit",
    "Gram",
    "Moments",
    "Projection",
    "RunningScores",
    "Scores",
    "Side",
    "Statistics",
    "project_topk",
    "rank_auroc",
]


def drop_stale(folder: Path) -> None:
    """Forget compiled code in `folder` that is older than any source there.

    numba compiles a function again when its own file has changed, but not when one that it calls
    has changed in another file: after an update it would run the old code without a word.
    """
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink(missing_ok=True)


drop_stale(Path(__file__).parent)  # numba reads an index at a function's first call, not before
