"""Intrinsics that go over windows of images and over pixels; see `simd` for how and why they are in LLVM IR.

==================  ==========================================================================================
``pool_windows``    a few neighbouring windows of one channel: their maxima, and where they are
``one_window``      one window of any size: its maximum, and where it is
``one_gradient``    one window of any size: its gradient, to the pixels that are its maximum
``find_places``     one window of a vector of channels: whether its gradient is one that came through a pool
``add_pixels``      the sum of many vectors
==================  ==========================================================================================
"""
import llvmlite.ir as ir
from fastnet.kernels.conv.avx512 import Loop
from fastnet.kernels.conv.simd import BYTE, const
from fastnet.kernels.simd import ADDRESS, Emit, lane_count
from numba import types
from numba.extending import intrinsic


@intrinsic(prefer_literal=True)
def pool_windows(typingctx, count, y, locs, x, row, zero):
    """The maxima of `count` (a literal) neighbouring 2 x 2 windows, and a byte 1 at each value that equals its window's.

    `x` is the address of the first window, whose rows are `row` elements apart; those of `locs` are as many bytes apart.
    A window with NaN gives NaN.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    windows, float_type = count.literal_value, zero
    signature = types.void(count, *[types.int64] * 4, float_type)

    def codegen(context, builder, signature, arguments):
        y, locs, x, row, _ = arguments[1:]
        emit = Emit(builder, float_type, 2 * windows)
        half = Emit(builder, float_type, windows)
        index = ir.VectorType(ir.IntType(32), windows)

        def larger(a, b):  # a NaN of either
            first = builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))
            return builder.select(first, a, b)

        rows = [emit.load(x), emit.load(emit.address(x, row))]
        columns = [ir.Constant(index, list(range(start, 2 * windows, 2))) for start in (0, 1)]
        of_rows = [larger(*(builder.shuffle_vector(a, a, column) for column in columns)) for a in rows]
        top = larger(*of_rows)
        half.store(top, y)
        twice = builder.shuffle_vector(top, top, ir.Constant(ir.VectorType(ir.IntType(32), 2 * windows),
                                                             [lane // 2 for lane in range(2 * windows)]))
        bytes_ = ir.VectorType(BYTE, 2 * windows)
        for a, at in zip(rows, (locs, builder.add(locs, row)), strict=True):
            places = builder.zext(builder.fcmp_ordered("==", a, twice), bytes_)
            builder.store(places, builder.inttoptr(at, bytes_.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def one_window(typingctx, high, wide, y, locs, locs_row, x, row, zero):
    """The maximum of a window of `high` x `wide` (literals) pixels, and a byte 1 at each value that equals it, otherwise 0.

    `x` is the address of the window, whose rows are `row` elements apart; those of `locs` are `locs_row` bytes apart. A
    window with NaN gives NaN.
    """
    if not isinstance(high, types.IntegerLiteral) or not isinstance(wide, types.IntegerLiteral):
        return None
    sides, float_type = (high.literal_value, wide.literal_value), zero
    signature = types.void(high, wide, *[types.int64] * 5, float_type)

    def codegen(context, builder, signature, arguments):
        y, locs, locs_row, x, row, _ = arguments[2:]
        emit = Emit(builder, float_type, 1)
        places = [(p, q) for p in range(sides[0]) for q in range(sides[1])]

        def element(address):
            return builder.inttoptr(address, emit.scalar.as_pointer())

        values = [builder.load(element(emit.address(x, builder.mul(row, const(p)), const(q)))) for p, q in places]
        top = values[0]
        for value in values[1:]:
            larger = builder.or_(builder.fcmp_ordered(">", value, top), builder.fcmp_unordered("uno", value, value))
            top = builder.select(larger, value, top)
        builder.store(top, element(y))
        for (p, q), value in zip(places, values, strict=True):
            at = builder.add(builder.add(locs, builder.mul(locs_row, const(p))), const(q))
            is_top = builder.zext(builder.fcmp_ordered("==", value, top), BYTE)
            builder.store(is_top, builder.inttoptr(at, BYTE.as_pointer()))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def one_gradient(typingctx, high, wide, adds, dx, row, dy, locs, locs_row, zero):
    """dx = the number at address `dy` where `locs` is not 0, otherwise 0; the others as of `one_window`.

    With `adds` (a literal) dx += that.
    """
    if not all(isinstance(literal, types.IntegerLiteral) for literal in (high, wide, adds)):
        return None
    sides, adds_n, float_type = (high.literal_value, wide.literal_value), adds.literal_value, zero
    signature = types.void(high, wide, adds, *[types.int64] * 5, float_type)

    def codegen(context, builder, signature, arguments):
        dx, row, dy, locs, locs_row, _ = arguments[3:]
        emit = Emit(builder, float_type, 1)
        none = ir.Constant(emit.scalar, 0.0)
        gradient = builder.load(builder.inttoptr(dy, emit.scalar.as_pointer()))
        for p in range(sides[0]):
            for q in range(sides[1]):
                at = builder.add(builder.add(locs, builder.mul(locs_row, const(p))), const(q))
                is_top = builder.load(builder.inttoptr(at, BYTE.as_pointer()))
                value = builder.select(builder.icmp_unsigned("!=", is_top, ir.Constant(BYTE, 0)), gradient, none)
                to = builder.inttoptr(emit.address(dx, builder.mul(row, const(p)), const(q)), emit.scalar.as_pointer())
                builder.store(builder.fadd(builder.load(to), value) if adds_n else value, to)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def find_places(typingctx, gradients, places, dy, row, col, tail, zero):
    """Return 1 if the gradients of a window that are not 0 are equal, else 0.

    Writes that gradient, and bit 2 p + q of `places` where pixel (p, q) has it, as `simd.conv_tile` does.

    Parameters
    ----------
    gradients, places : int64
        Addresses of a vector and of LANES bytes.
    dy, row, col : int64
        Address of pixel (0, 0); elements to the next row and to the next pixel.
    tail : int64
        Lanes that count.
    zero : float32 or float64
        Its type is the element type.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        gradients, places, dy, row, col, tail, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        bytes_ = ir.VectorType(BYTE, emit.lanes)
        none = ir.Constant(bytes_, [0] * emit.lanes)
        counts = emit.first(tail)
        below = emit.address(dy, row)
        at = dy, emit.address(dy, col), below, emit.address(below, col)
        pixels = [builder.select(counts, emit.load(address), emit.zero) for address in at]
        some = [builder.fcmp_unordered("!=", pixel, emit.zero) for pixel in pixels]
        gradient = pixels[3]
        for place in (2, 1, 0):
            gradient = builder.select(some[place], pixels[place], gradient)
        bits, others = none, None
        for place, pixel in enumerate(pixels):
            bit = ir.Constant(bytes_, [1 << place] * emit.lanes)
            bits = builder.or_(bits, builder.select(some[place], bit, none))
            other = builder.and_(some[place], builder.fcmp_unordered("!=", pixel, gradient))
            others = other if others is None else builder.or_(others, other)
        emit.store(gradient, gradients)
        builder.store(bits, builder.inttoptr(places, bytes_.as_pointer()), align=1)
        mask = ir.IntType(emit.lanes)
        one = builder.icmp_unsigned("==", builder.bitcast(others, mask), ir.Constant(mask, 0))
        return builder.zext(one, ADDRESS)

    return types.int64(*[types.int64] * 6, float_type), codegen


@intrinsic
def add_pixels(typingctx, to, at, count, step, tail, zero):
    """The first `tail` lanes at `to` += the sum of `count` vectors that lie `step` elements apart."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        to, at, count, step, tail, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        loop = Loop(builder, "pixels")
        t, total = loop.phi(ADDRESS, const(0)), loop.phi(emit.vector, emit.zero)
        loop.body(builder.icmp_signed("<", t, count))
        value = emit.load(emit.address(at, builder.mul(t, step)))
        loop.end([(t, builder.add(t, const(1))), (total, builder.fadd(total, value))])
        counts = emit.first(tail)
        emit.store_first(builder.fadd(emit.load_first(to, counts), total), to, counts)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, float_type), codegen
