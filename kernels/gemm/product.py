"""Products by several threads, each by the kernel that takes the least time: the bits do not depend on which.

``blocking.macro_kernel``      for any product
``blocking.transposed_kernel`` where packing B.T costs less than packing B
``sparse.sparse_kernel``       where A or B has many zeros
"""
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, is_there, separate
from fastnet.kernels.gemm.blocking import macro_kernel, partition, transposed_is_faster, transposed_kernel
from fastnet.kernels.gemm.sparse import has_zeros, sparse_kernel
from fastnet.kernels.records import MATRIX, Mat
from fastnet.kernels.simd import MR, VECTOR_BYTES, lanes


@separate(lambda element: (INT, *[MATRIX] * 3, *[INT] * 3, element, element, *[INT] * 2))
def product_kernel(scratch, c, a, b, rows, cols, k, alpha, beta, bias, relu):
    """C (rows, cols) = epilogue(alpha A B + beta C) by one thread; arguments as of `macro_kernel`."""
    if is_there(sparse_kernel, alpha):
        for turned in range(1 if b.vec > 0 else 2):  # the zeros of A, or else those of B, with C.T = B.T A.T
            left, right, m, n = a, b, rows, cols
            if turned:
                left, right, m, n = Mat(b.at, b.col, b.row, 0), Mat(a.at, a.col, a.row, 0), cols, rows
            if has_zeros(left, m, n, k, turned, alpha):
                sparse_kernel(scratch, c, left, right, 0, 0, m, n, k, alpha, beta, bias, relu, turned)
                return
    macro_kernel(scratch, c, a, b, rows, cols, k, alpha, beta, bias, relu, 0)


@jit
def split(m, n, width, threads):
    """How many ways to cut the rows of C; threads divided by it is how many ways to cut its columns.

    Counted in cycles for each step of k: a vector multiply-add is one, packing a vector of A or B about 8, as it comes from
    far. The slowest rectangle decides.
    """
    best, cuts = -1, 1
    for down in range(1, threads + 1):
        if threads % down == 0:
            across = threads // down
            rows = ((m + MR - 1) // MR + down - 1) // down * MR
            vecs = ((n + width - 1) // width + across - 1) // across
            cycles = rows * vecs + 8 * (rows // width + vecs)
            if best < 0 or cycles < best:
                best, cuts = cycles, down
    return cuts


@jit
def gemm(thread, threads, sync, scratch, c, c_row, c_vec, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k,
         alpha, beta, bias, relu):
    """C = epilogue(alpha A B + beta C), this thread's rectangle of it; arguments as of `macro_kernel`."""
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    if b_vec == 0 and b_k == 1 and c_vec == width and beta == 0 and transposed_is_faster(m, n, k, width):
        down = split(n, m, width, threads)
        across = threads // down
        j0, j1 = partition(n, MR, thread // across, down), partition(n, MR, thread // across + 1, down)
        i0, i1 = partition(m, width, thread % across, across), partition(m, width, thread % across + 1, across)
        if i1 > i0 and j1 > j0:
            rows, bias = Mat(a + i0 * a_row * size, a_row, a_k, 0), bias + j0 * size if bias != 0 else 0
            to, columns = Mat(c + (i0 * c_row + j0) * size, c_row, 1, width), Mat(b + j0 * b_col * size, 1, b_col, 0)
            if has_zeros(rows, i1 - i0, j1 - j0, k, 0, alpha):
                product_kernel(scratch, to, rows, columns, i1 - i0, j1 - j0, k, alpha, beta, bias, relu)
            else:
                transposed_kernel(scratch, to, rows, columns, i1 - i0, j1 - j0, k, alpha, bias, relu)
    else:
        plain_gemm(thread, threads, scratch, c, c_row, c_vec, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha, beta,
                   bias, relu)


@jit
def plain_gemm(thread, threads, scratch, c, c_row, c_vec, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha, beta, bias,
               relu):
    """`gemm` by `macro_kernel` for any shape, so that `transposed_kernel` need not be compiled."""
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    down = split(m, n, width, threads)
    across = threads // down
    i0, i1 = partition(m, MR, thread // across, down), partition(m, MR, thread // across + 1, down)
    j0, j1 = partition(n, width, thread % across, across), partition(n, width, thread % across + 1, across)
    product_kernel(scratch, Mat(c + (i0 * c_row + j0 // width * c_vec) * size, c_row, 1, c_vec),
                   Mat(a + i0 * a_row * size, a_row, a_k, 0),
                   Mat(b + (j0 // width * b_vec if b_vec > 0 else j0 * b_col) * size, b_k, b_col, b_vec),
                   i1 - i0, j1 - j0, k, alpha, beta, bias + j0 // width * c_vec * size if bias != 0 else 0, relu)
