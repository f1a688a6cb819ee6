"""The call itself as a step: a function of what its arguments carry, and its linear part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import calls
from .tape import Affine, Dual, duals, references, replaced

Function = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Replay = tuple[list[Dual], Affine | Function]
"""The Duals that carry, and the affine function of what they carry; a plain function is linear."""


def linear_call(
    func: Function, name: str, args: Args, kwargs: Kwargs, carriers: list[Dual]
) -> Replay:
    """A call of calls.LINEAR, which may add constants."""
    order, run = same_call(func, args, kwargs, carriers)
    bare = _without_summands(name, args, kwargs, carriers)
    return order, Affine(run, same_call(func, *bare, carriers)[1]) if bare else run


def multipliers(name: str, args: Args, kwargs: Kwargs) -> list[Dual]:
    """The Duals among a linear call's arguments that multiply others of them."""
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    return duals([given[key] for key in calls.FACTORS.get(name, ()) if key in given])


def without(some: list[Dual], others: list[Dual]) -> list[Dual]:
    return [dual for dual in some if not any(dual is other for other in others)]


def same_call(
    func: Function, args: Args, kwargs: Kwargs, carriers: list[Dual]
) -> tuple[list[Dual], Function]:
    """The call itself, on what some of its arguments carry."""
    order: list[Dual] = []

    def hole(dual: Dual) -> Any:
        if not any(dual is carrier for carrier in carriers):
            return dual.reference
        order.append(dual)
        return _HOLE

    plain, named = replaced(args, Dual, hole), replaced(kwargs, Dual, hole)

    def run(*carried: Tensor) -> Any:
        rest = iter(carried)
        filled = replaced(plain, _Hole, lambda _: next(rest))
        if not named:
            return func(*filled)
        return func(*filled, **replaced(named, _Hole, lambda _: next(rest)))

    return order, run


def both_halves(func: Function, args: Args, kwargs: Kwargs, factors: list[Dual]) -> Replay:
    """A product of two activations, half of it carried by each: (a b0 + a0 b) / 2."""
    (one, by_one), (other, by_other) = (same_call(func, args, kwargs, [f]) for f in factors)
    return [*one, *other], lambda a, b: (by_one(a) + by_other(b)) / 2


class _Hole:
    """Where a step's call takes what it carries."""


_HOLE = _Hole()


def _without_summands(
    name: str, args: Args, kwargs: Kwargs, carriers: list[Dual]
) -> tuple[Args, Kwargs] | None:
    """The arguments of a linear call's linear part: every constant that it adds is 0. None if it
    adds none."""
    summands, factors = calls.SUMMANDS.get(name, ()), calls.FACTORS.get(name, ())
    given = [*enumerate(args), *kwargs.items()]
    bare = [_bare(value, key in summands, key not in factors, carriers) for key, value in given]
    if all(new is old for new, (_, old) in zip(bare, given, strict=True)):
        return None
    return tuple(bare[: len(args)]), dict(zip(kwargs, bare[len(args) :], strict=True))


def _bare(value: Any, listed: bool, floats: bool, carriers: list[Dual]) -> Any:
    """An argument with its constants 0: numbers if it is `listed` as a summand, tensors then too,
    or if they are floating and `floats`. (Not a closure that calls itself: the carriers would live
    on in it, and who writes in place asks what still lives.)"""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (list, tuple)):
        parts = [_bare(part, listed, floats, carriers) for part in value]
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else type(value)(parts)
    if any(value is dual for dual in carriers):
        return value
    if isinstance(value, Tensor):
        added = listed or (floats and value.is_floating_point())
        return torch.zeros_like(references(value)) if added else value
    # not 0 * value, which is NaN for a fill of -inf
    return type(value)(0) if listed and isinstance(value, (int, float)) else value
