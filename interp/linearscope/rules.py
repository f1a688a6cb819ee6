"""What is noted for each call that meets a `Dual`.

A call is, by its name: a question about shapes; linear or affine; a product, in which one factor
has to be frozen; a unit of units.py; a statistic, whose result is a decision; or refused by name.
Calls on decisions alone are done on the reference and stay decisions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .calls import (
    ESCAPES,
    FACTORS,
    INPLACE,
    LINEAR,
    MOVES,
    PRODUCTS,
    PROPERTIES,
    QUESTIONS,
    RANDOM,
    SCALES,
    SHAPES,
    STATISTICS,
)
from .dual import Dual, Tape, duals, holes, references
from .program import filled
from .units import ACTIVATIONS, GATES, OTHERS, pattern

WHOLE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def apply(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do one torch call on Duals.

    Raises:
        UserError: a call that is not linear and that no rule replays.
    """
    name = _plain(func)
    if not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
    if name in ESCAPES:
        tape = next(duals((args, kwargs))).tape
        raise UserError(f"{tape.where(name)} takes numbers out of what can be followed")
    for option in ("out", "rounding_mode"):
        if kwargs.get(option) is not None:
            tape = next(duals((args, kwargs))).tape
            raise UserError(f"no rule for {tape.where(name)} with {option}")
    if name in SHAPES | QUESTIONS:
        with torch.no_grad():
            return func(*references(args), **references(kwargs))
    if name == "__setitem__":
        return _assign(args)
    if _inplace(func, kwargs):
        return _overwrite(func, name, args, kwargs)
    return _new(func, name, args, kwargs)


def _new(func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a call that changes nothing in place."""
    found = list(duals((args, kwargs)))
    tape, live = found[0].tape, [dual for dual in found if dual.slot is not None]
    with torch.no_grad():
        reference = func(*references(args), **references(kwargs))
        if not live:
            return _wrap(reference, None, tape, 0, found[0].source)
        frozen = _factors(name, args, kwargs)
        mixed = next((dual.source for dual in _but(found, frozen) if dual.slot is None), "")
        step = None if mixed and name in LINEAR else _step(func, name, args, kwargs, live)
    if step is None:  # an activation plus a decision is a decision too: z + z^3 inside a GELU
        return _wrap(reference, None, tape, 0, mixed or tape.where(name))
    carriers, run = step
    count = 1 if isinstance(reference, Tensor) else len(reference)
    slots = tape.note(name, [c.slot for c in carriers if c.slot is not None], run, count)
    keeps = name in MOVES or (name in SCALES and len(live) == 1)
    gate = GATES.get(name, min(dual.gate for dual in live) if keeps else 0)
    return _wrap(reference, slots, tape, gate, tape.where(name))


def _step(
    func: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    live: list[Dual],
) -> tuple[list[Dual], Callable[..., Any]] | None:
    """Who carries, and the affine function of what they carry; None for a decision."""
    tape = live[0].tape
    if name in STATISTICS:
        return None
    if name in PRODUCTS:
        carrier = _factor(name, args, kwargs, live)
        return None if carrier is None else _linear(func, args, kwargs, [carrier])
    if name in LINEAR:
        if name in RANDOM and (kwargs.get("training") or args[5:6] == (True,)):
            raise UserError(f"{tape.where(name)} draws, or uses statistics of its batch")
        frozen = _factors(name, args, kwargs)
        carriers = _but(live, frozen)
        if not carriers or any(dual.slot is not None and not dual.gate for dual in frozen):
            return None
        return _linear(_passed_on if name == "detach" else func, args, kwargs, carriers)
    if name == "scaled_dot_product_attention":
        return _attention(args, kwargs, tape)
    unit = ACTIVATIONS.get(name) or OTHERS.get(name)
    if unit is None:
        raise UserError(f"no rule for {tape.where(name)}: it may not be linear")
    if any(True for _ in duals((args[1:], kwargs))):
        raise UserError(f"no rule for {tape.where(name)} with a setting that depends on the input")
    args[0].activation(tape.where(name))
    return [args[0]], unit(args[0].reference, *args[1:], **kwargs)


def _passed_on(x: Tensor) -> Tensor:
    """`detach`, for a system in which nothing is detached."""
    return x


def _factors(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Dual]:
    """The Duals among a linear call's arguments that multiply others of them."""
    places = FACTORS.get(name, ())
    given = [args[p] for p in places if isinstance(p, int) and p < len(args)]
    given += [kwargs[p] for p in places if isinstance(p, str) and p in kwargs]
    return list(duals(given))


def _but(found: list[Dual], others: list[Dual]) -> list[Dual]:
    return [dual for dual in found if not any(dual is other for other in others)]


def _linear(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], carriers: list[Dual]
) -> tuple[list[Dual], Callable[..., Any]]:
    """The call itself, on what some of its arguments carry."""
    with_holes = holes((args, kwargs), carriers)

    def run(*carried: Tensor) -> Any:
        plain, named = filled(with_holes, iter(carried))
        return func(*plain, **named)

    order = [dual for dual in duals((args, kwargs)) if any(dual is c for c in carriers)]
    return order, run


