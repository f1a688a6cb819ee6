"""Batched fused projections, and what else runs through the same core (as `interp.kernels`)."""

from .auroc import rank_auroc
from .project import Extremes, Moments, Projection, Side, project_topk

__all__ = ["Extremes", "Moments", "Projection", "Side", "project_topk", "rank_auroc"]
