"""What is recorded for each call that meets a `Dual`.

A call is, by its name: a question about shapes; linear or affine; a product, in which one factor
has to be frozen (gates.py); a unit of units.py; written out in other calls (rewrites.py); a
statistic, whose result is a decision; or refused, with its name. A call on decisions alone is done
on the reference, and its result is a decision.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import UserError
from . import calls
from .attention import attention
from .gates import FROZEN, PLAIN, carrier, rank
from .replay import (
    Args,
    Function,
    Kwargs,
    Replay,
    both_halves,
    linear_call,
    multipliers,
    same_call,
    without,
)
from .rewrites import REWRITES
from .tape import Affine, Dual, Tape, duals, references, tape_of
from .units import ACTIVATIONS, OTHERS, power

INTEGERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def apply(func: Function, args: Args, kwargs: Kwargs) -> Any:
    """Do one torch call on Duals.

    Raises:
        UserError: a call that is not linear and that no rule replays.
    """
    name = _call_name(func)
    if not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
    tape = tape_of(args, kwargs)
    args, kwargs = _without_likes(name, args, kwargs)
    if name in calls.ESCAPES:
        raise UserError(f"{tape.where(name)} takes numbers out of torch: they cannot be followed")
    kwargs = {k: v for k, v in kwargs.items() if k != "out" or v is not None}
    for option in ("out", "rounding_mode", "reduce"):
        if kwargs.get(option) is not None:
            raise UserError(f"no rule for {tape.where(name)} with {option}")
    if name in calls.QUESTIONS:
        with torch.no_grad():
            answer = func(*references(args), **references(kwargs))
        return _writable(tape, name, answer) if name in calls.ZEROS else answer
    if tape.dtype == torch.float64:
        func, args, kwargs = _not_rounded(tape, func, name, args, kwargs)
    if name == "__setitem__":
        return _assign(args)
    if kwargs.get("inplace") or _out_of_place(func) is not func:
        return _overwrite(func, name, args, kwargs)
    return _result(func, name, args, kwargs)


def _result(func: Function, name: str, args: Args, kwargs: Kwargs) -> Any:
    """The result of a call that changes nothing in place."""
    given = duals((args, kwargs))
    if not given:
        return func(*args, **kwargs)
    tape, live = given[0].tape, [dual for dual in given if dual.slot is not None]
    if live and name in REWRITES:
        return REWRITES[name](*args, **kwargs)
    with torch.no_grad():
        reference = func(*references(args), **references(kwargs))
        if not live:
            return _wrap(reference, None, tape, PLAIN, given[0].source)
        frozen = multipliers(name, args, kwargs)
        mixed = next((dual.source for dual in without(given, frozen) if dual.slot is None), "")
        step = None if mixed and name in calls.LINEAR else _step(func, name, args, kwargs, live)
    if step is None:  # an activation plus a decision is a decision too: z + z^3 inside a GELU
        return _wrap(reference, None, tape, PLAIN, mixed or tape.where(name))
    carriers, run = step
    count = 1 if isinstance(reference, Tensor) else len(reference)
    slots = tape.add(name, [c.slot for c in carriers if c.slot is not None], run, count)
    return _wrap(reference, slots, tape, rank(name, carriers, given), tape.where(name))


def _step(func: Function, name: str, args: Args, kwargs: Kwargs, live: list[Dual]) -> Replay | None:
    """How to replay a call; None if its result is a decision."""
    tape = live[0].tape
    if name in calls.RANDOM and (kwargs.get("training") or args[5:6] == (True,)):
        raise UserError(f"no rule for {tape.where(name)} in training mode")
    if name in calls.POWERS and args[0] is live[0] and live[0].rank > FROZEN:
        exponent = 2 if name == "square" else (*args[1:], *kwargs.values())[0]
        if isinstance(exponent, (int, float)) and exponent >= 1:
            return [live[0]], power(live[0].reference, exponent)
    if name in calls.STATISTICS:
        return None
    if name in calls.PRODUCTS:
        carries = carrier(name, args, kwargs, live)
        if carries is not None and tape.halves and name in calls.GATINGS and len(live) == 2:
            return both_halves(func, args, kwargs, live)
        return None if carries is None else same_call(func, args, kwargs, [carries])
    if name in calls.LINEAR:
        frozen = multipliers(name, args, kwargs)
        carriers = without(live, frozen)
        if not carriers or any(dual.slot is not None and dual.rank <= FROZEN for dual in frozen):
            return None
        # in this system nothing is detached
        same = torch.positive if name == "detach" else func
        return linear_call(same, name, args, kwargs, carriers)
    if name == "scaled_dot_product_attention":
        return attention(tape, *args, **kwargs)
    unit = ACTIVATIONS.get(name) or OTHERS.get(name)
    if unit is None:
        raise UserError(f"no rule for {tape.where(name)}: the interpreter cannot replay it")
    if duals((args[1:], kwargs)):
        raise UserError(f"no rule for {tape.where(name)} with a setting that depends on the input")
    args[0].activation(tape.where(name))
    return [args[0]], unit(args[0].reference, *args[1:], **kwargs)


def _not_rounded(
    tape: Tape, func: Function, name: str, args: Args, kwargs: Kwargs
) -> tuple[Function, Args, Kwargs]:
    """A call in float64, where the network's own rounds to float32: rounding is not affine, and it
    would cost A half its digits."""

    def raised(value: Any) -> Any:
        if value is torch.float32:
            tape.rounds = True
            return torch.float64
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        tape.rounds = tape.rounds or name in calls.LIKES
        return value.double()

    if func is Tensor.float:
        tape.rounds, func = True, Tensor.double
    return func, *tree_map(raised, (args, kwargs))


def _without_likes(name: str, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """The arguments, with the references of those whose shape and type alone count."""
    if name not in calls.LIKES:
        return args, kwargs
    return (*args[:1], *references(args[1:])), references(kwargs)


def _writable(tape: Tape, name: str, zeros: Tensor) -> Any:
    """Zeros as an activation, since what carries may be added into them: experts' outputs are."""
    if zeros.dtype in INTEGERS:
        return zeros
    like = zeros.clone()
    slots = tape.add(name, [], lambda: like, 1)
    return _wrap(zeros, slots, tape, PLAIN, tape.where(name))


