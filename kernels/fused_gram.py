"""The first layer trained in Gram space: its weights are never formed, products of rows of X stand in for them.

Its input X (n, n_i) never changes during fit, and every change of its weights is a combination of rows of X. So with
G = X X.T (n, n), A_0 = X W_0.T (n, n_o) and D (n, n_o), which holds for each sample the sum of its lr dA so far:

    W = W_0 - D.T X                             at any time, but only formed at the end
    X_B W.T + b = A_0[B] - G[B] D + b           the forward pass, 2 n n_o operations a sample instead of 2 n_i n_o
    D[B] += lr dA                               the update, which needs no product at all

It is the same gradient descent, summed in another order. Weight decay and momentum are linear in D too: with five
scales, and V_0 the velocity at the start,

    W = w_w W_0 + w_v V_0 - d_scale D.T X       d_scale gathers the factors (1 - lr decay), so that D need not be scaled
    V = v_w W_0 + v_v V_0 + E.T X               the velocity, if there is momentum (d_scale is then 1)

X need not be all the data: fastnet/training/windows.py takes some hundred rows at a time, and forms W after each of these
windows. D and E are kept in vector columns [vector][sample][lane], the form in which the product reads D.
"""
from fastnet.kernels._jit import jit
from fastnet.kernels.gemm import macro_kernel, partition
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes
from fastnet.kernels.structs import Mat

_LEAST_SCALE = 1e-3  # d_scale below which D is brought back to the size of what it stands for

W_W, W_V, V_W, V_V, D_SCALE = range(5)  # places in `Gram.scales`
_N_OUT, _LD, _B, _H, _DA = 1, 2, 4, 6, 7  # columns of the table in kernels/fused.py


@jit
def gram_first(thread, threads, scratch, net, data, gram, g, g_row, first, n, known, scales):
    """H_0 = relu(w_w A_0[B] + w_v A_V[B] - d_scale G[B] D + b_0), this thread's columns.

    Only the first `known` rows of D can be other than 0: in the first epoch this halves the work.
    """
    table, params, work, a0, av, d = net.table, net.params, net.work, gram.a0, gram.av, gram.d
    one = a0.dtype.type(1)
    width = lanes(one)
    size = VECTOR_BYTES // width
    n_out, ld = table[0, _N_OUT], table[0, _LD]
    j0, j1 = partition(n_out, width, thread, threads), partition(n_out, width, thread + 1, threads)
    of_w, of_v = cast_like(scales[W_W], one), cast_like(scales[W_V], one)
    for i in range(n):
        row = work[table[0, _H] + i * ld:table[0, _H] + (i + 1) * ld]
        sample = data.order[first + i]
        for j in range(j0, j1):
            row[j] = of_w * a0[sample, j]
        if av.size > 0:
            for j in range(j0, j1):
                row[j] += of_v * av[sample, j]
    macro_kernel(scratch, Mat(work.ctypes.data + (table[0, _H] + j0) * size, ld, 1, width), Mat(g, g_row, 1, 0),
         Mat(d.ctypes.data + j0 * d.shape[1] * size, 0, 0, d.shape[1] * width), n, j1 - j0, known,
         cast_like(-scales[D_SCALE], one), one, params.ctypes.data + (table[0, _B] + j0) * size, int(len(table) > 1))


@jit
def gram_scales(scales, rates):
    """The five scales after one more step; float64, as they are products of thousands of numbers near 1."""
    w_w, w_v, v_w, v_v, d_scale = scales
    lr, momentum, decay = rates
    if momentum == 0:
        shrink = 1.0 - lr * decay
        return w_w * shrink, w_v, v_w, v_v, d_scale * shrink
    v_w, v_v = momentum * v_w + decay * w_w, momentum * v_v + decay * w_v
    return w_w - lr * v_w, w_v - lr * v_v, v_w, v_v, d_scale


@jit
def gram_update(thread, threads, net, data, gram, first, n, scales, rates):
    """D[B] += lr dA / d_scale; with momentum E = momentum E - decay D, E[B] += dA, D += lr E. This thread's columns.

    Returns the scales: d_scale is 1 again once it was so small that D had to be multiplied by it.
    """
    table, work, order, d, e = net.table, net.work, data.order, gram.d, gram.e
    w_w, w_v, v_w, v_v, d_scale = scales
    lr, momentum, decay = rates
    width = lanes(lr)
    ld = table[0, _LD]
    v1 = (partition(table[0, _N_OUT], width, thread + 1, threads) + width - 1) // width
    rescale, factor = abs(d_scale) < _LEAST_SCALE, cast_like(d_scale, lr)
    if rescale:
        d_scale = 1.0
    step = cast_like(lr / d_scale if momentum == 0 else 1.0, lr)
    for v in range(partition(table[0, _N_OUT], width, thread, threads) // width, v1):
        to = d[v] if momentum == 0 else e[v]
        if rescale:
            for i in range(d.shape[1]):
                for lane in range(width):
                    d[v, i, lane] *= factor
        if momentum != 0:
            for i in range(d.shape[1]):
                for lane in range(width):
                    to[i, lane] = momentum * to[i, lane] - decay * d[v, i, lane]
        for i in range(n):
            dz = work[table[0, _DA] + i * ld + v * width:table[0, _DA] + i * ld + (v + 1) * width]
            for lane in range(min(width, table[0, _N_OUT] - v * width)):
                to[order[first + i], lane] += step * dz[lane]
        if momentum != 0:
            for i in range(d.shape[1]):
                for lane in range(width):
                    d[v, i, lane] += lr * to[i, lane]
    return w_w, w_v, v_w, v_v, d_scale
