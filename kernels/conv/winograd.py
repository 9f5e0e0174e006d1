"""Winograd's F(2 x 2, 3 x 3): a 2 x 2 window of a convolution in 16 products instead of 36, for float32.

With d the 4 x 4 pixels under a window and g a filter, both of one channel (Lavin & Gray 2016, section 4.1)::

    Y = A.T [sum over channels of (G g G.T) * (B.T d B)] A          * is the product element by element

    B.T =  1  0 -1  0     G =  1    0   0       A.T =  1  1  1  0
           0  1  1  0         1/2  1/2 1/2             0  1 -1 -1
           0 -1  1  0         1/2 -1/2 1/2
           0  1  0 -1          0    0   1

The sums over channels are 16 products of matrices, (windows x channels in) by (channels in x channels out). Y is a whole
window of the pool behind it: bias, maximum and ReLU follow in registers, as in `simd.conv_tile`. Without a pool all
four pixels are written.

Windows with equal maxima are the reason to look twice, since each of them gets the gradient. If the image under a window
does not change from row to row, or from column to column, all but one row or column of B.T d B is exactly 0, and pixels
whose patches are equal get the same bits, as they do from a plain sum. That is not so along a diagonal.
"""
import llvmlite.ir as ir
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.linking import INT, separate
from fastnet.kernels.conv.avx512 import Loop
from fastnet.kernels.conv.image import plain_conv
from fastnet.kernels.conv.simd import const, pool_and_clip
from fastnet.kernels.simd import ARM, VECTOR_BITS, VECTOR_BYTES, Emit, lane_count, lanes, noinline
from numba import types
from numba.extending import intrinsic

WINDOWS = 8 if VECTOR_BITS == 512 or ARM else 4  # in one product; with two vectors of channels, 16 or 8 sums in registers
_SUMMED = 16  # channels that are summed up separately: shorter sums have smaller errors
LEAST_CHANNELS = 16  # with fewer the transformations cost what the products save, and errors are as large as a plain sum's


@jit
def memory_size(c, n_o, width):
    """Elements that `winograd_filters` and `winograd_conv` need for themselves: filters, windows, products."""
    vectors, padded = (n_o + width - 1) // width, (c + width - 1) // width * width
    return vectors * 16 * c * width + 16 * WINDOWS * (padded + 2 * width)


