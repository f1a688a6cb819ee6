"""What is recorded for each call that meets a `Dual`.

A call is, by its name: a question about shapes; linear or affine; a product, in which one factor
has to be frozen; a unit of units.py; a statistic, whose result is a decision; or refused, with its
name. A call on decisions alone is done on the reference, and its result is a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from . import calls
from .tape import Affine, Dual, Tape, duals, references, replaced
from .units import ACTIVATIONS, GATES, OTHERS

Function = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Replay = tuple[list[Dual], Affine | Function]
"""The Duals that carry, and the affine function of what they carry; a plain function is linear."""
INTEGERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def apply(func: Function, args: Args, kwargs: Kwargs) -> Any:
    """Do one torch call on Duals.

    Raises:
        UserError: a call that is not linear and that no rule replays.
    """
    name = _call_name(func)
    if not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
    tape = duals((args, kwargs))[0].tape
    if name in calls.ESCAPES:
        raise UserError(f"{tape.where(name)} takes numbers out of torch: they cannot be followed")
    for option in ("out", "rounding_mode"):
        if kwargs.get(option) is not None:
            raise UserError(f"no rule for {tape.where(name)} with {option}")
    if name in calls.QUESTIONS:
        with torch.no_grad():
            return func(*references(args), **references(kwargs))
    if name == "__setitem__":
        return _assign(args)
    if kwargs.get("inplace") or _out_of_place(func) is not func:
        return _overwrite(func, name, args, kwargs)
    return _result(func, name, args, kwargs)


def _result(func: Function, name: str, args: Args, kwargs: Kwargs) -> Any:
    """The result of a call that changes nothing in place."""
    given = duals((args, kwargs))
    tape, live = given[0].tape, [dual for dual in given if dual.slot is not None]
    with torch.no_grad():
        reference = func(*references(args), **references(kwargs))
        if not live:
            return _wrap(reference, None, tape, 0, given[0].source)
        frozen = _multipliers(name, args, kwargs)
        mixed = next((dual.source for dual in _without(given, frozen) if dual.slot is None), "")
        step = None if mixed and name in calls.LINEAR else _step(func, name, args, kwargs, live)
    if step is None:  # an activation plus a decision is a decision too: z + z^3 inside a GELU
        return _wrap(reference, None, tape, 0, mixed or tape.where(name))
    carriers, run = step
    count = 1 if isinstance(reference, Tensor) else len(reference)
    slots = tape.add(name, [c.slot for c in carriers if c.slot is not None], run, count)
    keeps = name in calls.MOVES or (name in calls.SCALES and len(live) == 1)
    gate = GATES.get(name, min(dual.gate for dual in live) if keeps else 0)
    return _wrap(reference, slots, tape, gate, tape.where(name))


def _step(func: Function, name: str, args: Args, kwargs: Kwargs, live: list[Dual]) -> Replay | None:
    """How to replay a call; None if its result is a decision."""
    tape = live[0].tape
    if name in calls.STATISTICS:
        return None
    if name in calls.PRODUCTS:
        carrier = _carrier(name, args, kwargs, live)
        return None if carrier is None else _same_call(func, args, kwargs, [carrier])
    if name in calls.LINEAR:
        if name in calls.RANDOM and (kwargs.get("training") or args[5:6] == (True,)):
            raise UserError(f"no rule for {tape.where(name)} in training mode")
        frozen = _multipliers(name, args, kwargs)
        carriers = _without(live, frozen)
        if not carriers or any(dual.slot is not None and not dual.gate for dual in frozen):
            return None
        # in this system nothing is detached
        same = torch.positive if name == "detach" else func
        order, run = _same_call(same, args, kwargs, carriers)
        bare = _without_summands(name, args, kwargs, carriers)
        return order, Affine(run, _same_call(same, *bare, carriers)[1]) if bare else run
    if name == "scaled_dot_product_attention":
        return _attention(tape, *args, **kwargs)
    unit = ACTIVATIONS.get(name) or OTHERS.get(name)
    if unit is None:
        raise UserError(f"no rule for {tape.where(name)}: the interpreter cannot replay it")
    if duals((args[1:], kwargs)):
        raise UserError(f"no rule for {tape.where(name)} with a setting that depends on the input")
    args[0].activation(tape.where(name))
    return [args[0]], unit(args[0].reference, *args[1:], **kwargs)


def _multipliers(name: str, args: Args, kwargs: Kwargs) -> list[Dual]:
    """The Duals among a linear call's arguments that multiply others of them."""
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    return duals([given[key] for key in calls.FACTORS.get(name, ()) if key in given])


def _without(some: list[Dual], others: list[Dual]) -> list[Dual]:
    return [dual for dual in some if not any(dual is other for other in others)]


