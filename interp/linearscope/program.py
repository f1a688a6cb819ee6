"""The affine program that a network is for one input: its linear operations with all decisions in.

A step takes what earlier steps made and is affine in it: a convolution with its bias, the mask that
a ReLU had. Running the steps on x1 gives LI(x1) = A x1 + r. They are pure functions, so torch's
vmap runs them on many inputs at once and autograd runs them backwards (A^T v).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


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

    def constants(self, x: Float[Tensor, "1 ..."]) -> tuple[Tensor, list[tuple[str, Tensor]]]:
        """The output for `x`, and by submodule the constants that its steps add to any carried
        tensors, as leaves of autograd that the output depends on."""
        leaves: list[tuple[str, Tensor]] = []
        return self._run(x, leaves), leaves

    def _run(self, x: Tensor, leaves: list[tuple[str, Tensor]] | None = None) -> Tensor:
        values = {0: x}
        for step, free in zip(self.steps, self._free, strict=True):
            carried = [values[slot] for slot in step.inputs]
            results = _tensors(step.run(*carried))
            if leaves is not None:
                with torch.no_grad():
                    alone = _tensors(step.run(*map(torch.zeros_like, carried)))
                if any(bool(constant.any()) for constant in alone):
                    if len(results) != 1:
                        raise NotImplementedError(f"{step.name} adds to several results")
                    leaf = alone[0].clone().requires_grad_(True)
                    leaves.append((step.module, leaf))
                    results = [results[0] - alone[0] + leaf]
            values.update(zip(step.outputs, results, strict=True))
            for slot in free:
                del values[slot]
        return values[self._output]


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)
