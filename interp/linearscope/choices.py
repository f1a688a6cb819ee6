"""Largest values, sorts and pools: what was chosen at x0 is taken from the same places.

Each is written out in `gather` along the places that the reference has, so it moves numbers as
`x[..., 3]` does. A pool's adjoint adds up where windows overlap. `where` chooses between two
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .gates import PIECE, at_least
from .tape import references

Rewrite = Callable[..., Any]
_DIMENSION_AT = {
    **dict.fromkeys(["max", "min", "median", "nanmedian", "mode", "sort", "cummax", "cummin"], 0),
    **dict.fromkeys(("topk", "kthvalue"), 1),
}
"""Calls that give values and their places, and which argument after the tensor is the dimension."""


def _at_places(name: str) -> Rewrite:
    """Values along a dimension, with their places."""

    def rewritten(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = getattr(torch, name)(references(input), *args, **kwargs)
        dim = kwargs.get("dim", next(iter(args[_DIMENSION_AT[name] :]), -1))
        kept = found.indices.ndim == input.ndim
        places = found.indices if kept else found.indices.unsqueeze(dim)
        values = input.gather(dim, places)
        return type(found)(
            (at_least(PIECE, values if kept else values.squeeze(dim)), found.indices)
        )

    return rewritten


def _extreme(name: str) -> Rewrite:
    """`max`, `min` and `median`: along a dimension, of all numbers, or of two tensors."""

    def rewritten(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if not given:
            return _at_places(name)(input.flatten(), 0).values
        if isinstance(given[0], Tensor):
            return _of_two(name)(input, given[0])
        return _at_places(name)(input, *args, **kwargs)

    return rewritten


def _of_two(name: str) -> Rewrite:
    """The larger ("max") or smaller of two tensors, number by number."""

    def rewritten(input: Tensor, other: Tensor) -> Tensor:
        first, second = references((input, other))
        chosen = first >= second if name == "max" else first <= second
        larger: Tensor = at_least(PIECE, torch.where(chosen, input, other))
        return larger

    return rewritten


def _over_dimensions(name: str) -> Rewrite:
    """`amax` ("max") and `amin`."""

    def rewritten(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        dims = (dim,) if isinstance(dim, int) else tuple(dim) or tuple(range(input.ndim))
        last = input.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))
        values: Tensor = _at_places(name)(last, -1).values
        return values.reshape(references(input).amax(dims, keepdim).shape)

    return rewritten


def _pool(name: str, dimensions: int, with_places: bool = False) -> Rewrite:
    def rewritten(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        options = {**kwargs, "return_indices": True}
        places = getattr(F, f"{name}{dimensions}d")(references(input), *args, **options)[1]
        values = input.flatten(-dimensions).gather(-1, places.flatten(-dimensions))
        values = at_least(PIECE, values.view(places.shape))
        return (values, places) if with_places else values

    return rewritten


CHOICES: dict[str, Rewrite] = {
    **{name: _at_places(name) for name in _DIMENSION_AT},
    **{name: _extreme(name) for name in ("max", "min", "median", "nanmedian")},
    **{f"{kind}imum": _of_two(kind) for kind in ("max", "min")},
    **{f"f{kind}": _of_two(kind) for kind in ("max", "min")},
    **{f"a{kind}": _over_dimensions(kind) for kind in ("max", "min")},
    "msort": lambda input: _at_places("sort")(input, 0).values,
    **{
        f"{kind}max_pool{n}d{with_places}": _pool(f"{kind}max_pool", n, bool(with_places))
        for kind in ("", "adaptive_")
        for n in (1, 2, 3)
        for with_places in ("", "_with_indices")
    },
}
