"""The ids and the statistics of the projection's paths, compared with float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .project import Impl, project_topk
from .projection import SIDES, Projection
from .reference import exact_ids, project_dense
from .screened import FORMATS

CPU_IMPLS: tuple[Impl, ...] = (*(numbers.name for numbers in FORMATS if numbers.sound()), "tiled")


def exactness(
    x: Tensor, w: Tensor, ks: tuple[int, ...], impls: tuple[Impl, ...] = CPU_IMPLS
) -> list[dict[str, Any]]:
    """For each k and path: the share of certified rows, and whether all ids are float64's."""
    wanted, rows = exact_ids(x, w, max(ks)), []
    for k in ks:
        for impl in impls:
            projection = project_topk(x, w, k, stats=False, impl=impl)
            same = all(
                torch.equal(getattr(projection, side).ids, wanted[side][:, :k]) for side in SIDES
            )
            rows.append({"impl": impl, "k": k, "certified": projection.certified, "exact": same})
    return rows


def statistic_errors(
    x: Tensor, w: Tensor, k: int, impls: tuple[Impl, ...] = CPU_IMPLS
) -> list[dict[str, Any]]:
    """Median and largest error of every statistic of naive torch and of `impls` against float64."""
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
            errors = {"median": float(error.median()), "largest": float(error.max())}
            rows.append({"variant": variant, "statistic": statistic, **errors})
    return rows


def _flat(projection: Projection) -> dict[str, Tensor]:
    """[2 n] float64 of every statistic that the sides have (top first), [n] of the others."""
    top, moments = projection.top, projection.moments
    assert top is not None
    assert moments is not None
    sides = [getattr(projection, side) for side in SIDES]
    names = ("logits", "logsumexp", "entropy", "max_prob")
    values = {name: torch.cat([getattr(side, name) for side in sides]) for name in names}
    values |= moments._asdict()
    values["z"] = (top.logits[:, 0].double() - moments.mean.double()) / moments.var.double().sqrt()
    return {name: value.double() for name, value in values.items()}
