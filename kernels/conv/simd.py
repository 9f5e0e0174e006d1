"""The vector intrinsics of compiled convolutional networks; see `simd` for how and why they are written in LLVM IR.

==================  ==========================================================================================
``conv_tile``       a few pixels x a few vectors of output channels, bias, ReLU and pooling in registers
``patch_update``    the backward pass of one output channel: for each place with a gradient, one patch of the image
``interleave``      LANES pixels of a few channels, from channel after channel to pixel after pixel
==================  ==========================================================================================

The first two read images with the channels innermost, inside a frame of zeros: row p of the patch that a filter covers
is a run of h n_i neighbours.
"""
import llvmlite.ir as ir
from fastnet.kernels.simd import ADDRESS, ARM, VECTOR_BITS, Emit, lane_count, switch
from numba import types
from numba.extending import intrinsic

BYTE = ir.IntType(8)
MANY = VECTOR_BITS == 512 or ARM  # 32 vector registers, not 16
TILES = {1: [(8, 1), (4, 2), (4, 1), (1, 2), (1, 1)],  # (pixels, vectors) of a tile, without and with a pool
         2: [(4, 2), (2, 2), (8, 1), (4, 1), (2, 1)] if MANY else [(2, 2), (4, 1), (2, 1)]}
# Parts of a patch: rows, vectors, and whether registers hold the filter in addition to the sums
PATCHES = [(rows, vecs, scatter) for rows, vecs in [(3, 1), (3, 2), (3, 3), (1, 6), (1, 3), (1, 1)] for scatter in (0, 1)
           if MANY or rows * vecs * (1 + scatter) <= 12]


def const(value):
    return ir.Constant(ADDRESS, value)


@intrinsic(prefer_literal=True)
def conv_tile(typingctx, pool, cols, vecs, x, x_row, x_col, h, run, w, w_row, w_vec, bias, y, y_col, tail, bits, bits_col,
              relu, zero):
    """y = epilogue(bias + patches times filters) for a tile of neighbouring pixels and vectors of output channels.

    Parameters
    ----------
    pool : literal int
        With 1 the tile is `cols` pixels of one row. With 2 it is 2 rows x `cols` pixels, and the maxima of its 2 x 2 windows
        are written.
    cols, vecs : int64
        Pixels, and vectors of channels: one of the pairs in `TILES`. All sums live in registers.
    x, x_row, x_col : int64
        Address of the patch of the tile's first pixel; elements to the next row of the image and to the next pixel.
    h, run : int64
        The patch: h rows of `run` neighbours.
    w, w_row, w_vec : int64
        The filters in vector columns: row p of vector v at address w plus p * w_row + v * w_vec elements, `run` vectors.
    bias : int64
        Address of `vecs` vectors.
    y, y_col : int64
        Address of the first pixel or window of the output; elements to the next one.
    tail : int64
        Lanes of the last vector that are written, 1 to LANES.
    bits, bits_col : int64
        With pool = 2: address and step of one byte per window and channel. Bit 2 p + q is set where pixel (p, q) of the
        window is its maximum; with `relu`, no bit is set where the maximum is not above 0.
    relu : int64
        Not 0: negative results become 0. NaN stays NaN, and a window with NaN is NaN.
    zero : float32 or float64
        Its type is the element type.
    """
    if not isinstance(pool, types.IntegerLiteral):
        return None
    pool_n, float_type = pool.literal_value, zero
    signature = types.void(pool, *[types.int64] * 17, float_type)

    def codegen(context, builder, signature, arguments):
        emit = Emit(builder, float_type, lane_count(float_type))
        for size in switch(builder, arguments[1:3], TILES[pool_n]):
            _emit_tile(emit, pool_n, *size, *arguments[3:-1])
        return context.get_dummy_value()

    return signature, codegen


