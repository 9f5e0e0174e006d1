"""3 x 3 filters at a stride of 2, by Winograd's algorithm for float32: 25 products instead of 36.

In one dimension two outputs read five pixels. The outer weights fall on even pixels, where both outputs share one: that is
Winograd's F(2, 2) in three products instead of four. The weight in the middle falls on odd pixels::

    m = (x0 - x2) w0,  x1 w1,  x2 (w0 + w2),  x3 w1,  (x4 - x2) w2        y0 = m0 + m1 + m2    y1 = m2 + m3 + m4

The backward pass finds four pixels of the input's gradient in three of the output's, for a padding of 1::

    m = d0 w1,  d1 w1,  (d0 - d1) w2,  d1 (w0 + w2),  (d2 - d1) w0        dx = m0,  m2 + m3,  m1,  m3 + m4

In two dimensions rows are transformed, and then columns. The sums over channels are 25 products of matrices, see `winograd`.
"""
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.linking import INT, AddressedKernel
from fastnet.kernels.conv.simd import const
from fastnet.kernels.conv.winograd import WINDOWS, multiply
from fastnet.kernels.simd import VECTOR_BYTES, Emit, lane_count, lanes, noinline, switch
from numba import types
from numba.extending import intrinsic

PRODUCTS = 25
_SUMMED = 64  # channels that are summed up separately
_FORMS = (0,), (1,)  # forward, back