def _assign(args: Args) -> None:
    """`target[where] = value`: the target becomes another activation."""
    target, where, value = args
    if not isinstance(target, Dual):
        raise UserError("an activation is written into a constant: nothing follows it there")
    tape, given = target.tape, [target, *duals(value)]
    index, constant = references((where, value))
    with torch.no_grad():
        target.reference[index] = constant
    _refuse_shared_memory(target)
    slots = [dual.slot for dual in given if dual.slot is not None]
    if len(slots) < len(given):  # an activation with a decision in it is a decision
        target.source = next(dual.source for dual in given if dual.slot is None)
        target.slot, target.rank = None, PLAIN
        return

    def run(into: Tensor, *new: Tensor) -> Tensor:
        out = into.clone()
        out[index] = new[0] if new else constant
        return out

    def linear(into: Tensor, *new: Tensor) -> Tensor:
        out = into.clone()
        out[index] = new[0] if new else 0
        return out

    (target.slot,) = tape.add("__setitem__", slots, Affine(run, linear), 1)
    target.rank = PLAIN


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
    target.slot, target.source, target.rank = result.slot, result.source, result.rank
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


def _wrap(reference: Any, slots: list[int] | None, tape: Tape, rank: int, source: str) -> Any:
    """References with their slots as Duals, in the same sequence; integers stay plain tensors."""
    if isinstance(reference, (tuple, list)):
        return type(reference)(
            _wrap(part, slots and [slots[n]], tape, rank, source)
            for n, part in enumerate(reference)
        )
    if not isinstance(reference, Tensor) or reference.dtype in INTEGERS:
        return reference
    if reference.dtype not in (torch.float32, torch.float64):
        raise UserError(f"{source} gives {reference.dtype}: only float32 and float64 are followed")
    return Dual(reference, slots[0] if slots else None, tape, rank, source)
