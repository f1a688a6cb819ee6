"""How exact the projection's paths are, and how far off their statistics, against float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .project import Impl, project_topk
from .projection import SIDES, Projection
from .reference import exact_ids, project_dense

CPU: tuple[Impl, ...] = ("screened", "tiled")


def exactness(
    x: Tensor, w: Tensor, ks: tuple[int, ...], impls: tuple[Impl, ...] = CPU
) -> list[dict[str, Any]]:
    """Of each path and k: share of certified rows, and whether all ids are float64's."""
    wanted, rows = exact_ids(x, w, max(ks)), []
    for k in ks:
        for impl in impls:
            found = project_topk(x, w, k, stats=False, impl=impl)
            assert found.top is not None
            assert found.bottom is not None
            same = torch.equal(found.top.ids, wanted["top"][:, :k]) and torch.equal(
                found.bottom.ids, wanted["bottom"][:, :k]
            )
            rows.append({"impl": impl, "k": k, "certified": found.certified, "exact": same})
    return rows


def statistic_errors(
    x: Tensor, w: Tensor, k: int, impls: tuple[Impl, ...] = CPU
) -> list[dict[str, Any]]:
    """Median and largest error of every statistic against float64, naive and ours."""
    oracle = _flat(project_dense(x.double(), w.double(), k, SIDES, True))
    variants: dict[str, Projection] = {
        "naive float32": project_topk(x, w, k, impl="naive"),
        "naive bfloat16": project_dense(x.bfloat16(), w.bfloat16(), k, SIDES, True),
        **{impl: project_topk(x, w, k, impl=impl) for impl in impls},
    }
    rows = []
    for variant, projection in variants.items():
        for statistic, values in _flat(projection).items():
            error = (values - oracle[statistic]).abs()
            found = {"median": float(error.median()), "largest": float(error.max())}
            rows.append({"variant": variant, "statistic": statistic, **found})
    return rows


def _flat(projection: Projection) -> dict[str, Tensor]:
    """Statistics by name, float64; of the two sides, one after the other."""
    top, bottom, moments = projection.top, projection.bottom, projection.moments
    assert top is not None
    assert bottom is not None
    assert moments is not None
    names = ("logits", "logsumexp", "entropy", "max_prob")
    values = {name: torch.cat([getattr(side, name) for side in (top, bottom)]) for name in names}
    values |= moments._asdict()
    values["z"] = (top.logits[:, 0].double() - moments.mean.double()) / moments.var.double().sqrt()
    return {name: value.double() for name, value in values.items()}