@jit
def _row(c, width):
    """Elements of a window for one product: an odd number of vectors, so that products share few sets of the L1 cache."""
    return ((c + width - 1) // width | 1) * width


@jit
def strided_memory(c, n_o, width):
    """Elements that `strided_filters` and `strided_conv` need for themselves: filters, windows, products."""
    vectors, padded = (n_o + width - 1) // width, _row(c, width)
    return PRODUCTS * (vectors * c * width + WINDOWS * (padded + 2 * width))


@jit
def strided_filters(memory, filters, c, n_o, back, zero):
    """The transformed filters (vectors, 25, c, LANES) at address `memory`, from filters in vector columns.

    Those of the backward pass are in the order of `image.turned_tap`.
    """
    noinline()
    width = lanes(zero)
    for v in range((n_o + width - 1) // width):
        for channel in range(c):
            transform_filter(back, memory + (PRODUCTS * v * c + channel) * VECTOR_BYTES,
                             filters + (9 * v * c + channel) * VECTOR_BYTES, c * width, zero)


def _strided_conv(back, images, y, y_image, y_row, x, x_image, x_row, memory, bias, r, k, c, n_o, relu, zero):
    """r x k pixels of n_o channels of some images, y_image elements apart: of the output, or of the input's gradient.

    x is the address of the patch of pixel (0, 0), or of pixel (0, 0) of the output's gradient, which has zero padding behind
    its last row and column; its pixels have c channels. Behind x a vector is read.
    """
    width = lanes(zero)
    size = VECTOR_BYTES // width
    vectors, padded = (n_o + width - 1) // width, _row(c, width)
    under = memory + vectors * PRODUCTS * c * VECTOR_BYTES
    sums = under + PRODUCTS * WINDOWS * padded * size
    side, step, pixels = (4, 2, 3) if back else (2, 4, 5)
    x_rows, x_cols = ((r + 1) // 2 + 1, (k + 1) // 2 + 1) if back else (2 * r + 1, 2 * k + 1)
    high, wide = (r + side - 1) // side, (k + side - 1) // side
    windows = images * high * wide
    for first in range(0, windows, WINDOWS):
        count = min(WINDOWS, windows - first)
        for t in range(count):
            image, i, j = (first + t) // (high * wide), (first + t) // wide % high, (first + t) % wide
            at = x + (image * x_image + step * (i * x_row + j * c)) * size
            for channel in range(0, c, width):
                transform_window(back, under + (t * padded + channel) * size, WINDOWS * padded, at + channel * size, x_row,
                                 c, min(pixels, x_rows - step * i), min(pixels, x_cols - step * j), zero)
        for v in range(0, vectors, 2):
            filters, together = memory + v * PRODUCTS * c * VECTOR_BYTES, min(2, vectors - v)
            for channel in range(0, c, _SUMMED):
                a, b, length = under + channel * size, filters + channel * VECTOR_BYTES, min(_SUMMED, c - channel)
                if together == 2:
                    multiply(2, PRODUCTS, sums, a, padded, b, c, length, 1 if channel > 0 else 0, zero)
                else:
                    multiply(1, PRODUCTS, sums, a, padded, b, c, length, 1 if channel > 0 else 0, zero)
            for t in range(count):
                image, i, j = (first + t) // (high * wide), (first + t) // wide % high, (first + t) % wide
                to = y + (image * y_image + side * (i * y_row + j * n_o)) * size
                for u in range(together):
                    channel = (v + u) * width
                    finish(back, to + channel * size, y_row, n_o, sums + (t * together + u) * VECTOR_BYTES,
                           WINDOWS * together * width, bias + channel * size, min(side, r - side * i),
                           min(side, k - side * j), min(width, n_o - channel), relu, zero)


strided_conv = AddressedKernel(_strided_conv, lambda element: (*[INT] * 15, element), jit_exact)


def _of_filter(add, back, w0, w1, w2):
    return (w1, w1, w2, add(w0, w2), w0) if back else (w0, w1, add(w0, w2), w1, w2)


def _of_pixels(subtract, back, x):
    return (x[0], x[1], subtract(x[0], x[1]), x[1], subtract(x[2], x[1])) if back else (
        subtract(x[0], x[2]), x[1], x[2], x[3], subtract(x[4], x[2]))


def _of_products(add, back, m):  # forward in this order: of equal pixels both outputs have the same bits
    return (m[0], add(m[2], m[3]), m[1], add(m[3], m[4])) if back else (
        add(add(m[0], m[1]), m[2]), add(m[2], add(m[3], m[4])))


def _place(back, p, q):
    """Where weight (p, q) stands: see `image.turned_tap` for a stride of 2."""
    if not back:
        return 3 * p + q
    high, wide = 2 - p % 2, 2 - q % 2
    return p % 2 * 6 + high * (q % 2) * 2 + (high - 1 - p // 2) * wide + wide - 1 - q // 2


@intrinsic
def transform_filter(typingctx, back, to, g, step, zero):
    """A vector for each of 25 products from one for each of 9 weights; both `step` elements apart."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        back, to, g, step, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        for form, in switch(builder, (back,), _FORMS):
            weights = [[emit.load(emit.address(g, builder.mul(step, const(_place(form, p, q))))) for p in range(3)]
                       for q in range(3)]
            columns = [_of_filter(builder.fadd, form, *column) for column in weights]
            for p in range(5):
                for q, value in enumerate(_of_filter(builder.fadd, form, *(column[p] for column in columns))):
                    emit.store(value, emit.address(to, builder.mul(step, const(5 * p + q))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, float_type), codegen


@intrinsic
def transform_window(typingctx, back, to, step, d, row, col, high, wide, zero):
    """A vector of channels for each of 25 products, `step` apart, from the pixels of a window at address d.

    Its pixels are `row` and `col` elements apart. Only `high` rows and `wide` columns of it exist: no output needs others.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        back, to, step, d, row, col, high, wide, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))

        def steps(number, existing, step):
            last = builder.sub(existing, const(1))
            return builder.mul(step, builder.select(builder.icmp_signed("<", const(number), last), const(number), last))

        for form, in switch(builder, (back,), _FORMS):
            side = 3 if form else 5
            downs, rights = [steps(i, high, row) for i in range(side)], [steps(j, wide, col) for j in range(side)]
            columns = [_of_pixels(builder.fsub, form, [emit.load(emit.address(d, down, right)) for down in downs])
                       for right in rights]
            for p in range(5):
                for q, value in enumerate(_of_pixels(builder.fsub, form, [column[p] for column in columns])):
                    emit.store(value, emit.address(to, builder.mul(step, const(5 * p + q))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, float_type), codegen


@intrinsic
def finish(typingctx, back, y, row, col, m, step, bias, high, wide, tail, relu, zero):
    """The pixels of a window from 25 products, plus bias, perhaps after ReLU: `high` rows and `wide` columns of them.

    Pixels are `row` and `col` elements apart, products `step`; of each vector `tail` lanes are written.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        back, y, row, col, m, step, bias, high, wide, tail, relu, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        clip, mask, start = emit.splat(builder.icmp_signed("!=", relu, const(0))), emit.first(tail), emit.load(bias)
        for form, in switch(builder, (back,), _FORMS):
            side = 4 if form else 2
            rows = [_of_products(builder.fadd, form, [emit.load(emit.address(m, builder.mul(step, const(5 * p + q))))
                                                      for p in range(5)]) for q in range(5)]
            whole = builder.icmp_signed("==", tail, const(emit.lanes))
            for sides in (high, wide):
                whole = builder.and_(whole, builder.icmp_signed("==", sides, const(side)))
            made = {}
            for p in range(side):
                for q, value in enumerate(_of_products(builder.fadd, form, [of_row[p] for of_row in rows])):
                    value = builder.fadd(value, start)
                    negative = builder.and_(builder.fcmp_ordered("<", value, emit.zero), clip)
                    at = emit.address(y, builder.mul(row, const(p)), builder.mul(col, const(q)))
                    made[p, q] = builder.select(negative, emit.zero, value), at
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    for value, at in made.values():
                        emit.store(value, at)
                with otherwise:
                    for (p, q), (value, at) in made.items():
                        inside = [builder.icmp_signed("<", const(place), sides) for place, sides in ((p, high), (q, wide))]
                        with builder.if_then(builder.and_(*inside)):
                            emit.store_first(value, at, mask)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 11, float_type), codegen
