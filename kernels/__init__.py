"""Batched fused projections against a vocabulary (install name `interp.kernels`)."""

from .project import Extremes, Moments, Projection, Side, project_topk

__all__ = ["Extremes", "Moments", "Projection", "Side", "project_topk"]
