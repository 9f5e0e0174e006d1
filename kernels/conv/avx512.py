"""The backward pass of a pooled convolution of 3 x 3 pixels with AVX-512: two better ways than lists of places.

Only the maximum of a 2 x 2 window has a gradient. A vector of output channels has its maxima at different pixels of the same
window. There are two cheap ways to compute with them, in addition to `image.list_back`, which serves every target and size:

=========  ==================================================================================================================
`LANES`    Few channels come in (an image's colours). The lanes are output channels; for each weight of the filter one
           permutation of two rows of the image brings every lane the pixel under its own maximum. Nine permutations and
           nine multiply-adds serve 16 channels. dx, if it is wanted, is computed as `few` says.
`MASKS`    The channels that come in are whole vectors. Masks of the places are walked bit by bit. For dW, the nine sums of a
           filter stay in registers while its windows go past; for dx, the sixteen pixels under a window stay there while its
           channels go past, and are stored once, where a list would store nine pixels for each channel.
=========  ==================================================================================================================

Intrinsics as of `simd`; `AVAILABLE` says whether the target has them.
"""
import llvmlite.ir as ir
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, separate
from fastnet.kernels.conv.simd import BYTE, const, load_byte, store_byte
from fastnet.kernels.simd import (
    ADDRESS,
    VECTOR_BITS,
    VECTOR_BYTES,
    X86,
    Emit,
    lane_count,
    lanes,
    store_int,
)
from numba import types
from numba.extending import intrinsic

AVAILABLE = VECTOR_BITS == 512 and X86
LISTS, LANES, MASKS = range(3)

_ENTRIES = 64  # of a list: one vector of gradients and one of indices each, which stay in the L1 cache
_WINDOWS = 64  # bits of a mask
_CHANNELS = 32  # whose filters stay in the L1 cache while all windows go past
MEMORY = _ENTRIES * (2 * VECTOR_BYTES + 8) + 2 * VECTOR_BYTES + 16 * _WINDOWS


def choose_way(h, c, width, wanted):
    """Which of the ways suits filters of side h and c channels, `width` lanes; `wanted` is whether dx is."""
    if not AVAILABLE or h != 3:
        return LISTS
    if c % width == 0:
        return MASKS
    return LANES if c <= width - 3 and (not wanted or 3 * c <= 2 * width) else LISTS


# --- lanes of output channels ---------------------------------------------------------------------------------------


