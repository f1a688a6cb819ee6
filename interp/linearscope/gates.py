"""Which factor of a product of two activations is frozen: the one that is more of a gate.

Every activation has a rank. In a product the factor of lowest rank carries:

    VALUES      a mix of values: a matrix product in which something was frozen. Linear attention,
                q (k^T v) with k frozen, is the pattern q k^T times v: q is frozen too
    PLAIN       anything else
    FROZEN      plain, but another product froze it: it stays what it was there
    PIECE       made by a unit that is linear in pieces, or a largest value
    WEIGHTED    sigmoids behind a layer of weights
    SMOOTH      made by SiLU, GELU, tanh, ...: a gated MLP, SiLU(g) u, freezes SiLU(g)
    SIGMOID     a gate and nothing else: squeeze-excite behind a SiLU freezes the sigmoid

Moving or scaling a gate leaves its rank; adding several numbers up (a pool, an interpolation, a
mean) lowers it by half a step; behind weights only sigmoids are still gates. Where two factors have
the same rank (x * x, two projections) nothing says which is the gate: the product is a decision.
"""

from __future__ import annotations

from typing import Any

from . import calls
from .tape import Dual
from .units import MASKS, PIECES

VALUES, PLAIN, FROZEN, PIECE, WEIGHTED, SMOOTH, SIGMOID = -1, 0, 1, 2, 3, 5, 7
UNITS = {
    **dict.fromkeys(PIECES, PIECE),
    **dict.fromkeys((*MASKS, *calls.POWERS), SMOOTH),
    **dict.fromkeys(("sigmoid", "hardsigmoid"), SIGMOID),
}
"""The rank of what a unit makes, by the call's name."""


def rank(name: str, carriers: list[Dual], given: list[Dual]) -> int:
    """The rank of a call's result.

    Args:
        carriers: the arguments that carry.
        given: all its arguments that are activations or decisions.
    """
    ranks = [dual.rank for dual in carriers]
    least = min(ranks) if max(ranks) == VALUES else max(min(ranks), PLAIN)
    if name in UNITS:
        return UNITS[name]
    if name in calls.MOVES:
        return least
    if name in calls.SCALES and sum(dual.slot is not None for dual in given) == 1:
        return least
    if name in calls.MATRIX_PRODUCTS or name == "scaled_dot_product_attention":
        return VALUES if len(given) > 1 else _behind_weights(least)
    if name in calls.FACTORS or name == "batch_norm":
        return _behind_weights(least)
    if name in calls.LINEAR:
        return least - 1 if least in (SMOOTH, SIGMOID) else least
    return PLAIN


def _behind_weights(least: int) -> int:
    return WEIGHTED if least in (WEIGHTED, SIGMOID - 1, SIGMOID) else PLAIN


def at_least(least: int, made: Any) -> Any:
    """`made`, with this rank if its own is lower; constants have none."""
    if isinstance(made, Dual):
        made.rank = max(made.rank, least)
    return made


def carrier(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], live: list[Dual]
) -> Dual | None:
    """The factor of a product that carries; None if several could. Plain ones that it freezes are
    FROZEN from here on."""
    if "div" in name:
        below = args[0] if name == "__rtruediv__" else (*args, kwargs.get("other"))[1]
        live = [dual for dual in live if dual is not below]
    least = min((dual.rank for dual in live), default=PLAIN)
    carriers = [dual for dual in live if dual.rank == least]
    if len(carriers) != 1:
        return None
    for dual in live:
        if dual is not carriers[0]:
            dual.rank = max(dual.rank, FROZEN)
    return carriers[0]
