"""The forward and backward pass of a convolution for one image, by address: what the ops of compiled networks call.

An image lies with its channels innermost, in a frame of zeros: pixel (i, j) of the middle is i rows and j n_i elements
behind its corner. The patch of a pixel begins as many rows and pixels before it as the convolution has padding.

- In the forward pass, a tile of pixels and output channels is summed in registers (`simd.conv_tile`), and bias, ReLU and
  pooling happen there, too. A pooled convolution writes only the maxima, with one byte each that says where they were.
- In the backward pass of a pooled convolution only those places have a gradient, and ReLU has removed some of them: a
  quarter of the pixels at most. `list_back` lists them for each output channel, and `simd.patch_update` goes through the
  list. With AVX-512 there are better ways for the usual sizes, see `avx512`.
- Without a pool the gradients are dense. dx is a sum of convolutions (`input_gradient`), and dW a product, as of any layer
  (`dense_conv_back`, `patches_back`).
"""
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, AddressedKernel, address_of, separate
from fastnet.kernels.conv import avx512
from fastnet.kernels.conv.avx512 import LANES, MASKS, lanes_back, masks_back
from fastnet.kernels.conv.few import lanes_few_back
from fastnet.kernels.conv.simd import MANY, conv_tile, interleave, load_byte, patch_update
from fastnet.kernels.conv.windows import add_pixels, find_places
from fastnet.kernels.gemm.blocking import pack_copy, tile_loop
from fastnet.kernels.records import Mat, vector_at
from fastnet.kernels.simd import (
    NV,
    VECTOR_BYTES,
    cast_like,
    clear_vector,
    lanes,
    load,
    load_int,
    noinline,
    store,
    store_int,
)

LISTED = 128  # windows whose places are listed at a time: the list stays in the L1 cache
TOGETHER = 256  # pixels in one product of a dense gradient
PATCHES = 1 << 18  # bytes of a matrix of patches: it stays in the L2 cache
PIXELS = 128  # patches in one product: a few vectors of each stay in the L1 cache
MEMORY = max(avx512.MEMORY, (24 + 16 * 4) * LISTED + 128)  # of a list: 4 equal maxima a window at most, and a table