@separate(lambda element: (*[INT] * 17, element))
def lanes_back(dx, dW, db, row_length, dy, dy_row, bits, bits_col, x, x_row, W, r, k, c, n_o, h, memory, zero):
    """dW, db += for one image; arguments as of `image.list_back`, but dW (vectors, 9 c, LANES) lies in vector columns.

    Each of several equal maxima is listed as a separate window. dx is left alone: see `few.lanes_few_back`.
    """
    width = lanes(zero)
    size = VECTOR_BYTES // width
    gradients, indices = memory, memory + _ENTRIES * VECTOR_BYTES
    rest, offsets = memory + 2 * _ENTRIES * VECTOR_BYTES, memory + (2 * _ENTRIES + 1) * VECTOR_BYTES
    for v in range(0, n_o, width):
        tail, count, column = min(width, n_o - v), 0, dW + 9 * c * v * size
        for i in range(r // 2):
            for j in range(k // 2):
                dy_at, bits_at = dy + (i * dy_row + j * n_o + v) * size, bits + (i * (k // 2) + j) * bits_col + v
                left = 1
                while left:
                    store_int(offsets + 8 * count, 2 * (i * x_row + j * c) * size)
                    entry = count * VECTOR_BYTES
                    left = list_window(gradients + entry, indices + entry, rest, dy_at, bits_at, tail, c, zero)
                    bits_at = rest
                    count += 1
                if count > _ENTRIES - 4:
                    _lanes_update(column, db + v * size, count, offsets, gradients, indices, x, x_row, c, zero)
                    count = 0
        _lanes_update(column, db + v * size, count, offsets, gradients, indices, x, x_row, c, zero)


@jit
def _lanes_update(dW, db, count, offsets, gradients, indices, x, x_row, c, zero):
    width = lanes(zero)
    size = VECTOR_BYTES // width
    lane_update(1, count, offsets, gradients, indices, x, x_row, dW, 3 * c * width, db, zero)
    for taps in range(3, 3 * c, 3):
        lane_update(0, count, offsets, gradients, indices, x + taps * size, x_row, dW + taps * VECTOR_BYTES, 3 * c * width,
                    db, zero)


@intrinsic
def list_window(typingctx, gradients, indices, rest, dy, bits, tail, c, zero):
    """Write what `lane_update` reads of one window and a vector of output channels; returns 1 if it has more maxima.

    Parameters
    ----------
    gradients, indices : int64
        Addresses of a vector of gradients, 0 in lanes without a maximum above 0, and of a vector of integers: where in two
        vectors, the rows under a window, the first maximum of each lane's window is.
    rest : int64
        Address of LANES bytes: `bits` without the first maximum of each.
    dy, bits : int64
        Addresses of a vector of gradients and of LANES bytes, see `simd.conv_tile`.
    tail : int64
        Lanes that count.
    c : int64
        Elements from one pixel to the next.
    zero : float32 or float64
        Its type is the element type.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        gradients, indices, rest, dy, bits, tail, c, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        bytes_ = ir.VectorType(BYTE, emit.lanes)
        integer = ir.IntType(float_type.bitwidth)

        def all_lanes(value):
            return ir.Constant(bytes_, [value] * emit.lanes)

        def pointer(address, kind):
            return builder.inttoptr(address, kind.as_pointer())

        places = builder.load(pointer(bits, bytes_), align=1)
        places = builder.select(emit.first(tail), places, all_lanes(0))
        others = builder.and_(places, builder.sub(places, all_lanes(1)))
        place = builder.sub(places, others)
        some = builder.icmp_unsigned("!=", places, all_lanes(0))
        emit.store(builder.select(some, emit.load(dy), emit.zero), gradients)
        below = builder.icmp_unsigned(">=", place, all_lanes(4))
        right = builder.icmp_unsigned("!=", builder.and_(place, all_lanes(0b1010)), all_lanes(0))
        none = emit.splat(ir.Constant(integer, 0))
        step = emit.splat(builder.trunc(c, integer) if integer.width < 64 else c)
        index = builder.add(builder.select(below, emit.splat(ir.Constant(integer, emit.lanes)), none),
                            builder.select(right, step, none))
        builder.store(index, pointer(indices, index.type), align=8)
        builder.store(others, pointer(rest, bytes_), align=1)
        bits_type = ir.IntType(8 * emit.lanes)
        more = builder.icmp_unsigned("!=", builder.bitcast(others, bits_type), ir.Constant(bits_type, 0))
        return builder.zext(more, ADDRESS)

    return types.int64(*[types.int64] * 7, float_type), codegen


@intrinsic(prefer_literal=True)
def lane_update(typingctx, sums, count, offsets, gradients, indices, x, row, dw, dw_row, db, zero):
    """dW[p, e] += sum over windows of gradient times pixel, lane by lane, for rows p = 0, 1, 2 and neighbours e = 0, 1, 2.

    Parameters
    ----------
    sums : literal int
        1: add the gradients themselves to db.
    count : int64
        Number of windows in the list.
    offsets, gradients, indices : int64
        Addresses of the list: `count` int64, bytes from x to the patch of each window, and what `list_window` writes.
    x, row : int64
        Address of the image in its frame, from which a vector is read in each row; elements to its next row.
    dw, dw_row : int64
        Address of the vector of weight (0, 0); elements from one row of weights to the next. Neighbours are vectors that
        follow each other.
    db : int64
        Address of a vector.
    zero : float32 or float64
        Its type is the element type.
    """
    if not isinstance(sums, types.IntegerLiteral):
        return None
    sums_n, float_type = sums.literal_value, zero
    signature = types.void(sums, *[types.int64] * 9, float_type)

    def codegen(context, builder, signature, arguments):
        count, offsets, gradients, indices, x, row, dw, dw_row, db, _ = arguments[1:]
        emit = Emit(builder, float_type, lane_count(float_type))
        index_type = ir.VectorType(ir.IntType(float_type.bitwidth), emit.lanes)
        name = f"llvm.x86.avx512.vpermi2var.{'ps' if emit.bytes == 4 else 'pd'}.512"
        permute = emit._declared(name, emit.vector, [emit.vector, index_type, emit.vector])
        at = [(p, e) for p in range(3) for e in range(3)]
        steps = [emit.address(const(0), builder.mul(row, const(p))) for p in range(4)]

        loop, sums = Loop(builder, "windows"), [*at, "db"][:9 + sums_n]
        t = loop.phi(ADDRESS, const(0))
        totals = {place: loop.phi(emit.vector, emit.zero) for place in sums}
        loop.body(builder.icmp_signed("<", t, count))
        start = builder.add(x, builder.load(builder.inttoptr(builder.add(offsets, builder.mul(t, const(8))),
                                                             ADDRESS.as_pointer())))
        there = builder.mul(t, const(VECTOR_BYTES))
        gradient = emit.load(builder.add(gradients, there))
        index = builder.load(builder.inttoptr(builder.add(indices, there), index_type.as_pointer()), align=8)
        lines = [emit.load(builder.add(start, step)) for step in steps]
        new = {}
        for e in range(3):
            moved = builder.add(index, ir.Constant(index_type, [e] * emit.lanes))
            for p in range(3):
                pixel = builder.call(permute, [lines[p], moved, lines[p + 1]])
                new[p, e] = emit.fma(gradient, pixel, totals[p, e])
        new["db"] = builder.fadd(totals["db"], gradient) if sums_n else None
        loop.end([(t, builder.add(t, const(1))), *[(totals[place], new[place]) for place in sums]])
        for place in sums:
            to = db
            if place != "db":
                to = emit.address(dw, builder.mul(dw_row, const(place[0])), const(place[1] * emit.lanes))
            emit.store(builder.fadd(emit.load(to), totals[place]), to)
        return context.get_dummy_value()

    return signature, codegen


class Loop:
    """A while loop whose variables are phi nodes."""

    def __init__(self, builder, name):
        self.builder, self.before = builder, builder.block
        parts = [f"{name}.{part}" for part in ("loop", "body", "after")]
        self.head, self.inside, self.after = map(builder.append_basic_block, parts)
        builder.branch(self.head)
        builder.position_at_end(self.head)

    def phi(self, kind, start):
        """A variable and its first value."""
        value = self.builder.phi(kind)
        value.add_incoming(start, self.before)
        return value

    def body(self, condition):
        """What follows is done while the condition holds."""
        self.builder.cbranch(condition, self.inside, self.after)
        self.builder.position_at_end(self.inside)

    def end(self, following):
        """Give each variable its next value; what follows comes behind the loop."""
        last = self.builder.block
        self.builder.branch(self.head)
        for value, new in following:
            value.add_incoming(new, last)
        self.builder.position_at_end(self.after)


# --- masks of places ------------------------------------------------------------------------------------------------


@separate(lambda element: (*[INT] * 17, element))
def masks_back(dx, dW, db, row_length, dy, dy_row, bits, bits_col, x, x_row, W, r, k, c, n_o, h, memory, zero):
    """dW, db and, if dx is not 0, dx += for one image; arguments as of `image.list_back`. c is whole vectors."""
    width = lanes(zero)
    size = VECTOR_BYTES // width
    cols = k // 2
    windows = r // 2 * cols
    table, turned = memory, memory + 16 * _WINDOWS
    for first in range(0, windows, _WINDOWS):
        count = min(_WINDOWS, windows - first)
        for t in range(count):
            i, j = (first + t) // cols, (first + t) % cols
            store_int(table + 16 * t, 2 * (i * x_row + j * c) * size)
            store_int(table + 16 * t + 8, (i * dy_row + j * n_o) * size)
        of_windows = bits + first * bits_col
        for o in range(0, n_o, 16):
            _turn(turned, of_windows + o, bits_col, count, min(16, n_o - o))
            for v in range(0, c, 2 * width):
                for q in range(o, min(o + 16, n_o)):
                    at = (q * 9 * c + v) * size
                    places = turned + (q - o) * _WINDOWS
                    if v + width < c:
                        mask_update(2, places, count, table, x + v * size, x_row, c, dW + at, dy + q * size, db + q * size,
                                    v == 0, zero)
                    else:
                        mask_update(1, places, count, table, x + v * size, x_row, c, dW + at, dy + q * size, db + q * size,
                                    v == 0, zero)
        if dx != 0:
            for v in range(0, c, width):
                for o in range(0, n_o, _CHANNELS):
                    for t in range(count):
                        window_update(of_windows + t * bits_col + o, min(_CHANNELS, n_o - o), table + 16 * t, dx + v * size,
                                      x_row, c, W + (o * 9 * c + v) * size, dy + o * size, zero)


@jit
def _turn(to, bits, bits_col, count, channels):
    """The bytes of 16 channels, each channel's windows behind each other."""
    whole = count // 16 * 16
    for t in range(0, whole, 16):
        transpose_bytes(to + t, _WINDOWS, bits + t * bits_col, bits_col)
    for t in range(whole, count):
        for o in range(channels):
            store_byte(to + o * _WINDOWS + t, load_byte(bits + t * bits_col + o))


@intrinsic
def transpose_bytes(typingctx, to, to_row, source, source_row):
    """to[j, i] = source[i, j] for one block of 16 x 16 bytes; rows are `to_row` and `source_row` bytes apart."""
    def codegen(context, builder, signature, arguments):
        to, to_row, source, source_row = arguments
        vector, index = ir.VectorType(BYTE, 16), ir.VectorType(ir.IntType(32), 16)

        def pointer(address, row, i):
            return builder.inttoptr(builder.add(address, builder.mul(row, const(i))), vector.as_pointer())

        rows = [builder.load(pointer(source, source_row, i), align=1) for i in range(16)]
        halves = [ir.Constant(index, [lane // 2 + 8 * half + 16 * (lane % 2) for lane in range(16)]) for half in range(2)]
        for _ in range(4):  # four perfect shuffles of the rows, each of which interleaves two
            rows = [builder.shuffle_vector(rows[i // 2], rows[i // 2 + 8], halves[i % 2]) for i in range(16)]
        for i in range(16):
            builder.store(rows[i], pointer(to, to_row, i), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def places_of(builder, at, count):
    """Four masks from the bytes at an address: which of the first `count`, at most 64, have the bit of each pixel."""
    vector = ir.VectorType(BYTE, 64)
    every = builder.load(builder.inttoptr(at, vector.as_pointer()), align=1)
    # count is at least 1: a shift by 64 has no meaning
    used = builder.lshr(ir.Constant(ADDRESS, -1), builder.sub(const(64), count))
    masks = []
    for place in range(4):
        some = builder.icmp_unsigned("!=", builder.and_(every, ir.Constant(vector, [1 << place] * 64)),
                                     ir.Constant(vector, [0] * 64))
        masks.append(builder.and_(builder.bitcast(some, ADDRESS), used))
    return masks


def walk(emit, name, mask, sums, step):
    """For every bit of a mask, from the lowest: sums = step(its number, sums); returns the last sums."""
    builder = emit.builder
    loop = Loop(builder, name)
    left = loop.phi(ADDRESS, mask)
    now = {place: loop.phi(value.type, value) for place, value in sums.items()}
    loop.body(builder.icmp_unsigned("!=", left, const(0)))
    number = builder.cttz(left, ir.Constant(ir.IntType(1), 1))
    new = step(number, now)
    loop.end([(left, builder.and_(left, builder.sub(left, const(1)))), *[(now[place], new[place]) for place in now]])
    return now


@intrinsic(prefer_literal=True)
def mask_update(typingctx, vecs, places, count, table, x, row, col, dw, dy, db, with_db, zero):
    """dW[p, q] += sum over the places of gradient times pixel: one output channel, `vecs` vectors of channels that go in.

    Parameters
    ----------
    vecs : literal int
    places, count : int64
        Address of a byte for each of at most 64 windows, see `simd.conv_tile`; their number. 64 are read.
    table : int64
        Address of two int64 for each window: bytes from x to its patch, and from dy to its gradient.
    x, row, col : int64
        Address of the image in its frame; elements to its next row and to the next pixel.
    dw : int64
        Address of the filter's gradient, whose nine weights are `col` elements apart.
    dy, db : int64
        Addresses of the channel's first gradient and of its bias's gradient, which changes if `with_db`.
    zero : float32 or float64
        Its type is the element type.
    """
    if not isinstance(vecs, types.IntegerLiteral):
        return None
    vecs_n, float_type = vecs.literal_value, zero
    signature = types.void(vecs, *[types.int64] * 9, types.boolean, float_type)

    def codegen(context, builder, signature, arguments):
        places, count, table, x, row, col, dw, dy, db, with_db, _ = arguments[1:]
        emit = Emit(builder, float_type, lane_count(float_type))
        down, right = emit.address(const(0), row), emit.address(const(0), col)
        at = [(p, q, v) for p in range(3) for q in range(3) for v in range(vecs_n)]

        def number(address):
            return builder.load(builder.inttoptr(address, ADDRESS.as_pointer()))

        sums = {**{place: emit.zero for place in at}, "db": ir.Constant(emit.scalar, 0.0)}
        for place, mask in enumerate(places_of(builder, places, count)):
            start = x
            if place // 2:
                start = builder.add(start, down)
            if place % 2:
                start = builder.add(start, right)

            def step(window, now, start=start):
                entry = builder.add(table, builder.mul(window, const(16)))
                line = builder.add(start, number(entry))
                from_dy = builder.add(dy, number(builder.add(entry, const(8))))
                g = builder.load(builder.inttoptr(from_dy, emit.scalar.as_pointer()), align=emit.bytes)
                gradient, new = emit.splat(g), {"db": builder.fadd(now["db"], g)}
                for p in range(3):
                    pixel = line
                    for q in range(3):
                        for v in range(vecs_n):
                            value = emit.load(emit.address(pixel, const(v * emit.lanes)))
                            new[p, q, v] = emit.fma(gradient, value, now[p, q, v])
                        pixel = builder.add(pixel, right)
                    line = builder.add(line, down)
                return new

            sums = walk(emit, "places", mask, sums, step)
        for p, q, v in at:
            to = builder.add(emit.address(dw, const(v * emit.lanes)), builder.mul(right, const(3 * p + q)))
            emit.store(builder.fadd(emit.load(to), sums[p, q, v]), to)
        with builder.if_then(with_db):
            to = builder.inttoptr(db, emit.scalar.as_pointer())
            builder.store(builder.fadd(builder.load(to, align=emit.bytes), sums["db"]), to, align=emit.bytes)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def window_update(typingctx, places, count, table, dx, row, col, w, dy, zero):
    """dx[i, j] += sum over channels of gradient times weight: the 16 pixels under a window, a vector of channels each.

    Parameters
    ----------
    places, count : int64
        Address of a byte for each of at most 64 output channels; their number. 64 are read.
    table : int64
        Address of two int64: bytes from dx to the window's patch, and from dy to its gradients.
    dx, row, col : int64
        Address of the image in its frame; elements to its next row and to the next pixel.
    w : int64
        Address of the first channel's filter; the weights of a filter are `col` elements apart, and so are filters.
    dy : int64
        Address of the first channel's gradients.
    zero : float32 or float64
        Its type is the element type.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        places, count, table, dx, row, col, w, dy, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        down, right = emit.address(const(0), row), emit.address(const(0), col)

        def number(address):
            return builder.load(builder.inttoptr(address, ADDRESS.as_pointer()))

        corner = builder.add(dx, number(table))
        first = builder.add(dy, number(builder.add(table, const(8))))
        at = {(i, j): builder.add(corner, builder.add(builder.mul(down, const(i)), builder.mul(right, const(j))))
              for i in range(4) for j in range(4)}
        filter_bytes = builder.mul(right, const(9))
        pixels = {place: emit.load(address) for place, address in at.items()}
        for place, mask in enumerate(places_of(builder, places, count)):
            moved = {(p, q): (p + place // 2, q + place % 2) for p in range(3) for q in range(3)}

            def step(channel, now, moved=moved):
                gradient = emit.broadcast(emit.address(first, channel))
                weights = builder.add(w, builder.mul(channel, filter_bytes))
                new = {}
                for p in range(3):
                    weight = weights
                    for q in range(3):
                        new[moved[p, q]] = emit.fma(gradient, emit.load(weight), now[moved[p, q]])
                        weight = builder.add(weight, right)
                    weights = weight
                return new

            changed = {to: pixels[to] for to in moved.values()}
            pixels.update(walk(emit, "channels", mask, changed, step))
        for place, address in at.items():
            emit.store(pixels[place], address)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, float_type), codegen