def _emit_tile(emit, pool, cols, vecs, x, x_row, x_col, h, run, w, w_row, w_vec, bias, y, y_col, tail, bits, bits_col, relu):
    """The code of a tile of one size, for the arguments of `conv_tile`."""
    builder = emit.builder
    sums = _patch_sums(emit, pool, cols, vecs, x, x_row, x_col, h, run, w, w_row, w_vec, bias)
    mask, whole = emit.first(tail), builder.icmp_signed("==", tail, const(emit.lanes))
    clip = emit.splat(builder.icmp_signed("!=", relu, const(0)))
    out, places = {}, {}
    for q in range(0, cols, pool):
        for v in range(vecs):
            if pool == 1:
                value = sums[0, q, v]
                negative = builder.fcmp_ordered("<", value, emit.zero)
                out[q, v] = builder.select(builder.and_(negative, clip), emit.zero, value)
            else:
                window = [sums[p, q + s, v] for p in range(2) for s in range(2)]
                out[q // 2, v], places[q // 2, v] = pool_and_clip(emit, window, clip)
    last = vecs - 1
    at = {(q, v): emit.address(y, builder.mul(y_col, const(q)), const(v * emit.lanes)) for q, v in out}
    for q, v in out:
        if v < last:
            emit.store(out[q, v], at[q, v])
    with builder.if_else(whole) as (then, otherwise):
        with then:
            for q, v in out:
                if v == last:
                    emit.store(out[q, v], at[q, v])
        with otherwise:
            for q, v in out:
                if v == last:
                    emit.store_first(out[q, v], at[q, v], mask)
    for (q, v), value in places.items():
        place = builder.add(bits, builder.add(builder.mul(bits_col, const(q)), const(v * emit.lanes)))
        builder.store(value, builder.inttoptr(place, value.type.as_pointer()), align=1)


def _patch_sums(emit, rows, cols, vecs, x, x_row, x_col, h, run, w, w_row, w_vec, bias):
    """For each pixel and vector: bias + the sum over the patch, the sums being phi nodes of one loop."""
    builder = emit.builder
    at = [(i, j, v) for i in range(rows) for j in range(cols) for v in range(vecs)]
    step = emit.address(const(0), x_col)  # bytes to the next pixel
    further = [const(0), step, builder.mul(step, const(2)), emit.unknown(builder.mul(step, const(3)))]
    columns = [emit.address(w, builder.mul(w_vec, const(v))) for v in range(vecs)]
    starts = [emit.load(emit.address(bias, const(v * emit.lanes))) for v in range(vecs)]
    size = emit.bytes
    down = emit.address(const(0), x_row)  # bytes to the next row of the image
    behind = builder.sub(run, const(1))
    turn = builder.sub(down, emit.address(const(0), behind))  # and from a run's end to it
    vector = const(size * emit.lanes)
    w_turn = builder.sub(emit.address(const(0), w_row), builder.mul(behind, vector))
    total = builder.mul(h, run)

    before = builder.block
    loop, body, after = (builder.append_basic_block(name) for name in ("patch.loop", "patch.body", "patch.after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    t, e, x_offset, w_offset = (builder.phi(ADDRESS) for _ in range(4))
    sums = {place: builder.phi(emit.vector) for place in at}
    builder.cbranch(builder.icmp_signed("<", t, total), body, after)
    builder.position_at_end(body)
    filters = [emit.load(builder.add(column, w_offset)) for column in columns]
    # LLVM would keep the distance of each pixel on the stack, and load it in each step: see `Emit.unknown`
    first = [emit.unknown(builder.add(x, offset)) for offset in [x_offset] + [builder.add(x_offset, down)] * (rows - 1)]
    fours = {(i, j): emit.unknown(builder.add(first[i], builder.mul(step, const(j)))) for i in range(rows)
             for j in range(0, cols, 4)}
    new = {}
    for i in range(rows):
        for j in range(cols):
            element = emit.broadcast(builder.add(fours[i, j // 4 * 4], further[j % 4]))
            for v in range(vecs):
                new[i, j, v] = emit.fma(element, filters[v], sums[i, j, v])
    following = builder.add(e, const(1))
    ends = builder.icmp_signed("==", following, run)
    nexts = [builder.add(t, const(1)), builder.select(ends, const(0), following),
             builder.add(x_offset, builder.select(ends, turn, const(size))),
             builder.add(w_offset, builder.select(ends, w_turn, vector))]
    builder.branch(loop)
    for value, next_value in zip((t, e, x_offset, w_offset), nexts, strict=True):
        value.add_incoming(const(0), before)
        value.add_incoming(next_value, body)
    for place in at:
        sums[place].add_incoming(starts[place[2]], before)
        sums[place].add_incoming(new[place], body)
    builder.position_at_end(after)
    return sums


def pool_and_clip(emit, window, clip):
    """The maximum of four vectors, and the bits of those that equal it."""
    builder = emit.builder

    def larger(a, b):
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    top = larger(larger(window[0], window[1]), larger(window[2], window[3]))
    odd = builder.or_(builder.fcmp_unordered("uno", window[0], window[1]),
                      builder.fcmp_unordered("uno", window[2], window[3]))
    top = builder.select(odd, ir.Constant(emit.vector, [float("nan")] * emit.lanes), top)
    bytes_ = ir.VectorType(BYTE, emit.lanes)
    none = ir.Constant(bytes_, [0] * emit.lanes)
    bits = none
    for place, value in enumerate(window):
        bit = ir.Constant(bytes_, [1 << place] * emit.lanes)
        bits = builder.or_(bits, builder.select(builder.fcmp_ordered("==", value, top), bit, none))
    dead = builder.and_(clip, builder.fcmp_ordered("<=", top, emit.zero))
    return builder.select(dead, emit.zero, top), builder.select(dead, none, bits)


@intrinsic
def patch_update(typingctx, rows, vecs, scatter, count, offsets, gradients, x, row, dw, dw_row, w, dx, zero):
    """dW += sum of g patch(x), and dx's patch += g W for every g: one output channel, the places with a gradient alone.

    Parameters
    ----------
    rows, vecs : int64
        The part of the patch: `rows` rows of `vecs` vectors. Its sums, and the filter, live in registers.
    scatter : int64
        1, or 0: without dx. The three numbers are one of `PATCHES`.
    count : int64
        Number of places.
    offsets, gradients : int64
        Addresses of `count` int64, the bytes from x to each place's patch, and of `count` gradients g.
    x, row : int64
        Address of the image in its frame; elements to its next row. One vector is read beyond the last patch.
    dw, dw_row, w : int64
        Address of the filter's gradient and of the filter, rows `dw_row` elements apart. The lanes of W behind the end of
        a row must be 0; those of dW are filled with no matter what.
    dx : int64
        Address of a frame as x.
    zero : float32 or float64
        Its type is the element type.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        emit = Emit(builder, float_type, lane_count(float_type))
        for part in switch(builder, arguments[:3], PATCHES):
            _emit_update(emit, *part, *arguments[3:-1])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12, float_type), codegen


def _emit_update(emit, rows, vecs, scatter, count, offsets, gradients, x, row, dw, dw_row, w, dx):
    """The code of a part of one size, for the arguments of `patch_update`."""
    builder = emit.builder
    at = [(p, v) for p in range(rows) for v in range(vecs)]
    steps = [emit.address(const(0), builder.mul(row, const(p))) for p in range(rows)]
    filter_at = {(p, v): emit.address(const(0), builder.mul(dw_row, const(p)), const(v * emit.lanes))
                 for p, v in at}
    filters = {place: emit.load(builder.add(w, filter_at[place])) for place in at} if scatter else {}

    before = builder.block
    loop, body, after = (builder.append_basic_block(name) for name in ("places.loop", "places.body", "places.after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    t = builder.phi(ADDRESS)
    sums = {place: builder.phi(emit.vector) for place in at}
    builder.cbranch(builder.icmp_signed("<", t, count), body, after)
    builder.position_at_end(body)
    offset = builder.load(builder.inttoptr(builder.add(offsets, builder.mul(t, const(8))), ADDRESS.as_pointer()))
    gradient = emit.broadcast(emit.address(gradients, t))
    new = {}
    for p, v in at:
        place = builder.add(builder.add(offset, steps[p]), const(v * emit.lanes * emit.bytes))
        new[p, v] = emit.fma(gradient, emit.load(builder.add(x, place)), sums[p, v])
        if scatter:
            there = builder.add(dx, place)
            emit.store(emit.fma(gradient, filters[p, v], emit.load(there)), there)
    following = builder.add(t, const(1))
    builder.branch(loop)
    t.add_incoming(const(0), before)
    t.add_incoming(following, body)
    for place in at:
        sums[place].add_incoming(emit.zero, before)
        sums[place].add_incoming(new[place], body)

    builder.position_at_end(after)
    for place in at:
        there = builder.add(dw, filter_at[place])
        emit.store(builder.fadd(emit.load(there), sums[place]), there)


@intrinsic(prefer_literal=True)
def interleave(typingctx, channels, to, x, plane, zero):
    """to[j, c] = x[c, j] for LANES pixels j of `channels` (a literal) channels, which lie `plane` elements apart in x."""
    if not isinstance(channels, types.IntegerLiteral):
        return None
    count, float_type = channels.literal_value, zero
    signature = types.void(channels, *[types.int64] * 3, float_type)

    def codegen(context, builder, signature, arguments):
        to, x, plane, _ = arguments[1:]
        emit = Emit(builder, float_type, lane_count(float_type))
        planes = [emit.load(emit.address(x, builder.mul(plane, const(c)))) for c in range(count)]
        for part in range(count):
            places = [divmod(part * emit.lanes + lane, count) for lane in range(emit.lanes)]  # (pixel, channel) of each lane
            mixed = emit.shuffle(planes[0], planes[1], [pixel + emit.lanes * (channel == 1) for pixel, channel in places])
            for c in range(2, count):
                mixed = emit.shuffle(mixed, planes[c], [emit.lanes + pixel if channel == c else lane
                                                        for lane, (pixel, channel) in enumerate(places)])
            emit.store(mixed, emit.address(to, const(part * emit.lanes)))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def load_byte(typingctx, address):
    """The byte at an address, 0 to 255."""
    def codegen(context, builder, signature, arguments):
        value = builder.load(builder.inttoptr(arguments[0], BYTE.as_pointer()))
        return builder.zext(value, ADDRESS)

    return types.int64(types.int64), codegen


@intrinsic
def store_byte(typingctx, address, value):
    """Write a byte at an address."""
    def codegen(context, builder, signature, arguments):
        value = builder.trunc(arguments[1], BYTE)
        builder.store(value, builder.inttoptr(arguments[0], BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
