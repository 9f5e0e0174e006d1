"""The gradient of an image of few channels with AVX-512, from a pooled convolution of 3 x 3 pixels.

As `avx512.window_update` does for whole vectors of channels: the pixels under a window stay in registers while its
output channels go past. Here a row of a filter, three pixels of few channels, is one vector or two. Each place of a
maximum moves the filter by a row or by a pixel: four rows, and each of them twice, are what the registers hold.
"""
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, separate
from fastnet.kernels.conv import avx512
from fastnet.kernels.conv.avx512 import lanes_back, places_of, walk
from fastnet.kernels.conv.simd import const
from fastnet.kernels.simd import VECTOR_BYTES, Emit, lane_count, lanes
from numba import types
from numba.extending import intrinsic

AVAILABLE = avx512.AVAILABLE
_CHANNELS = 64  # bits of a mask


@separate(lambda element: (*[INT] * 17, element))
def lanes_few_back(dx, dW, db, row_length, dy, dy_row, bits, bits_col, x, x_row, W, r, k, c, n_o, h, memory, zero):
    """`avx512.lanes_back`, and if dx is not 0, dx +=. row_length is one vector or two."""
    lanes_back(dx, dW, db, row_length, dy, dy_row, bits, bits_col, x, x_row, W, r, k, c, n_o, h, memory, zero)
    if dx != 0:
        _few_back(dx, row_length, dy, dy_row, bits, bits_col, x_row, W, r, k, c, n_o, zero)


@jit
def _few_back(dx, row_length, dy, dy_row, bits, bits_col, x_row, W, r, k, c, n_o, zero):
    width = lanes(zero)
    size = VECTOR_BYTES // width
    for i in range(r // 2):
        for j in range(k // 2):
            places, to = bits + (i * (k // 2) + j) * bits_col, dx + 2 * (i * x_row + j * c) * size
            dy_at = dy + (i * dy_row + j * n_o) * size
            for o in range(0, n_o, _CHANNELS):
                count, w = min(_CHANNELS, n_o - o), W + o * 3 * row_length * size
                if row_length == width:
                    rows_update(1, places + o, count, to, x_row, c, w, dy_at + o * size, zero)
                else:
                    rows_update(2, places + o, count, to, x_row, c, w, dy_at + o * size, zero)


@intrinsic(prefer_literal=True)
def rows_update(typingctx, vecs, places, count, dx, row, col, w, dy, zero):
    """dx[i, j] += sum over channels of gradient times weight: the four rows under a window.

    Parameters
    ----------
    vecs : literal int
        Vectors of a filter's row. The lanes of a row behind its weights must be 0.
    places, count : int64
        Address of a byte for each of at most 64 output channels; their number. 64 are read.
    dx, row, col : int64
        Address of the window's patch; elements to the next row and to the next pixel.
    w : int64
        Address of the first channel's filter: three rows of `vecs` vectors each, and so the next one's.
    dy : int64
        Address of the first channel's gradients.
    zero : float32 or float64
        Its type is the element type.
    """
    if not isinstance(vecs, types.IntegerLiteral):
        return None
    vecs_n, float_type = vecs.literal_value, zero
    signature = types.void(vecs, *[types.int64] * 7, float_type)

    def codegen(context, builder, signature, arguments):
        places, count, dx, row, col, w, dy, _ = arguments[1:]
        emit = Emit(builder, float_type, lane_count(float_type))
        sums = {(q, i, v): emit.zero for q in range(2) for i in range(4) for v in range(vecs_n)}
        for place, mask in enumerate(places_of(builder, places, count)):
            below, right = divmod(place, 2)

            def step(channel, now, below=below, right=right):
                gradient = emit.broadcast(emit.address(dy, channel))
                weights = builder.add(w, builder.mul(channel, const(3 * vecs_n * emit.lanes * emit.bytes)))
                new = {}
                for p in range(3):
                    for v in range(vecs_n):
                        weight = emit.load(emit.address(weights, const((p * vecs_n + v) * emit.lanes)))
                        new[right, below + p, v] = emit.fma(gradient, weight, now[right, below + p, v])
                return new

            changed = {(right, below + p, v): sums[right, below + p, v] for p in range(3) for v in range(vecs_n)}
            sums.update(walk(emit, "channels", mask, changed, step))
        for (q, i, v), total in sums.items():
            to = emit.address(dx, builder.mul(row, const(i)), builder.mul(col, const(q)), const(v * emit.lanes))
            emit.store(builder.fadd(emit.load(to), total), to)
        return context.get_dummy_value()

    return signature, codegen
