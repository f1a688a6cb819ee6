"""Numerical cores (as `interp.kernels`): fused projections, least squares, AUROCs, scores."""

import interp.compiled  # noqa: F401  says where numba keeps what the others here have it compile

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
