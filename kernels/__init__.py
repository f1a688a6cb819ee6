"""Batched fused projections, and what else runs through the same core (as `interp.kernels`)."""

from .auroc import rank_auroc
from .gram import Fit, Gram
from .project import Extremes, Moments, Projection, Side, project_topk
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
