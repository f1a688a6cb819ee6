"""Exact products of int16 matrices with int32 sums (numba, no GIL).

Every x86 processor since 2013 multiplies pairs of int16 and adds each pair up in int32 in one
instruction (`vpmaddwd`; with VNNI it adds to a running sum, too). That is twice the terms of a
float32 instruction, and no library offers it: oneDNN and torch have int8 and bfloat16 alone.
Equivalent naive code:

    x.astype(np.int64) @ w.astype(np.int64).T

The caller sees to it that no sum leaves int32. On other processors LLVM makes what it can of it:
right, but slow.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


@cache
def _features() -> dict[str, bool]:
    return dict(binding.get_host_cpu_features())


def has(feature: str) -> bool:
    """Whether this processor has a feature, by LLVM's name."""
    return bool(_features().get(feature))


def supported() -> bool:
    """Whether this processor multiplies pairs of int16 in an instruction."""
    return has("avx2")


WIDE = has("avx512bw")
LANES = 16 if WIDE else 8
"""Sums of a register."""
ROWS = 8 if WIDE else 4
"""Rows of x that the inner loop multiplies at once; as many registers times 2 hold their sums."""
REGISTERS = 2
PANEL = REGISTERS * LANES
"""Rows of w that the inner loop multiplies at once."""

_LONG, _INT, _SHORT = (ir.IntType(bits) for bits in (64, 32, 16))
_SUMS, _PAIRS = ir.VectorType(_INT, LANES), ir.VectorType(_SHORT, 2 * LANES)


def _sums_of_pairs(builder: Any, a: Any, b: Any) -> Any:
    """Lane i: a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]."""
    if supported():
        name = f"llvm.x86.{'avx512.pmaddw.d.512' if WIDE else 'avx2.pmadd.wd'}"
        kind = ir.FunctionType(_SUMS, [_PAIRS, _PAIRS])
        function = builder.module.declare_intrinsic(name, [], kind)
        return builder.call(function, [a, b])

    def half(pairs: Any, first: int) -> Any:
        places = ir.Constant(_SUMS, list(range(first, 2 * LANES, 2)))
        nothing = ir.Constant(_PAIRS, ir.Undefined)
        return builder.sext(builder.shuffle_vector(pairs, nothing, places), _SUMS)

    products = [builder.mul(half(a, first), half(b, first)) for first in (0, 1)]
    return builder.add(*products)


def _splat(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_SUMS, ir.Undefined)
    one = builder.insert_element(nothing, number, _INT(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_SUMS, [0] * LANES))


def _load(builder: Any, pointer: Any) -> Any:
    loaded = builder.load(pointer)
    loaded.align = 2  # a row starts anywhere
    return loaded


def _sums_over_pairs(builder: Any, rows: list[Any], panel: Any, pairs: Any) -> list[Any]:
    """A loop over pairs: the sums of each row with each register of a panel, row by row."""
    registers, nothing = range(REGISTERS), ir.Constant(_SUMS, None)
    before = builder.block
    loop, after = (builder.append_basic_block(name) for name in ("pair", "after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    pair = builder.phi(_LONG)
    sums = [builder.phi(_SUMS) for _ in rows for _ in registers]
    first = builder.gep(panel, [builder.mul(pair, _LONG(REGISTERS))])
    columns = [_load(builder, builder.gep(first, [_LONG(at)])) for at in registers]
    more: list[Any] = []
    for row in rows:
        one = _load(builder, builder.gep(row, [pair]))
        both = builder.bitcast(_splat(builder, one), _PAIRS)
        for column in columns:
            more.append(builder.add(sums[len(more)], _sums_of_pairs(builder, both, column)))
    following = builder.add(pair, _LONG(1))
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
    starts = [_LONG(0), *[nothing] * len(sums)]
    for phi, start, end in zip([pair, *sums], starts, [following, *more], strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(end, loop)
    builder.position_at_end(after)
    return more


@intrinsic  # type: ignore[untyped-decorator]
def _multiply(context: Any, x: Any, row: Any, panels: Any, panel: Any, pairs: Any, out: Any) -> Any:
    """out[row : row + ROWS, panel * PANEL : (panel + 1) * PANEL] = x[those rows] times a panel."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, panels, out = (
            make_array(signature.args[at])(context, builder, args[at])  # type: ignore[no-untyped-call]
            for at in (0, 2, 5)
        )
        _, row, _, panel, pairs, _ = args
        lines = [builder.add(row, _LONG(at)) for at in range(ROWS)]
        pairs_of_x = builder.bitcast(x.data, _INT.as_pointer())
        starts = [builder.gep(pairs_of_x, [builder.mul(line, pairs)]) for line in lines]
        size = builder.mul(pairs, _LONG(REGISTERS))
        registers = builder.bitcast(panels.data, _PAIRS.as_pointer())
        own = builder.gep(registers, [builder.mul(panel, size)])
        sums = iter(_sums_over_pairs(builder, starts, own, pairs))
        _, stride = unpack_tuple(builder, out.shape, 2)  # type: ignore[no-untyped-call]
        for line in lines:
            column = builder.mul(panel, _LONG(PANEL))
            first = builder.gep(out.data, [builder.add(builder.mul(line, stride), column)])
            for at in range(REGISTERS):
                place = builder.gep(first, [_LONG(at * LANES)])
                into = builder.bitcast(place, _SUMS.as_pointer())
                builder.store(next(sums), into).align = 4
        return context.get_dummy_value()

    whole = types.int64
    return types.void(x, whole, panels, whole, whole, out), codegen


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def multiply(x, panels, out):  # type: ignore[no-untyped-def]
    """x [n, 2 p] int16 times `panels` (of `in_panels`) into out [n, panels * PANEL] int32.

    n is a multiple of ROWS; p is at least 1.
    """
    pairs = x.shape[1] // 2
    for panel in range(panels.shape[0]):
        for row in range(0, x.shape[0], ROWS):
            _multiply(x, row, panels, panel, pairs, out)  # type: ignore[call-arg]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _interleave(pairs, out):  # type: ignore[no-untyped-def]
    for panel in range(out.shape[0]):
        for row in range(PANEL):
            for pair in range(out.shape[1]):
                out[panel, pair, row] = pairs[panel * PANEL + row, pair]


def in_panels(w: np.ndarray) -> np.ndarray:
    """w [m, 2 p] int16, m a multiple of PANEL, as `multiply` reads it: [m / PANEL, p, PANEL] of
    pairs."""
    pairs = w.view(np.int32)
    panels = np.empty((len(w) // PANEL, pairs.shape[1], PANEL), np.int32)
    _interleave(pairs, panels)
    return panels
