"""Numerical cores (as `interp.kernels`): fused projections, least squares, AUROCs, scores."""

from pathlib import Path

from .auroc import rank_auroc
from .gram import Fit, Gram
from .project import project_topk
from .projection import Extremes, Moments, Projection, Side
from .scores import RunningScores, Score, Scores
from .statistics import Statistics

__all__ = [
    "Extremes",
    "Fit",
    "Gram",
    "Moments",
    "Projection",
    "RunningScores",
    "Score",
    "Scores",
    "Side",
    "Statistics",
    "project_topk",
    "rank_auroc",
]


def drop_stale(folder: Path) -> None:
    """Delete compiled code in `folder` that is older than any source there.

    numba compiles a function again when its own file has changed, but not when a function that it
    calls has changed in another file. After an update it would silently run the old code.
    """
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink(missing_ok=True)


drop_stale(Path(__file__).parent)  # numba reads an index at a function's first call, not before
