"""The canonical weights of a model in memory: what `Weights` reads of files, of its parameters."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from .devices import HeldTensors
from .families import ModelSpec
from .weights import Weights


class LoadedWeights(Weights):
    """As `Weights`, on the CPU, in float32 or, of a model in float64, in that."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self._tensors = HeldTensors(model)
        self._look(spec, self._tensors.keys())

    def __str__(self) -> str:
        return "the model"

    def readout(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """Rows of W_U, without a copy of all of it."""
        name = f"{self._names.head or self._names.embed}.weight"
        return self._float(self._checked(name, (self.spec.d_vocab, self.spec.d_model))[tokens])

    def _read(
        self,
        stored: str,
        shape: tuple[int, ...],
        entry: int | None = None,
        span: slice = slice(None),
        axis: int = 0,
    ) -> Tensor:
        whole = self._checked(stored, shape)
        matrix = whole if entry is None else whole[entry]
        return self._float(matrix[:, span].T if axis else matrix[span]).contiguous()

    def _checked(self, stored: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self._tensors.get(stored)
        if tensor is None or tuple(tensor.shape) != shape:
            has = "no such tensor" if tensor is None else list(tensor.shape)
            raise UserError(
                f"the model's '{stored}' is {has} where its config implies {list(shape)}"
            )
        return tensor

    @staticmethod
    def _float(tensor: Tensor) -> Tensor:
        return tensor.detach().cpu().to(torch.promote_types(tensor.dtype, torch.float32))