def _factor(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], live: list[Dual]
) -> Dual | None:
    """The factor of a product that carries; None if none of two can be said to be a gate."""
    if "div" in name:
        below = args[0] if name == "__rtruediv__" else (*args, kwargs.get("other"))[1]
        live = [dual for dual in live if dual is not below]
    elif len(live) > 1:
        least = min(dual.gate for dual in live)
        live = [dual for dual in live if dual.gate == least]
    return live[0] if len(live) == 1 else None


def _attention(
    args: tuple[Any, ...], kwargs: dict[str, Any], tape: Tape
) -> tuple[list[Dual], Callable[..., Any]]:
    bound = _ATTENTION.bind(*args, **kwargs)
    bound.apply_defaults()
    query, key, value, mask, dropped, causal, scale, grouped = bound.args
    if dropped:
        raise UserError(f"{tape.where('attention')} draws: put the network in evaluation mode")
    if not isinstance(value, Dual):
        raise UserError(f"{tape.where('attention')} has constant values")
    value.activation("attention's values")
    q, k, m = references((query, key, mask))
    weights = pattern(q, k, m, causal, scale, grouped)
    groups = q.shape[-3] // value.shape[-3] if grouped else 1

    def run(v: Tensor) -> Tensor:
        mixed: Tensor = weights @ (v.repeat_interleave(groups, -3) if groups > 1 else v)
        return mixed

    return [value], run


def _attention_arguments(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None: ...


_ATTENTION = inspect.signature(_attention_arguments)


def _assign(args: tuple[Any, ...]) -> None:
    """`target[where] = value`: the target becomes another activation."""
    target, where, value = args
    if not isinstance(target, Dual):
        raise UserError("an activation is written into a constant: it cannot be followed")
    tape, carriers = target.tape, [target, *duals(value)]
    slots = [dual.activation(tape.where("an assignment")) for dual in carriers]
    index = references(where)
    with torch.no_grad():
        target.reference[index] = references(value)
    constant = references(value)

    def run(into: Tensor, *new: Tensor) -> Tensor:
        out = into.clone()
        out[index] = new[0] if new else constant
        return out

    _alone(target)
    (target.slot,) = tape.note("__setitem__", slots, run, 1)
    target.gate = 0


def _overwrite(
    func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A call that changes its first argument, made anew."""
    target = args[0]
    if not isinstance(target, Dual):
        raise UserError(f"{name}() writes an activation into a constant: it cannot be followed")
    _alone(target)
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    plain = _outplace(func)
    if plain is None:
        raise UserError(f"no rule for {target.tape.where(func.__name__)}")
    made = _new(plain, name, args, kwargs)
    if made.reference.shape != target.reference.shape:
        raise UserError(f"{target.tape.where(func.__name__)} changes a shape in place")
    with torch.no_grad():
        target.reference.copy_(made.reference)
    target.slot, target.source, target.gate = made.slot, made.source, made.gate
    return target


def _alone(target: Dual) -> None:
    """Refuse to write into memory that has another name, whose slot would stay as it is."""
    if target.tape.others(target):
        where = target.tape.module or "the network itself"
        raise UserError(f"in {where} memory is written that a view shares: it cannot be followed")


def _outplace(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """The call that gives what this one writes; None if there is none."""
    name = func.__name__
    if name in INPLACE:
        return getattr(Tensor, INPLACE[name])  # type: ignore[no-any-return]
    if not name.endswith("_"):
        return func  # it has an option `inplace`, which was taken away
    plain = name.removesuffix("_")
    return next((getattr(h, plain) for h in (Tensor, torch, F) if hasattr(h, plain)), None)


def _plain(func: Callable[..., Any]) -> str:
    name = func.__name__
    if name == "__get__":
        asked: str = func.__self__.__name__  # type: ignore[attr-defined]
        if asked == "data":
            return "detach"
        return "contiguous" if asked in PROPERTIES else name
    return INPLACE.get(name) or (name if name.startswith("__") else name.removesuffix("_"))


def _inplace(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    name = func.__name__
    return (
        name in INPLACE
        or bool(kwargs.get("inplace"))
        or (name.endswith("_") and not name.startswith("__"))
    )


def _wrap(reference: Any, slots: list[int] | None, tape: Tape, gate: int, source: str) -> Any:
    """References with their slots as Duals, in the same sequence; whole numbers stay plain."""
    if isinstance(reference, (tuple, list)):
        return type(reference)(
            _wrap(part, slots and [slots[n]], tape, gate, source)
            for n, part in enumerate(reference)
        )
    if not isinstance(reference, Tensor) or reference.dtype in WHOLE:
        return reference
    if reference.dtype not in (torch.float32, torch.float64):
        raise UserError(f"{source} gives {reference.dtype}: float32 and float64 can be followed")
    return Dual(reference, slots[0] if slots else None, tape, gate, source)