@jit
def pooled_conv(y, y_row, bits, bits_col, x, x_row, filters, bias, r, k, c, n_o, h, relu, zero):
    """The maxima of 2 x 2 windows of one image's convolution, and where they are; see `simd.conv_tile`.

    x is the address of the patch of pixel (0, 0). Output pixels are n_o elements apart, rows y_row. Of the bytes, pixels are
    bits_col apart, whole vectors, and rows follow each other. A last odd row or column is not looked at.
    """
    noinline()
    width = lanes(zero)
    size = VECTOR_BYTES // width
    vectors, run, column = (n_o + width - 1) // width, h * c, h * h * c * width
    for i in range(r // 2):
        v = 0
        while v < vectors:
            wide = min(2, vectors - v)
            tail = min(width, n_o - (v + wide - 1) * width)
            w, b = filters + v * column * size, bias + v * width * size
            j = 0
            while j < k - 1:
                left = k - j
                x_at = x + (2 * i * x_row + j * c) * size
                y_at = y + (i * y_row + j // 2 * n_o + v * width) * size
                bits_at = bits + (i * (k // 2) + j // 2) * bits_col + v * width
                if wide == 2:
                    cols = 4 if MANY and left >= 4 else 2
                else:
                    cols = 8 if MANY and left >= 8 else 4 if left >= 4 else 2
                conv_tile(2, cols, wide, x_at, x_row, c, h, run, w, run * width, column, b, y_at, n_o, tail, bits_at,
                          bits_col, relu, zero)
                j += cols
            v += wide


@separate(lambda element: (*[INT] * 17, element))
def plain_conv(y, y_row, y_col, x, x_row, down, right, filters, row, column, bias, r, k, n_o, h, run, relu, zero):
    """All r x k pixels of one image's convolution, n_o channels each, with filters of h rows of `run` neighbours.

    x is the address of the patch of pixel (0, 0). The patch of the next output pixel lies `right` elements behind this
    one's, that of the pixel below `down` elements; output pixels are y_col elements apart, rows y_row. The rows of filters
    are `row` elements apart, their vector columns `column`.
    """
    width = lanes(zero)
    size = VECTOR_BYTES // width
    eights = (k + 3) // 8 if k >= 8 else 0  # tiles of one vector; a last one begins earlier, and computes some pixels again
    whole = min(8 * eights, k)
    for first, last, vectors in ((0, whole, 1), (whole, k, 2)):
        widest = 8 if vectors == 1 else 4 if k >= 4 else 1
        for v in range(0, n_o if first < last else 0, vectors * width):
            wide = min(vectors, (n_o - v + width - 1) // width)
            tail, w, b = min(width, n_o - v - (wide - 1) * width), filters + v // width * column * size, bias + v * size
            for i in range(r):
                j = first
                while j < last:
                    j = min(j, k - widest)
                    conv_tile(1, widest, wide, x + (i * down + j * right) * size, x_row, right, h, run, w, row, column, b,
                              y + (i * y_row + j * y_col + v) * size, y_col, tail, 0, 0, relu, zero)
                    j += widest


@jit
def taps(h, step, first):
    """How many of the numbers first, first + step, first + 2 step ... are below h."""
    return max(0, h - first + step - 1) // step


@jit
def taps_before(h, step, first):
    """The sum of `taps` over smaller numbers `first`."""
    count = 0
    for i in range(first):
        count += taps(h, step, i)
    return count


@jit
def turned_tap(p, q, h, down, right):
    """Where weight (p, q) of filters of side h stands among the filters of `input_gradient`."""
    high, wide = taps(h, down, p % down), taps(h, right, q % right)
    first = taps_before(h, down, p % down) * h + high * taps_before(h, right, q % right)
    return first + (high - 1 - p // down) * wide + wide - 1 - q // right


def margin(h, window):
    """Pixels of zero padding around the gradient of the output that `input_gradient` reads; `window`: strides, padding."""
    return max(0, -((window[2] + 1 - h) // window[0]), -((window[3] + 1 - h) // window[1]))


@separate(lambda element: (*[INT] * 17, element))
def input_gradient(dx, dx_row, dy, dy_row, filters, bias, r, k, rows, dy_cols, c, n_o, h, down, right, above, left, zero):
    """dx (r, k, c), the gradient of a convolution's input, from dy (rows, dy_cols, n_o); rows are dx_row and dy_row apart.

    With strides (down, right), an input pixel (u, v) meets only the weights (p, q) with p = u + above modulo `down` and
    q = v + left modulo `right`. So the pixels fall into down x right classes, and each is a convolution of dy at a stride of
    1 with its own part of the filters, rotated by 180 degrees: no product has a factor of 0 between two pixels of dy. The
    filters lie in vector columns, class after class, see `turned_tap`. `bias` is the address of zeros. The rows of dy
    have `margin` pixels of zero padding on each side; rows above and below are not read. Columns of dx whose patches reach
    into the padding have tiles of pixels below each other, with a part of the filters, where that saves other tiles.
    """
    width = lanes(zero)
    size = VECTOR_BYTES // width
    column = h * h * n_o * width
    for a in range(down):
        high, u = taps(h, down, a), (a - above) % down
        first_row = (u + above - a) // down - high + 1
        of_class = max(0, r - u + down - 1) // down
        for b in range(right):
            wide, v = taps(h, right, b), (b - left) % right
            cols = max(0, k - v + right - 1) // right
            first_col = (v + left - b) // right - wide + 1
            inner, end = min(cols, max(0, -first_col)), max(0, min(cols, dy_cols - wide - first_col + 1))
            bordered = inner <= end and (end - inner + 7) // 8 < (cols + 7) // 8
            w = filters + (taps_before(h, down, a) * h + high * taps_before(h, right, b)) * n_o * VECTOR_BYTES
            i = 0
            while i < of_class:
                first = first_row + i  # of the rows of dy that this row meets
                skipped = max(0, -first)
                used, count = max(0, min(high, rows - first) - skipped), 1
                if used == high:  # and so for all rows down to the last ones
                    count = max(1, min(of_class - i, rows - high - first + 1))
                to = dx + ((u + i * down) * dx_row + v * c) * size
                at = dy + ((first + skipped) * dy_row + first_col * n_o) * size
                of_row, run = w + skipped * wide * n_o * VECTOR_BYTES, wide * n_o
                borders = bordered and count >= 8
                j0, j1 = (inner, end) if borders else (0, cols)
                plain_conv(to + j0 * right * c * size, down * dx_row, right * c, at + j0 * n_o * size, dy_row, dy_row, n_o,
                           of_row, run * width, column, bias, count, j1 - j0, c, used, run, 0, zero)
                for j in range(cols if borders else 0):
                    if j < j0 or j >= j1:
                        q0, q1 = max(0, -first_col - j), max(0, min(wide, dy_cols - first_col - j))
                        plain_conv(to + j * right * c * size, 0, down * dx_row, at + (j + q0) * n_o * size, dy_row, 0,
                                   dy_row, of_row + q0 * n_o * VECTOR_BYTES, run * width, column, bias, 1, count, c, used,
                                   max(0, q1 - q0) * n_o, 0, zero)
                i += count


@separate(lambda element: (*[INT] * 17, element))
def list_back(dx, dW, db, row_length, dy, dy_row, bits, bits_col, x, x_row, W, r, k, c, n_o, h, memory, zero):
    """The backward pass of `pooled_conv` for one image: dW, db += and, if dx is not 0, dx +=.

    dW and W are (n_o, h, row_length), a row of a filter being h c elements and zeros to whole vectors; dW is anything
    there. x and dx are addresses of the patch of pixel (0, 0) in equal frames; dx's is filled before, and what is added
    outside its middle has no meaning. `memory` starts on a vector's boundary and has MEMORY bytes. Behind x, dx and dy a
    vector is read, and 64 bytes behind `bits`.
    """
    width = lanes(zero)
    size = VECTOR_BYTES // width
    cols, vectors = k // 2, row_length // width
    table, order, offsets = memory, memory + 128, memory + 128 + 24 * LISTED
    gradients = offsets + 32 * LISTED
    store_int(table, 0)
    for place in range(4):
        store_int(table + (8 << place), (place // 2 * x_row + place % 2 * c) * size)
    for first in range(0, r // 2, max(1, LISTED // cols)):
        last = min(r // 2, first + max(1, LISTED // cols))
        for left in range(0, cols, LISTED):
            windows = _order_windows(order, first, last, left, min(cols, left + LISTED), cols, x_row, c, dy, dy_row, n_o,
                                     bits, bits_col, size)
            for o in range(n_o):
                count = _list_places(offsets, gradients, table, order, windows, o, size, zero)
                total = zero
                for t in range(count):
                    total += load(gradients + t * size, zero)
                store(db + o * size, load(db + o * size, zero) + total)
                at = o * h * row_length * size
                _update_patches(offsets, gradients, count, x, x_row, dW + at, row_length, W + at, dx, h, vectors, zero)


@jit
def _order_windows(order, first, last, left, right, cols, x_row, c, dy, dy_row, n_o, bits, bits_col, size):
    """List the windows of rows first:last, columns left:right: bytes to the patch of each, addresses of its dy and bits.

    Neighbours' patches overlap, and what one has stored should not be loaded by the next: every second window first.
    """
    windows = 0
    for i in range(first, last):
        for odd in range(2):
            for j in range(left + odd, right, 2):
                at = order + 24 * windows
                store_int(at, 2 * (i * x_row + j * c) * size)
                store_int(at + 8, dy + (i * dy_row + j * n_o) * size)
                store_int(at + 16, bits + (i * cols + j) * bits_col)
                windows += 1
    return windows


@jit
def _list_places(offsets, gradients, table, order, windows, o, size, zero):
    """List the places of one channel that have a gradient: bytes to their patches, and the gradients."""
    noinline()
    count = 0
    for _ in range(windows):
        corner, g = load_int(order), load(load_int(order + 8) + o * size, zero)
        places = load_byte(load_int(order + 16) + o)
        order += 24
        if places & (places - 1) == 0:  # one place, or none, which the next window overwrites: no branch to be guessed
            store_int(offsets + 8 * count, corner + load_int(table + 8 * places))
            store(gradients + size * count, g)
            count += places != 0
        else:  # equal maxima: the gradient for each
            for place in range(4):
                if places & 1 << place:
                    store_int(offsets + 8 * count, corner + load_int(table + (8 << place)))
                    store(gradients + size * count, g)
                    count += 1
    return count


@jit
def _update_patches(offsets, gradients, count, x, x_row, dW, row_length, W, dx, h, vectors, zero):
    """`patch_update` for all rows and vectors of a filter, as many at a time as the registers hold."""
    size = VECTOR_BYTES // lanes(zero)
    rows = 3 if h == 3 and vectors <= (3 if MANY or dx == 0 else 2) else 1
    for p in range(0, h, rows):
        v = 0
        while v < vectors:
            left = vectors - v
            vecs = left if rows == 3 else 6 if left >= 6 else 3 if left >= 3 else 1
            step = (p * x_row + v * lanes(zero)) * size
            there = (p * row_length + v * lanes(zero)) * size
            patch_update(rows, vecs, 1 if dx != 0 else 0, count, offsets, gradients, x + step, x_row, dW + there, row_length,
                         W + there, dx + step, zero)
            v += vecs


def back_kernel(way: int, wanted: bool) -> AddressedKernel:
    """What computes as `list_back` in one of the ways of `avx512.choose_way`; `wanted` is whether dx is."""
    if way == LANES:
        return lanes_few_back if wanted else lanes_back
    return masks_back if way == MASKS else list_back


if avx512.AVAILABLE:
    @jit
    def back_at(way, like):
        """Address of `back_kernel` for elements of the type of `like`, and for dx that is perhaps wanted."""
        if way == LANES:
            return address_of(lanes_few_back, like)
        return address_of(masks_back, like) if way == MASKS else address_of(list_back, like)
else:
    @jit
    def back_at(way, like):
        """Address of `list_back`: this target has no other way."""
        return address_of(list_back, like)


@jit
def dense_conv_back(dW, row_length, dy, dy_row, x, x_row, r, k, c, n_o, h, zero):
    """dW += for one image whose gradient dy (r, k, n_o), rows dy_row apart, is dense; arguments as of `list_back`.

    If rows of x and of dy are equally many pixels apart, what lies between two rows of dy must be 0: then many rows are
    one product, and dW is read and written less often.
    """
    noinline()
    width = lanes(zero)
    size = VECTOR_BYTES // width
    one = cast_like(1, zero)
    if dy_row * c == x_row * n_o:
        pixels = (r - 1) * (x_row // c) + k
        for t in range(0, pixels, TOGETHER):
            count = min(TOGETHER, pixels - t)
            for p in range(h):
                tile_loop(Mat(dW + p * row_length * size, h * row_length, 1, width), Mat(dy + t * n_o * size, 1, n_o, 0),
                          Mat(x + (p * x_row + t * c) * size, c, 1, width), n_o, h * c, count, one, one, 0, 0, 0)
        return
    for i in range(r):
        for p in range(h):
            tile_loop(Mat(dW + p * row_length * size, h * row_length, 1, width), Mat(dy + i * dy_row * size, 1, n_o, 0),
                      Mat(x + (i + p) * x_row * size, c, 1, width), n_o, h * c, k, one, one, 0, 0, 0)


@separate(lambda element: (*[INT] * 17, element))
def patches_back(dW, row_length, dy, dy_row, dy_image, x, x_row, x_image, down, right, images, r, k, n_o, h, memory,
                 memory_bytes, zero):
    """dW += for some images at any stride: products with a matrix of patches.

    dy (r, k, n_o), rows dy_row and images dy_image elements apart, is dense. x is the address of the patch of pixel (0, 0),
    images are x_image elements apart, `down` and `right` as of `plain_conv`. dW is (n_o, h, row_length), whole vectors; its
    elements behind a row of a filter have no meaning. `memory` holds some pixels' patches, one row each as a filter's,
    and their gradients: at least `patch_bytes`. Behind x a vector is read.
    """
    width = lanes(zero)
    size, one, length = VECTOR_BYTES // width, cast_like(1, zero), h * row_length
    patch_row, dy_col = _odd(length, width), _odd(n_o, width)
    most = max(1, min(PIXELS, memory_bytes // ((patch_row + dy_col) * size)))
    gradients = memory + most * patch_row * size
    for i0 in range(0, images * r, max(1, most // k)):
        for j0 in range(0, k, most):
            high, wide = min(max(1, most // k), images * r - i0), min(most, k - j0)
            for i in range(high):
                image, row = (i0 + i) // r, (i0 + i) % r
                at = dy + (image * dy_image + row * dy_row + j0 * n_o) * size
                pack_copy(gradients + i * wide * dy_col * size, dy_col, Mat(at, n_o, 1, 0), wide, n_o, zero)
                for p in range(h):
                    at = x + (image * x_image + row * down + p * x_row + j0 * right) * size
                    pack_copy(memory + (i * wide * patch_row + p * row_length) * size, patch_row, Mat(at, right, 1, 0), wide,
                              row_length, zero)
            for j in range(0, length, NV * width):  # these columns of the patches stay in the L1 cache
                tile_loop(Mat(dW + j * size, length, 1, width), Mat(gradients, 1, dy_col, 0),
                          Mat(memory + j * size, patch_row, 1, width), n_o, min(NV * width, length - j), high * wide, one,
                          one, 0, 0, 0)


@jit
def patch_bytes(length, n_o, zero):
    """Memory that `patches_back` needs at least: for one pixel's patch and gradient."""
    width = lanes(zero)
    return (_odd(length, width) + _odd(n_o, width)) * (VECTOR_BYTES // width)


@jit
def _odd(count, width):
    """Elements of an odd number of vectors that hold `count`: rows so far apart share no sets of the L1 cache."""
    return ((count + width - 1) // width | 1) * width


@jit
def add_channel_sums(db, dy, dy_row, r, k, n_o, zero):
    """db += the sums of dy (r, k, n_o), rows dy_row apart, over all pixels. Behind dy a vector is read."""
    width = lanes(zero)
    size = VECTOR_BYTES // width
    for i in range(r):
        for o in range(0, n_o, width):
            add_pixels(db + o * size, dy + (i * dy_row + o) * size, k, n_o, min(width, n_o - o), zero)


@jit
def pooled_form(gradients, bits, bits_col, dy, dy_row, r, k, n_o, zero):
    """Whether dy (r, k, n_o), rows dy_row apart, is a gradient that came through a pool of 2; if so, what came before it.

    That is the case if no window has two different values other than zeros, and a last odd row or column is 0. Then the
    values are the `gradients` (r // 2, k // 2, n_o) and the `bits` that `list_back` reads. NaN equals nothing.
    Behind dy a vector is read, behind `gradients` one is written.
    """
    width = lanes(zero)
    size = VECTOR_BYTES // width
    for i in range(r // 2):
        for j in range(k // 2):
            to, at, places = (i * (k // 2) + j) * n_o, 2 * (i * dy_row + j * n_o), bits + (i * (k // 2) + j) * bits_col
            one = 1
            for o in range(0, n_o, width):
                one &= find_places(gradients + (to + o) * size, places + o, dy + (at + o) * size, dy_row, n_o,
                                   min(width, n_o - o), zero)
            if not one:
                return False
    if r % 2 and not _all_zero(dy + (r - 1) * dy_row * size, k * n_o, zero):
        return False
    if k % 2:
        for i in range(r):
            if not _all_zero(dy + (i * dy_row + (k - 1) * n_o) * size, n_o, zero):
                return False
    return True


@jit
def _all_zero(at, count, zero):
    values = vector_at(at, count, zero)
    for i in range(count):
        if values[i] != zero:
            return False
    return True


@jit
def is_moderate(at, count, zero):
    """Whether the squares of `count` elements sum up to less than 1e30: none is NaN or inf, and products stay far from it.

    Then 0 times any of them is 0, and Winograd's sums do not overflow.
    """
    values = vector_at(at, count, zero)
    total = zero
    for i in range(count):
        total += values[i] * values[i]
    return total < 1e30


@jit
def to_frame(to, x, c, r, k, f, zero):
    """The image at address x (c, r, k) into the middle of a frame (r + 2 f, k + 2 f, c) at address `to`.

    What the frame holds outside the middle is left alone.
    """
    if f == 0:  # without a frame all rows are one
        _to_row(to, x, c, r * k, r * k, zero)
        return
    size = VECTOR_BYTES // lanes(zero)
    for i in range(r):
        _to_row(to + ((i + f) * (k + 2 * f) + f) * c * size, x + i * k * size, c, k, r * k, zero)


@jit
def _to_row(to, x, c, k, plane, zero):
    """k pixels of c channels each from channels that lie `plane` elements apart."""
    noinline()
    width = lanes(zero)
    size = VECTOR_BYTES // width
    if c == 1:
        pack_copy(to, k, Mat(x, k, 1, 0), 1, k, zero)
        return
    if c >= width:
        pack_copy(to, c, Mat(x, 1, plane, 0), k, c, zero)
        return
    whole = k // width * width if c <= 4 else 0
    for j in range(0, whole, width):
        if c == 2:
            interleave(2, to + j * c * size, x + j * size, plane, zero)
        elif c == 3:
            interleave(3, to + j * c * size, x + j * size, plane, zero)
        else:
            interleave(4, to + j * c * size, x + j * size, plane, zero)
    for channel in range(c):
        for j in range(whole, k):
            store(to + (j * c + channel) * size, load(x + (channel * plane + j) * size, zero))


@jit
def from_frame(to, x, c, r, k, f, zero):
    """The middle of the frame at address x into an image (c, r, k) at address `to`."""
    size = VECTOR_BYTES // lanes(zero)
    if f == 0:
        pack_copy(to, r * k, Mat(x, 1, c, 0), c, r * k, zero)
        return
    for i in range(r):
        pack_copy(to + i * k * size, r * k, Mat(x + ((i + f) * (k + 2 * f) + f) * c * size, 1, c, 0), c, k, zero)


@jit
def clear(to, count, zero):
    """Zeros at `count` elements, rounded up to whole vectors."""
    width = lanes(zero)
    for i in range(0, count, width):
        clear_vector(to + i * (VECTOR_BYTES // width), zero)
