"""Weights in half the space, where that loses nothing that counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def halved(
    tensors: Mapping[str, Tensor], beside: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """All in float16; or all as they are, if one of them would lose more than its rounding: by an
    overflow, by numbers too small for float16, or where its rounding is not small beside what
    counts.

    Args:
        beside: by name, the length that a tensor's rounding has to be small beside; by default the
            tensor's own norm.
    """
    halves = {name: x.half() for name, x in tensors.items()}
    for name, x in tensors.items():
        length = (beside or {}).get(name, float(x.double().norm()))
        if not float((x.double() - halves[name].double()).norm()) <= 2**-10 * length:
            return dict(tensors)
    return halves