@jit
def winograd_filters(memory, filters, c, n_o, zero):
    """G g G.T of filters in vector columns (vectors, 9 c, LANES): (vectors, 16, c, LANES) at address `memory`."""
    noinline()
    width = lanes(zero)
    for v in range((n_o + width - 1) // width):
        for channel in range(c):
            transform_filter(memory + (16 * v * c + channel) * VECTOR_BYTES, filters + (9 * v * c + channel) * VECTOR_BYTES,
                             c * width, zero)


@jit_exact
def winograd_conv(y, y_row, bits, bits_col, x, x_row, memory, bias, r, k, c, n_o, relu, zero):
    """`image.pooled_conv` for 3 x 3 filters, of which `winograd_filters` has put what is needed into `memory`.

    With bits = 0 all pixels of the windows are written, and y has 2 r // 2 rows of 2 k // 2 pixels.
    """
    noinline()
    width = lanes(zero)
    size = VECTOR_BYTES // width
    vectors, cols = (n_o + width - 1) // width, k // 2
    padded = (c + width - 1) // width * width
    under = memory + vectors * 16 * c * VECTOR_BYTES
    sums = under + 16 * WINDOWS * padded * size
    windows = r // 2 * cols
    for first in range(0, windows, WINDOWS):
        count = min(WINDOWS, windows - first)
        for t in range(count):
            i, j = (first + t) // cols, (first + t) % cols
            at = x + 2 * (i * x_row + j * c) * size
            for channel in range(0, c, width):
                to = under + (t * padded + channel) * size
                transform_window(to, WINDOWS * padded, at + channel * size, x_row, c, zero)
        for v in range(0, vectors, 2):
            filters = memory + v * 16 * c * VECTOR_BYTES
            wide = min(2, vectors - v)
            for channel in range(0, c, _SUMMED):
                a, b, length = under + channel * size, filters + channel * VECTOR_BYTES, min(_SUMMED, c - channel)
                if wide == 2:
                    multiply(2, 16, sums, a, padded, b, c, length, 1 if channel > 0 else 0, zero)
                else:
                    multiply(1, 16, sums, a, padded, b, c, length, 1 if channel > 0 else 0, zero)
            for t in range(count):
                i, j = (first + t) // cols, (first + t) % cols
                for u in range(wide):
                    channel = (v + u) * width
                    if bits == 0:
                        finish_pixels(y + (2 * (i * y_row + j * n_o) + channel) * size, y_row, n_o,
                                      sums + (t * wide + u) * VECTOR_BYTES, WINDOWS * wide * width, bias + channel * size,
                                      min(width, n_o - channel), relu, zero)
                        continue
                    finish_window(y + (i * y_row + j * n_o + channel) * size, bits + (first + t) * bits_col + channel,
                                  sums + (t * wide + u) * VECTOR_BYTES, WINDOWS * wide * width, bias + channel * size,
                                  min(width, n_o - channel), relu, zero)


@separate(lambda element: (*[INT] * 12, element))
def winograd_plain_conv(y, y_row, x, x_row, memory, filters, bias, r, k, c, n_o, relu, zero):
    """`image.plain_conv` likewise; a last odd row or column, which are no windows, as there."""
    width = lanes(zero)
    size, column = VECTOR_BYTES // width, 9 * c * width
    winograd_conv(y, y_row, 0, 0, x, x_row, memory, bias, r, k, c, n_o, relu, zero)
    if r % 2:
        to, at = y + (r - 1) * y_row * size, x + (r - 1) * x_row * size
        plain_conv(to, y_row, n_o, at, x_row, x_row, c, filters, column // 3, column, bias, 1, k, n_o, 3, 3 * c, relu, zero)
    if k % 2:
        to, at = y + (k - 1) * n_o * size, x + (k - 1) * c * size
        plain_conv(to, y_row, n_o, at, x_row, x_row, c, filters, column // 3, column, bias, r, 1, n_o, 3, 3 * c, relu, zero)


@intrinsic
def transform_filter(typingctx, to, g, step, zero):
    """G g G.T, a vector for each of 16 places from one for each of 9; both `step` elements apart."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        to, g, step, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        half = ir.Constant(emit.vector, [0.5] * emit.lanes)

        def transformed(a, b, c):
            outer, b = builder.fmul(half, builder.fadd(a, c)), builder.fmul(half, b)
            return a, builder.fadd(outer, b), builder.fsub(outer, b), c

        def place(base, number):
            return emit.address(base, builder.mul(step, const(number)))

        columns = [transformed(*(emit.load(place(g, 3 * p + q)) for p in range(3))) for q in range(3)]
        for p in range(4):
            for q, value in enumerate(transformed(*(column[p] for column in columns))):
                emit.store(value, place(to, 4 * p + q))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, float_type), codegen


@intrinsic
def transform_window(typingctx, to, step, d, row, col, zero):
    """B.T d B, a vector of channels for each of 16 places: from pixels `row` and `col` elements apart to `step` apart."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        to, step, d, row, col, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))

        def transformed(a, b, c, d):
            return builder.fsub(a, c), builder.fadd(b, c), builder.fsub(c, b), builder.fsub(b, d)

        columns = []
        for j in range(4):
            pixels = [emit.address(d, builder.mul(row, const(i)), builder.mul(col, const(j))) for i in range(4)]
            columns.append(transformed(*map(emit.load, pixels)))
        for i in range(4):
            for j, value in enumerate(transformed(*(column[i] for column in columns))):
                emit.store(value, emit.address(to, builder.mul(step, const(4 * i + j))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, float_type), codegen


@intrinsic(prefer_literal=True)
def multiply(typingctx, vecs, places, to, windows, row, filters, c, length, adds, zero):
    """For each of some places: to (WINDOWS, vecs LANES) = windows (WINDOWS, length) times filters (length, vecs LANES).

    The windows' rows are `row` elements apart, places WINDOWS rows; the filters are part of (vecs, places, c, LANES). `vecs`
    is a literal; all sums of a place live in registers. With `adds` the sums are added to what is there.
    """
    if not isinstance(vecs, types.IntegerLiteral):
        return None
    vecs_n, float_type = vecs.literal_value, zero
    signature = types.void(vecs, *[types.int64] * 8, float_type)

    def codegen(context, builder, signature, arguments):
        count, to, windows, row, filters, c, length, adds, _ = arguments[1:]
        emit = Emit(builder, float_type, lane_count(float_type))
        row = emit.address(const(0), row)
        vector = builder.mul(c, const(VECTOR_BYTES))  # of the filters' vectors for one place
        at = [(t, v) for t in range(WINDOWS) for v in range(vecs_n)]
        adding = builder.icmp_signed("!=", adds, const(0))
        places = Loop(builder, "places")
        n, a, b, out = (places.phi(const(0).type, start) for start in (const(0), windows, filters, to))
        places.body(builder.icmp_signed("<", n, count))
        rows = [builder.add(a, builder.mul(row, const(t))) for t in range(WINDOWS)]
        columns = [builder.add(b, builder.mul(builder.mul(vector, count), const(v))) for v in range(vecs_n)]
        channels = Loop(builder, "channels")
        p = channels.phi(const(0).type, const(0))
        sums = {place: channels.phi(emit.vector, emit.zero) for place in at}
        channels.body(builder.icmp_signed("<", p, length))
        there, element = builder.mul(p, const(VECTOR_BYTES)), builder.mul(p, const(emit.bytes))
        weights = [emit.load(builder.add(column, there)) for column in columns]
        new = {}
        for t in range(WINDOWS):
            pixel = emit.broadcast(builder.add(rows[t], element))
            for v in range(vecs_n):
                new[t, v] = emit.fma(pixel, weights[v], sums[t, v])
        channels.end([(p, builder.add(p, const(1))), *[(sums[place], new[place]) for place in at]])
        to_at = {(t, v): builder.add(out, const((t * vecs_n + v) * VECTOR_BYTES)) for t, v in at}
        with builder.if_else(adding) as (then, otherwise):
            with then:
                for place in at:
                    emit.store(builder.fadd(emit.load(to_at[place]), sums[place]), to_at[place])
            with otherwise:
                for place in at:
                    emit.store(sums[place], to_at[place])
        places.end([(n, builder.add(n, const(1))), (a, builder.add(a, builder.mul(row, const(WINDOWS)))),
                    (b, builder.add(b, vector)), (out, builder.add(out, const(WINDOWS * vecs_n * VECTOR_BYTES)))])
        return context.get_dummy_value()

    return signature, codegen


def _window(emit, m, step, bias):
    """A.T m A + bias: four vectors, pixel (p, q) the 2 p + q-th."""
    builder = emit.builder

    def transformed(a, b, c, d):
        return builder.fadd(a, builder.fadd(b, c)), builder.fsub(builder.fsub(b, c), d)

    rows = [transformed(*(emit.load(emit.address(m, builder.mul(step, const(4 * i + j)))) for i in range(4)))
            for j in range(4)]
    start = emit.load(bias)
    return [builder.fadd(value, start) for p in range(2) for value in transformed(*(column[p] for column in rows))]


@intrinsic
def finish_pixels(typingctx, y, row, col, m, step, bias, tail, relu, zero):
    """A.T m A + bias, perhaps after ReLU: four pixels `row` and `col` elements apart; the others as of `finish_window`."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        y, row, col, m, step, bias, tail, relu, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        clip, mask = emit.splat(builder.icmp_signed("!=", relu, const(0))), emit.first(tail)
        below = emit.address(y, row)
        window = [builder.select(builder.and_(builder.fcmp_ordered("<", value, emit.zero), clip), emit.zero, value)
                  for value in _window(emit, m, step, bias)]
        places = list(zip(window, (y, emit.address(y, col), below, emit.address(below, col)), strict=True))
        with builder.if_else(builder.icmp_signed("==", tail, const(emit.lanes))) as (then, otherwise):
            with then:
                for value, at in places:
                    emit.store(value, at)
            with otherwise:
                for value, at in places:
                    emit.store_first(value, at, mask)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, float_type), codegen


@intrinsic
def finish_window(typingctx, y, bits, m, step, bias, tail, relu, zero):
    """The maximum of A.T m A + bias and its places, see `simd.conv_tile`; m is 16 vectors `step` elements apart."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        y, bits, m, step, bias, tail, relu, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))

        window = _window(emit, m, step, bias)
        clip = emit.splat(builder.icmp_signed("!=", relu, const(0)))
        top, places = pool_and_clip(emit, window, clip)
        with builder.if_else(builder.icmp_signed("==", tail, const(emit.lanes))) as (then, otherwise):
            with then:
                emit.store(top, y)
            with otherwise:
                emit.store_first(top, y, emit.first(tail))
        builder.store(places, builder.inttoptr(bits, places.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7, float_type), codegen
