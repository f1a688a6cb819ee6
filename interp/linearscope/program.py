"""The affine program that a network is for one input: its linear operations with all decisions in.

A step takes what earlier steps made and is affine in it: a convolution with its bias, the mask that
a ReLU had. Running the steps on x1 gives LI(x1) = A x1 + r. They are pure functions, so torch's
vmap runs them on many inputs at once and autograd runs them backwards (A^T v).
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
        last_use = {slot: index for index, step in enumerate(self.steps) for slot in step.inputs}
        self._free: list[list[int]] = [[] for _ in self.steps]
        for slot, index in last_use.items():
            if slot != output:
                self._free[index].append(slot)

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
        """The output for `x`, and by step the constant that it adds to any carried tensors, as a
        leaf of autograd that the output depends on."""
        leaves: dict[int, Tensor] = {}

        def with_leaf(index: int, results: list[Tensor], carried: list[Tensor]) -> list[Tensor]:
            with torch.no_grad():
                alone = _tensors(self.steps[index].run(*map(torch.zeros_like, carried)))
            if not any(bool(constant.any()) for constant in alone):
                return results
            if len(results) != 1:
                raise NotImplementedError(f"{self.steps[index].name} adds to several results")
            leaves[index] = alone[0].clone().requires_grad_(True)
            return [results[0] - alone[0] + leaves[index]]

        return self._run(x, with_leaf), leaves

    def _run(self, x: Tensor, change: Callable[..., list[Tensor]] | None = None) -> Tensor:
        values = {0: x}
        for index, step in enumerate(self.steps):
            carried = [values[slot] for slot in step.inputs]
            results = _tensors(step.run(*carried))
            if change:
                results = change(index, results, carried)
            values.update(zip(step.outputs, results, strict=True))
            for slot in self._free[index]:
                del values[slot]
        return values[self._output]


def replaced(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A call's arguments with each object of a kind, however deep, replaced by `change` of it."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)(replaced(v, kind, change) for v in value)
    if isinstance(value, dict):
        return {k: replaced(v, kind, change) for k, v in value.items()}
    return value


def filled(value: Any, carried: Iterator[Tensor]) -> Any:
    """A call's arguments with each hole filled by the next carried tensor."""
    return replaced(value, Hole, lambda _: next(carried))


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)
