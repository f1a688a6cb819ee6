"""What numba does not offer and the scan needs: bit casts, vector maxima, masks of 64 columns.

Each is a few LLVM instructions that the compiler turns into whatever the processor has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 64
"""Columns that one mask covers."""


def _cast(source: Any, target: Any, llvm_type: ir.Type) -> Any:
    """Reinterpret 32 bits: numba's own scalar `view` does not vectorise."""

    @intrinsic  # type: ignore[untyped-decorator]
    def cast(typing_context: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], llvm_type)

        return target(source), codegen

    return cast


bits_as_float = _cast(types.int32, types.float32, ir.FloatType())
float_bits = _cast(types.float32, types.int32, ir.IntType(32))


def _fast_float(name: str, arguments: int) -> Any:
    """An LLVM float function with fast-math flags: numba's own max() does not vectorise."""

    def made(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * arguments)
        function = builder.module.declare_intrinsic(name, [ir.FloatType()], kind)
        return builder.call(function, args, fastmath=("fast",))

    if arguments == 1:

        @intrinsic  # type: ignore[untyped-decorator]
        def unary(typing_context: Any, a: Any) -> Any:
            return types.float32(types.float32), made

        return unary

    @intrinsic  # type: ignore[untyped-decorator]
    def binary(typing_context: Any, a: Any, b: Any) -> Any:
        return types.float32(types.float32, types.float32), made

    return binary


fmax = _fast_float("llvm.maxnum", 2)
fmin = _fast_float("llvm.minnum", 2)
rint = _fast_float("llvm.rint", 1)


def _mask(comparison: str) -> Any:
    """`mask(row, start, limit)`: bit i says whether row[start + i] is beyond the limit."""

    @intrinsic  # type: ignore[untyped-decorator]
    def mask(typing_context: Any, row: Any, start: Any, limit: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = make_array(signature.args[0])(context, builder, args[0])  # type: ignore[no-untyped-call]
            vector = ir.VectorType(ir.FloatType(), LANES)
            place = builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())
            values = builder.load(place)
            values.align = 4  # rows of a tile start anywhere
            splat = ir.Constant(vector, None)
            for lane in range(LANES):
                splat = builder.insert_element(splat, args[2], ir.Constant(ir.IntType(32), lane))
            beyond = builder.fcmp_ordered(comparison, values, splat)
            return builder.bitcast(beyond, ir.IntType(LANES))

        return types.uint64(row, types.intp, types.float32), codegen

    return mask


above = _mask(">")
below = _mask("<")


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typing_context: Any, mask: Any) -> Any:
    """Place of the lowest bit set in a mask that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, row: Any, start: Any) -> Any:
    """Ask for the cache line of row[start]: rows gathered from memory arrive while others work."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = make_array(signature.args[0])(context, builder, args[0])  # type: ignore[no-untyped-call]
        place = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        # read, keep in all caches, data
        builder.call(function, [place, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(row, types.intp), codegen
