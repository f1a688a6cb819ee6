"""What the scan needs and numba lacks: bit casts, vector maxima, masks of 64 columns.

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


_VECTOR = ir.VectorType(ir.FloatType(), 16)


def _splat(builder: Any, value: Any) -> Any:
    """A vector of one value."""
    splat = ir.Constant(_VECTOR, None)
    for lane in range(_VECTOR.count):
        splat = builder.insert_element(splat, value, ir.Constant(ir.IntType(32), lane))
    return splat


def _load(context: Any, builder: Any, row: Any, row_type: Any, start: Any) -> list[Any]:
    """The LANES columns from row[start] as vectors."""
    array = make_array(row_type)(context, builder, row)  # type: ignore[no-untyped-call]
    place = builder.bitcast(builder.gep(array.data, [start]), _VECTOR.as_pointer())
    parts = []
    for part in range(LANES // _VECTOR.count):
        parts.append(builder.load(builder.gep(place, [ir.IntType(64)(part)])))
        parts[-1].align = 4  # rows of a tile start anywhere
    return parts


def _bits(builder: Any, lanes: Any) -> Any:
    """A vector of booleans as the bits of one number."""
    return builder.bitcast(lanes, ir.IntType(_VECTOR.count))


@intrinsic  # type: ignore[untyped-decorator]
def outside(typing_context: Any, array: Any, start: Any, low: Any, high: Any) -> Any:
    """Bit i says whether number start + i of a contiguous array is below `low` or above `high`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.IntType(LANES)(0)
        low, high = _splat(builder, args[2]), _splat(builder, args[3])
        # piece by piece: what LLVM makes of 64 booleans at once is slow without AVX-512
        for at, part in enumerate(_load(context, builder, args[0], array, args[1])):
            over = builder.fcmp_ordered(">", part, high)
            bits = _bits(builder, builder.or_(over, builder.fcmp_ordered("<", part, low)))
            place = builder.shl(builder.zext(bits, whole.type), whole.type(at * _VECTOR.count))
            whole = builder.or_(whole, place)
        return whole

    return types.uint64(array, types.intp, types.float32, types.float32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def any_outside(typing_context: Any, array: Any, start: Any, low: Any, high: Any) -> Any:
    """Whether `outside` has a bit set.

    Only the largest and the smallest number are compared: a third of the work of `outside`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = _load(context, builder, args[0], array, args[1])

        def best(comparison: str) -> Any:
            values = parts
            while len(values) > 1:
                pairs = list(zip(values[::2], values[1::2], strict=True))
                values = [builder.select(builder.fcmp_ordered(comparison, *p), *p) for p in pairs]
            return values[0]

        over = builder.fcmp_ordered(">", best(">"), _splat(builder, args[3]))
        under = builder.fcmp_ordered("<", best("<"), _splat(builder, args[2]))
        bits = _bits(builder, builder.or_(over, under))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(array, types.intp, types.float32, types.float32), codegen


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