def _same_call(
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


class _Hole:
    """Where a step's call takes what it carries."""


_HOLE = _Hole()


def _without_summands(
    name: str, args: Args, kwargs: Kwargs, carriers: list[Dual]
) -> tuple[Args, Kwargs] | None:
    """The arguments of a linear call's linear part: every constant that it adds is 0. None if it
    adds none."""
    summands, factors = calls.SUMMANDS.get(name, ()), calls.FACTORS.get(name, ())
    changed = False

    def bare(value: Any, key: int | str) -> Any:
        nonlocal changed
        if isinstance(value, (list, tuple)):
            return type(value)([bare(part, key) for part in value])
        if isinstance(value, bool) or any(value is dual for dual in carriers):
            return value
        if isinstance(value, Tensor):
            added = key in summands or (key not in factors and value.is_floating_point())
        else:
            added = key in summands and isinstance(value, (int, float))
        changed = changed or added
        if not added:
            return value
        # not 0 * value, which is NaN for a fill of -inf
        return torch.zeros_like(references(value)) if isinstance(value, Tensor) else type(value)(0)

    plain = tuple(bare(value, place) for place, value in enumerate(args))
    named = {key: bare(value, key) for key, value in kwargs.items()}
    return (plain, named) if changed else None


def _carrier(name: str, args: Args, kwargs: Kwargs, live: list[Dual]) -> Dual | None:
    """The factor of a product that carries; None if several could."""
    if "div" in name:
        below = args[0] if name == "__rtruediv__" else (*args, kwargs.get("other"))[1]
        live = [dual for dual in live if dual is not below]
    elif len(live) > 1:
        least = min(dual.gate for dual in live)
        live = [dual for dual in live if dual.gate == least]
    return live[0] if len(live) == 1 else None


def _attention(
    tape: Tape,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Replay:
    """`F.scaled_dot_product_attention` of the values, with the pattern of the references."""
    if dropout_p:
        raise UserError(f"no rule for {tape.where('attention')} in training mode")
    if not isinstance(value, Dual):
        raise UserError(f"no rule for {tape.where('attention')} with constant values")
    value.activation("attention's values")
    q, k, mask = references((query, key, attn_mask))
    # what attention makes of unit vectors is its pattern
    units = torch.eye(k.shape[-2], dtype=k.dtype, device=k.device).expand(*k.shape[:-1], -1)
    weights = F.scaled_dot_product_attention(q, k, units, mask, 0.0, is_causal, **options)
    groups = q.shape[-3] // value.shape[-3] if options.get("enable_gqa") else 1

    def run(v: Tensor) -> Tensor:
        mixed: Tensor = weights @ (v.repeat_interleave(groups, -3) if groups > 1 else v)
        return mixed

    return [value], run


def _assign(args: Args) -> None:
    """`target[where] = value`: the target becomes another activation."""
    target, where, value = args
    if not isinstance(target, Dual):
        raise UserError("an activation is written into a constant: nothing follows it there")
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

    def linear(into: Tensor, *new: Tensor) -> Tensor:
        out = into.clone()
        out[index] = new[0] if new else 0
        return out

    _refuse_shared_memory(target)
    (target.slot,) = tape.add("__setitem__", slots, Affine(run, linear), 1)
    target.gate = 0


def _overwrite(func: Function, name: str, args: Args, kwargs: Kwargs) -> Any:
    """A call that changes its first argument, by the call that makes a new tensor."""
    target = args[0]
    if not isinstance(target, Dual):
        raise UserError(f"{name}() writes an activation into a constant: nothing follows it there")
    _refuse_shared_memory(target)
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    where = target.tape.where(func.__name__)
    plain = _out_of_place(func)
    if plain is None:
        raise UserError(f"no rule for {where}: the interpreter cannot replay it")
    result = _result(plain, name, args, kwargs)
    if result.reference.shape != target.reference.shape:
        raise UserError(f"no rule for {where}: it changes a shape in place")
    with torch.no_grad():
        target.reference.copy_(result.reference)
    target.slot, target.source, target.gate = result.slot, result.source, result.gate
    return target


def _refuse_shared_memory(target: Dual) -> None:
    """Refuse a write into memory that another Dual stands for, whose slot would stay the same."""
    if target.tape.shared(target):
        where = target.tape.module or "the network itself"
        raise UserError(f"{where} writes into memory that a view shares: write into a copy")


def _out_of_place(func: Function) -> Function | None:
    """The call that returns what this one writes, if it writes; None if there is none."""
    name = func.__name__
    if name in calls.INPLACE:
        return getattr(Tensor, calls.INPLACE[name])  # type: ignore[no-any-return]
    if name.startswith("__") or not name.endswith("_"):
        return func
    plain = name.removesuffix("_")
    return next((getattr(h, plain) for h in (Tensor, torch, F) if hasattr(h, plain)), None)


def _call_name(func: Function) -> str:
    name = func.__name__
    if name == "__get__":
        return calls.PROPERTIES.get(func.__self__.__name__, name)  # type: ignore[attr-defined]
    return calls.INPLACE.get(name) or (name if name.startswith("__") else name.removesuffix("_"))


def _wrap(reference: Any, slots: list[int] | None, tape: Tape, gate: int, source: str) -> Any:
    """References with their slots as Duals, in the same sequence; integers stay plain tensors."""
    if isinstance(reference, (tuple, list)):
        return type(reference)(
            _wrap(part, slots and [slots[n]], tape, gate, source)
            for n, part in enumerate(reference)
        )
    if not isinstance(reference, Tensor) or reference.dtype in INTEGERS:
        return reference
    if reference.dtype not in (torch.float32, torch.float64):
        raise UserError(f"{source} gives {reference.dtype}: only float32 and float64 are followed")
    return Dual(reference, slots[0] if slots else None, tape, gate, source)
