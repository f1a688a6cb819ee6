"""The affine program that a network is for one input: its linear operations with all decisions in.

A step takes what earlier steps made and is affine in it: a convolution with its bias, the mask that
a ReLU had. Running the steps on x1 gives LI(x1) = A x1 + r. They are pure functions, so torch's
vmap runs them on many inputs at once and autograd turns them around (A^T v).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Hole:
    """Where in a call's arguments a carried tensor goes."""


class Step(NamedTuple):
    """One affine operation on the tape."""

    name: str
    module: str
    """The submodule that it ran in."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    run: Callable[..., Any]
    """Carried tensors -> a tensor, or a sequence of them if it has several outputs."""


class Program:
    """The steps between slot 0 and the output's, without those that the output does not need."""

    def __init__(self, steps: Sequence[Step], output: int) -> None:
        needed, kept = {output}, []
        for step in reversed(steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                kept.append(step)
        self.steps, self._output = kept[::-1], output
        last = {slot: place for place, step in enumerate(self.steps) for slot in step.inputs}
        self._free: list[list[int]] = [[] for _ in self.steps]
        for slot, place in last.items():
            if slot != output:
                self._free[place].append(slot)

    def __call__(self, x: Float[Tensor, "1 ..."]) -> Float[Tensor, "1 ..."]:
        """A x + r for one input."""
        return self._run(x)

    def batch(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The same for many inputs at once."""
        if len(x) == 1:
            return self(x)
        several: Tensor = torch.vmap(self)(x[:, None])
        return several[:, 0]

    def constants(self, x: Float[Tensor, "1 ..."]) -> tuple[Tensor, dict[int, Tensor]]:
        """The output for `x`, and by step what it adds whatever is carried, as leaves of autograd
        that the output depends on."""
        leaves: dict[int, Tensor] = {}

        def note(place: int, made: list[Tensor], carried: list[Tensor]) -> list[Tensor]:
            with torch.no_grad():
                alone = _tensors(self.steps[place].run(*map(torch.zeros_like, carried)))
            if not any(bool(part.any()) for part in alone):
                return made
            if len(made) != 1:
                raise NotImplementedError(f"{self.steps[place].name} adds to several results")
            leaves[place] = alone[0].clone().requires_grad_(True)
            return [made[0] - alone[0] + leaves[place]]

        return self._run(x, note), leaves

    def _run(self, x: Tensor, note: Callable[..., list[Tensor]] | None = None) -> Tensor:
        values = {0: x}
        for place, step in enumerate(self.steps):
            carried = [values[slot] for slot in step.inputs]
            made = _tensors(step.run(*carried))
            if note:
                made = note(place, made, carried)
            values.update(zip(step.outputs, made, strict=True))
            for slot in self._free[place]:
                del values[slot]
        return values[self._output]


def filled(value: Any, carried: Iterator[Tensor]) -> Any:
    """A call's arguments with each hole filled by the next carried tensor."""
    if isinstance(value, Hole):
        return next(carried)
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)(filled(v, carried) for v in value)
    if isinstance(value, dict):
        return {k: filled(v, carried) for k, v in value.items()}
    return value


def _tensors(made: Any) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made)
