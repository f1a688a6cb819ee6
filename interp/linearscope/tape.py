"""What a network does to one input, recorded, and the affine program that it is.

While the module's own code runs on a `Dual`, every call on it is done on the *reference* (the
activation of x0, as the network computes it) and recorded on a `Tape` with the decision that it
took. Calls are caught with `__torch_function__`, functional and in-place ones included, and handed
to the tape's rule (rules.py).

A `Step` takes what earlier steps made and is affine in it: a convolution with its bias, the mask
that a ReLU had. Running the steps on x1 gives LI(x1) = A x1 + r. Every step also has its linear
part, the same without what it adds; running those alone gives A u. (LI(u) - LI(0) would be A u as
well, but where r is large the digits of A u are lost in it.) Both are pure functions, so torch's
vmap runs them on many inputs at once and autograd runs them backwards (A^T v).

A Dual without a slot is a *decision*: a number that depends on the reference alone (an attention
pattern, a norm's scale). It may scale an activation. It may not be added to one or be the output:
something non-linear would then silently count as a constant.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from ..errors import UserError


class Dual(Tensor):
    """An activation of the network and its place on the tape."""

    reference: Tensor
    slot: int | None
    rank: int
    """How much of a gate it is (gates.py): in a product the factor of lowest rank carries."""
    source: str
    """The call that made it, for the message when a decision is used as an activation."""
    tape: Tape

    @staticmethod
    def __new__(
        cls, reference: Tensor, slot: int | None, tape: Tape, rank: int = 0, source: str = ""
    ) -> Dual:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, reference.shape, dtype=reference.dtype, device=reference.device
        )
        made.reference, made.slot, made.tape = reference, slot, tape
        made.rank, made.source = rank, source
        tape.made.append(weakref.ref(made))
        return made  # type: ignore[no-any-return]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        kind = "decision" if self.slot is None else "activation"
        return f"Dual({kind} {list(self.reference.shape)})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return tape_of(args, kwargs).rule(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise UserError(f"{func} cannot be followed: no rule saw it")

    def activation(self, use: str) -> int:
        """Its slot.

        Raises:
            UserError: it has none, so it is not linear in the input.
        """
        if self.slot is None:
            raise UserError(
                f"{self.source} is not linear and reaches {use}: the interpreter cannot replay it"
            )
        return self.slot


class Affine(NamedTuple):
    """An affine function and its linear part. A rule that adds nothing may give one plain function
    in its place."""

    run: Callable[..., Any]
    """Carried tensors -> a tensor, or a sequence of them if it has several outputs."""
    linear: Callable[..., Any]
    """The same without the constants: run(z) - run(0), computed without that difference."""


class Step(NamedTuple):
    """One affine operation on the tape."""

    name: str
    module: str
    """The submodule that it ran in."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    does: Affine


class Tape:
    """The steps of one pass, in order; slot 0 is the input."""

    def __init__(self, rule: Callable[..., Any], dtype: torch.dtype, halves: bool = False) -> None:
        self.halves = halves
        """Whether both factors of a gated product carry, each a half of it; else the gate is
        frozen."""
        self.rule = rule
        """What does one torch call on Duals: (function, args, kwargs) -> its result."""
        self.dtype = dtype
        """The input's type, in which everything is replayed."""
        self.rounds = False
        """Whether the network itself computes in less: float32, for an input in float64."""
        self.steps: list[Step] = []
        self._slots = 1
        self._modules: list[str] = []
        self.made: list[weakref.ref[Dual]] = []
        """Every Dual of this tape."""

    def shared(self, dual: Dual) -> bool:
        """Whether another Dual, still in use, stands for the same memory."""
        alive = [other for reference in self.made if (other := reference()) is not None]
        addresses = [other.reference.untyped_storage().data_ptr() for other in alive]
        return addresses.count(dual.reference.untyped_storage().data_ptr()) > 1

    @property
    def module(self) -> str:
        """The submodule that is running, by its name; "" outside."""
        return self._modules[-1] if self._modules else ""

    def where(self, name: str) -> str:
        """A call as messages name it."""
        return f"{name}() in {self.module or 'the network itself'}"

    def add(
        self, name: str, inputs: list[int], does: Affine | Callable[..., Any], count: int
    ) -> list[int]:
        """Add a step; the slots of its results. A plain function is linear."""
        outputs = list(range(self._slots, self._slots + count))
        self._slots += count
        affine = does if isinstance(does, Affine) else Affine(does, does)
        self.steps.append(Step(name, self.module, tuple(inputs), tuple(outputs), affine))
        return outputs

    @contextmanager
    def following(self, module: nn.Module | None) -> Iterator[None]:
        """Know, inside, which submodule is running. The hooks are of this thread and not of the
        modules, on which nothing can stay behind."""
        children = () if module is None else module.named_modules()
        names = {id(child): name for name, child in children}
        thread = get_ident()

        def enter(child: nn.Module, *_: Any) -> None:
            if id(child) in names and get_ident() == thread:
                self._modules.append(names[id(child)])

        def leave(child: nn.Module, *_: Any) -> None:
            if id(child) in names and get_ident() == thread:
                self._modules.pop()

        with ExitStack() as hooks:
            hooks.callback(self._modules.clear)
            hooks.enter_context(register_module_forward_pre_hook(enter))
            hooks.enter_context(register_module_forward_hook(leave, always_call=True))
            yield


