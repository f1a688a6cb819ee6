"""Double precision all the way: transformers computes norms and softmax in float32 come what may.

`KeepingDouble` leaves tensors of float64 as they are where a model's code would round them, so
that identities can be checked to 1e-10. Nothing else changes, and models of other dtypes do not
need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CASTS = {"to", "float", "type"}


class KeepingDouble(TorchFunctionMode):
    """Inside, float64 is not cast to float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            name = getattr(func, "__name__", "")
            given = (*args[1:], kwargs.get("dtype"))
            narrow = name == "float" or any(each is torch.float32 for each in given)
            if name in _CASTS and narrow:
                return args[0]
            if narrow:  # softmax(x, dtype=torch.float32)
                kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)
