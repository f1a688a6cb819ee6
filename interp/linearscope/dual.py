"""A stand-in for an activation that notes what a network does to it.

While the module's own code runs on a `Dual`, every call on it is done on the *reference* (the
activation of x0, as the network computes it) and noted on a `Tape` with the decision that it took,
so that the same linear operations can be run on anything else (see program.py). Calls are caught
with `__torch_function__`: functional and in-place ones do not escape.

A Dual without a slot is a *decision*: a number that depends on the reference alone (an attention
pattern, a norm's scale). It may scale an activation but not be added to one, nor be the output:
then something non-linear would pass for a constant without a word.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .program import Hole, Step


class Dual(Tensor):
    """An activation of the network and its place on the tape."""

    reference: Tensor
    slot: int | None
    gate: int
    """Its rank if a smooth unit made it, else 0: in a product the lowest carries."""
    source: str
    """What made it: for the message if a decision is used as an activation."""
    tape: Tape

    @staticmethod
    def __new__(
        cls, reference: Tensor, slot: int | None, tape: Tape, gate: int = 0, source: str = ""
    ) -> Dual:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, reference.shape, dtype=reference.dtype, device=reference.device
        )
        made.reference, made.slot, made.tape = reference, slot, tape
        made.gate, made.source = gate, source
        tape.named(made)
        return made  # type: ignore[no-any-return]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        kind = "decision" if self.slot is None else "activation"
        return f"Dual({kind} {list(self.reference.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        from .rules import apply

        return apply(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise UserError(f"{func} cannot be followed: no rule saw it")

    def activation(self, use: str) -> int:
        """Its slot.

        Raises:
            UserError: it has none: a non-linear result would pass for a constant.
        """
        if self.slot is None:
            raise UserError(
                f"{self.source} is not linear and reaches {use}: the interpreter cannot replay it"
            )
        return self.slot


class Tape:
    """The steps of one pass, in order; slot 0 is the input."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._slots = 1
        self._modules: list[str] = []
        self._names: dict[int, list[weakref.ref[Dual]]] = {}

    def named(self, dual: Dual) -> None:
        """Remember a name of some memory."""
        here = dual.reference.untyped_storage().data_ptr()
        self._names.setdefault(here, []).append(weakref.ref(dual))

    def others(self, dual: Dual) -> list[Dual]:
        """Other Duals, still in use, of the same memory."""
        here = dual.reference.untyped_storage().data_ptr()
        alive = [name() for name in self._names.get(here, [])]
        return [other for other in alive if other is not None and other is not dual]

    @property
    def module(self) -> str:
        """The submodule that is running, by its name; "" outside."""
        return self._modules[-1] if self._modules else ""

    def where(self, name: str) -> str:
        """A call as messages name it."""
        return f"{name}() in {self.module or 'the network itself'}"

    def note(self, name: str, inputs: list[int], run: Callable[..., Any], count: int) -> list[int]:
        """Add a step; the slots of its results."""
        outputs = list(range(self._slots, self._slots + count))
        self._slots += count
        self.steps.append(Step(name, self.module, tuple(inputs), tuple(outputs), run))
        return outputs

    @contextmanager
    def following(self, module: nn.Module | None) -> Iterator[None]:
        """Know, inside, which submodule is running."""

        def leave(*_: Any) -> None:
            self._modules.pop()

        handles = []
        for name, part in module.named_modules() if module is not None else ():
            handles += [
                part.register_forward_pre_hook(lambda *_, name=name: self._modules.append(name)),
                part.register_forward_hook(leave, always_call=True),
            ]
        try:
            yield
        finally:
            self._modules.clear()
            for handle in handles:
                handle.remove()


def references(value: Any) -> Any:
    """`value` with each Dual in it, however deep, replaced by its reference."""
    return _mapped(value, lambda dual: dual.reference)


def holes(value: Any, carriers: list[Dual]) -> Any:
    """`value` with the Duals that carry replaced by holes, all others by their references."""
    return _mapped(
        value, lambda dual: Hole() if any(dual is c for c in carriers) else dual.reference
    )


def _mapped(value: Any, change: Callable[[Dual], Any]) -> Any:
    if isinstance(value, Dual):
        return change(value)
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)(_mapped(v, change) for v in value)
    if isinstance(value, dict):
        return {k: _mapped(v, change) for k, v in value.items()}
    return value


def duals(value: Any) -> Iterator[Dual]:
    """Every Dual in nested arguments, in the order in which `program.filled` fills holes."""
    if isinstance(value, Dual):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from duals(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from duals(item)