_LEAVES = {Tensor, nn.Parameter, int, float, bool, str, type(None), torch.dtype, torch.device}
"""What nothing is inside of: most of a call's arguments, of which there are thousands a pass."""


def replaced(value: Any, kind: type, new: Callable[[Any], Any]) -> Any:
    """`value` with new(part) for each part of a kind in it, however deep: torch's pytree for what
    arguments are, in a fraction of its time, which is longer than a small network's."""
    if isinstance(value, kind):
        return new(value)
    if isinstance(value, dict):
        return {key: replaced(part, kind, new) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [p if type(p) in _LEAVES else replaced(p, kind, new) for p in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def references(value: Any) -> Any:
    """`value` with each Dual in it, however deep, replaced by its reference."""
    return replaced(value, Dual, lambda dual: dual.reference)


def duals(value: Any) -> list[Dual]:
    """Every Dual in nested arguments."""
    if isinstance(value, Dual):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [dual for part in value if type(part) not in _LEAVES for dual in duals(part)]


def tape_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tape:
    """The tape of a call's Duals."""
    first = args[0] if args and isinstance(args[0], Dual) else duals((args, kwargs))[0]
    return first.tape


class Constant(NamedTuple):
    """What a step adds to anything."""

    module: str
    slot: int
    """The step's; earlier steps have lower ones."""
    leaf: Tensor


class Unrolled(NamedTuple):
    """A program run with its graph."""

    output: Tensor
    made: dict[int, Tensor]
    """By slot, the tensors that were to be kept."""
    leaves: dict[int, Tensor]
    """By slot, what later steps took in their place."""
    constants: list[Constant]
    """All that the steps add, as leaves."""


class Program:
    """The steps between slot 0 and the output's, without those that the output does not need."""

    def __init__(self, steps: Sequence[Step], output: int) -> None:
        needed, kept = {output}, []
        for step in reversed(steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                kept.append(step)
        self._steps, self._output = kept[::-1], output
        self._last_use = {slot: step for step in self._steps for slot in step.inputs}

    def __call__(self, x: Float[Tensor, "1 ..."]) -> Float[Tensor, "1 ..."]:
        """A x + r for one input."""
        return self._through(x, lambda step, carried: _tensors(step.does.run(*carried)))

    def linear(self, u: Float[Tensor, "1 ..."]) -> Float[Tensor, "1 ..."]:
        """A u for one input."""
        return self._through(u, lambda step, carried: _tensors(step.does.linear(*carried)))

    def unrolled(
        self, x: Float[Tensor, "1 ..."], keep: Collection[int] = (), cut: Collection[int] = ()
    ) -> Unrolled:
        """A x + r as a graph of autograd from x and from everything that steps add.

        Args:
            keep: slots to give.
            cut: of those, slots that later steps take as leaves.
        """
        made = {0: x} if 0 in keep else {}
        leaves = {0: x} if 0 in cut else {}
        constants: list[Constant] = []

        def noted(step: Step, carried: list[Tensor]) -> list[Tensor]:
            results = apart(step, carried)
            for n, slot in enumerate(step.outputs):
                if slot in keep:
                    made[slot] = results[n]
                if slot in cut:
                    results[n] = leaves[slot] = results[n].detach().requires_grad_(True)
            return results

        def apart(step: Step, carried: list[Tensor]) -> list[Tensor]:
            results = _tensors(step.does.linear(*carried))
            if step.does.run is step.does.linear:
                return results
            with torch.no_grad():
                added = _tensors(step.does.run(*map(torch.zeros_like, carried)))
            for n, constant in enumerate(added):
                if bool(constant.any()):
                    leaf = constant.clone().requires_grad_(True)
                    constants.append(Constant(step.module, step.outputs[n], leaf))
                    results[n] = results[n] + leaf
            return results

        return Unrolled(self._through(x, noted), made, leaves, constants)

    @torch.no_grad()
    def first_not_finite(self, x: Float[Tensor, "1 ..."]) -> str:
        """Where A x + r first has a NaN or an infinity, as a clause of a message; "" if nowhere."""
        found: list[str] = []

        def watched(step: Step, carried: list[Tensor]) -> list[Tensor]:
            results = _tensors(step.does.run(*carried))
            if not found and not all(bool(result.isfinite().all()) for result in results):
                found.append(
                    f", first after {step.name}() in {step.module or 'the network itself'}"
                )
            return results

        self._through(x, watched)
        return "".join(found)

    def _through(self, x: Tensor, do: Callable[[Step, list[Tensor]], list[Tensor]]) -> Tensor:
        """The output's slot after all steps, each done by `do`."""
        values = {0: x}
        for step in self._steps:
            results = do(step, [values[slot] for slot in step.inputs])
            values.update(zip(step.outputs, results, strict=True))
            for slot in set(step.inputs) - {self._output}:
                if self._last_use[slot] is step:
                    del values[slot]
        return values[self._output]


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)
