"""The ops of a compiled training step that every network needs: products, ReLU's mask, the loss, the updates.

Each computes one part of one `OP` for one mini-batch, see `linking.op_kernel`; `interpreter.steps` calls them in order.
"""
import math

from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.linking import op_kernel, thread_kernel
from fastnet.kernels.gemm.blocking import pack_columns, pack_copy, partition, tile_loop
from fastnet.kernels.gemm.product import product_kernel
from fastnet.kernels.records import (
    MOMENTUM,
    NESTEROV,
    OUTPUTS,
    RMSPROP,
    SAMPLES,
    Mat,
    context_at,
    hyperparameters,
    job_at,
    mat,
    op_at,
    rows_at,
    vector_at,
)
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, keep_positive, lanes, load, load_int, store
from fastnet.kernels.softmax import normalise_rows


@op_kernel
def gather(op, context, start, stop, one):
    """Copy the rows of a mini-batch that lie anywhere in the source to neighbouring rows; a range of the samples."""
    op, ctx = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    for i in range(partition(ctx.n, 1, ctx.part, ctx.parts), partition(ctx.n, 1, ctx.part + 1, ctx.parts)):
        row = Mat(ctx.source + load_int(ctx.order + 8 * i) * ctx.source_row * size, 0, 1, 0)
        pack_copy(ctx.batch + i * ctx.batch_row * size, 0, row, 1, op.k, one)


@jit
def input_of(op, ctx):
    """Matrix a of an op: a buffer, or the batch's rows of the data."""
    if op.from_data:
        return Mat(ctx.batch, ctx.batch_row, 1, 0)
    return mat(op.a)


@op_kernel
def dense(op, context, i0, i1, one):
    """C = epilogue(A B + bias) (3.7), or the backward pass through it, C = A B (3.9): a range of the rows or of the columns.

    B (k, n) lies in vector columns, and so may C.
    """
    op, ctx = op_at(op), context_at(context)
    width = lanes(one)
    size = VECTOR_BYTES // width
    j0, j1 = 0, op.n
    if op.split != SAMPLES:
        j0, j1 = partition(op.n, width, ctx.part, ctx.parts), partition(op.n, width, ctx.part + 1, ctx.parts)
    a, c, b, v = input_of(op, ctx), mat(op.c), mat(op.b), j0 // width
    product_kernel(ctx.scratch, Mat(c.at + (i0 * c.row + v * c.vec) * size, c.row, c.col, c.vec),
                   Mat(a.at + i0 * a.row * size, a.row, a.col, 0), Mat(b.at + v * b.vec * size, b.row, b.col, b.vec),
                   i1 - i0, j1 - j0, op.k, one, one - one, op.bias + j0 * size if op.bias != 0 else 0, op.relu)


@op_kernel
def mask(op, context, i0, i1, one):
    """C = 0 C where A is not above 0: the backward pass through ReLU (3.14), from its output A."""
    op = op_at(op)
    width = lanes(one)
    size = VECTOR_BYTES // width
    c, a, begin, end, zero = op.c.at, op.a.at, i0 * op.c.row, i1 * op.c.row, one - one
    whole = begin + (end - begin) // width * width
    for i in range(begin, whole, width):  # not a loop over elements: half of its branches would be guessed wrong
        keep_positive(c + i * size, a + i * size, zero)
    for i in range(whole, end):  # rows without padding
        if not load(a + i * size, zero) > zero:
            value = load(c + i * size, zero)
            store(c + i * size, value - value)


@op_kernel
def softmax_cross_entropy(op, context, i0, i1, one):
    """B = softmax of the scores A (3.16), each row's loss (3.18), and C = the gradient (3.19 through 3.17, where p cancels).

    B may be A. All three lie without gaps between their rows.
    """
    op, ctx = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    classes, rows, zero = op.n, i1 - i0, one - one
    p = rows_at(op.b.at + i0 * classes * size, rows, classes, one)
    dz = rows_at(op.c.at + i0 * classes * size, rows, classes, one)
    losses = vector_at(op.aux + i0 * 8, rows, 1.0)
    normalise_rows(op.b.at + i0 * classes * size, op.a.at + i0 * classes * size, rows, classes, one)
    count = cast_like(ctx.n, one)
    scale = cast_like(1 / ctx.n, one)
    for i in range(rows):
        t = vector_at(ctx.targets + load_int(ctx.order + 8 * (i0 + i)) * ctx.targets_row * size, classes, one)
        loss, total, lost = 0.0, zero, False
        for j in range(classes):
            total += t[j]
            if t[j] != 0:
                loss -= t[j] * math.log(p[i, j])
                lost |= math.isinf(t[j] / p[i, j])
        if lost:
            _gradient_of_lost(dz[i], p[i], t, count)
        else:
            for j in range(classes):
                dz[i, j] = (p[i, j] * total - t[j]) * scale
        losses[i] = loss


@jit_exact  # where t / p overflows, t / p p must not become t
def _gradient_of_lost(dz, p, t, n):
    """dz of a sample whose true class has no probability, or so little that t / p overflows: NaN, as the layers find it.

    The layers' way, dp = -t / p / n (3.19) and dz = p (dp - sum(dp p)) (3.17), where p does not cancel.
    """
    zero = p[0] - p[0]
    dot = zero
    for j in range(p.size):
        if t[j] != 0:
            dot += -t[j] / p[j] / n * p[j]
    for j in range(p.size):
        dz[j] = p[j] * ((-t[j] / p[j] / n if t[j] != 0 else zero) - dot)


@op_kernel
def mean_loss(op, context, start, stop, one):
    """The mean of the rows' losses, summed in order by the thread of the first part."""
    op, ctx = op_at(op), context_at(context)
    if ctx.part == 0:
        losses = vector_at(op.aux, ctx.n, 1.0)
        total = 0.0
        for i in range(ctx.n):
            total += losses[i]
        store(ctx.loss, _quotient(total, ctx.n))


@jit_exact
def _quotient(a, b):
    return a / b  # rounded once: not a times the reciprocal of b, which LLVM would reuse


@op_kernel
def update(op, context, start, n, one):
    """W -= lr (dA.T H + decay W) (3.11); this part's range of the outputs or the inputs.

    A (n, inputs) is H, B (n, outputs) is dA. C is W.T in vector columns; with `packed`, the copy that the backward pass
    reads, W in vector columns, is made anew from the same range of inputs.
    """
    op, ctx = op_at(op), context_at(context)
    hyper, (i0, i1, j0, j1) = hyperparameters(ctx, one), _range(op, ctx, lanes(one))
    weights, h, dz = _operands(op, ctx, i0, j0, op.c.at, one)
    decay = hyper.weight_decay if op.decays else one - one
    product_kernel(ctx.scratch, weights, h, dz, i1 - i0, j1 - j0, n, -hyper.lr, one - hyper.lr * decay, 0, 0)
    _copy(op, i0, i1, j0, j1, one)


@op_kernel
def update_with_moments(op, context, start, n, one):
    """As `update`, but a step of another optimiser than plain gradient descent; `aux` is what that keeps of W."""
    op, ctx = op_at(op), context_at(context)
    hyper, (i0, i1, j0, j1) = hyperparameters(ctx, one), _range(op, ctx, lanes(one))
    gradient, h, dz = _operands(op, ctx, i0, j0, op.aux, one)
    decay = hyper.weight_decay if op.decays else one - one
    keep = hyper.momentum if hyper.optimizer == MOMENTUM else one - one
    product_kernel(ctx.scratch, gradient, h, dz, i1 - i0, j1 - j0, n, one, keep, 0, 0)
    width = lanes(one)
    for v in range((j1 - j0 + width - 1) // width):
        column = v * op.k * VECTOR_BYTES
        descend(gradient.at - op.aux + op.c.at + column, gradient.at + column, (i1 - i0) * width, decay, hyper)
    _copy(op, i0, i1, j0, j1, one)


@jit
def _range(op, ctx, width):
    """The inputs and the outputs of an update that are this part's."""
    if op.split == OUTPUTS:
        return 0, op.k, partition(op.n, width, ctx.part, ctx.parts), partition(op.n, width, ctx.part + 1, ctx.parts)
    return partition(op.k, width, ctx.part, ctx.parts), partition(op.k, width, ctx.part + 1, ctx.parts), 0, op.n


@jit
def _operands(op, ctx, i0, j0, at, one):
    """A range of an array that lies as W.T does, and of H and dA, whose product it takes."""
    width = lanes(one)
    size, a = VECTOR_BYTES // width, input_of(op, ctx)
    return (Mat(at + (j0 * op.k + i0 * width) * size, width, 1, op.k * width), Mat(a.at + i0 * size, 1, a.row, 0),
            Mat(op.b.at + j0 * size, op.b.row, 1, 0))


@jit
def _copy(op, i0, i1, j0, j1, one):
    """Make the range of the copy of W anew, if there is one."""
    width = lanes(one)
    size = VECTOR_BYTES // width
    if op.packed != 0:
        for j in range(j0, j1, width):
            pack_columns(op.packed + (i0 * op.n + j * width) * size, op.n * width,
                         Mat(op.c.at + (j * op.k + i0 * width) * size, 1, width, 0), min(width, op.n - j), i1 - i0, one)


@jit
def step(weights, gradient, count, decay, lr):
    """W -= lr (dW + decay W), for `count` neighbouring parameters; overwrites dW."""
    w, g = vector_at(weights, count, lr), vector_at(gradient, count, lr)
    if decay != 0:
        for i in range(count):
            g[i] += decay * w[i]
    for i in range(count):
        w[i] -= lr * g[i]


@jit
def descend(weights, gradient, count, decay, hyper):
    """One `step` of another optimiser than plain gradient descent, from the numbers at `gradient`.

    With momentum that is the velocity V = momentum V + dW already, but for the decay: W -= lr (V + decay W). With the
    others it is dW, which becomes g = dW + decay W, and their moments lie behind it:

    - Nesterov's momentum: V = momentum V + g, W -= lr (g + momentum V) (Sutskever et al. 2013, as PyTorch writes it).
    - RMSprop: v = alpha v + (1 - alpha) g^2, W -= lr g / (sqrt(v) + epsilon) (Tieleman & Hinton 2012); alpha is
      `hyper.beta2`.
    - Adam: the moments m and v (Kingma & Ba 2015, algorithm 1); `hyper.lr` and `hyper.epsilon` hold the corrections of
      their bias.
    """
    lr = hyper.lr
    if hyper.optimizer == MOMENTUM:
        step(weights, gradient, count, decay, lr)
        return
    w, g = vector_at(weights, count, lr), vector_at(gradient, count, lr)
    size = VECTOR_BYTES // lanes(lr)
    m = vector_at(gradient + hyper.moments * size, count, lr)
    v = vector_at(gradient + 2 * hyper.moments * size, count, lr)
    one = cast_like(1, lr)
    momentum, beta1, beta2, epsilon = hyper.momentum, hyper.beta1, hyper.beta2, hyper.epsilon
    if hyper.optimizer == NESTEROV:
        for i in range(count):
            slope = g[i] + decay * w[i] if decay != 0 else g[i]
            m[i] = momentum * m[i] + slope
            w[i] -= lr * (slope + momentum * m[i])
        return
    if hyper.optimizer == RMSPROP:
        for i in range(count):
            slope = g[i] + decay * w[i] if decay != 0 else g[i]
            m[i] = beta2 * m[i] + (one - beta2) * slope * slope
            w[i] -= lr * slope / (math.sqrt(m[i]) + epsilon)
        return
    for i in range(count):
        slope = g[i] + decay * w[i] if decay != 0 else g[i]
        m[i] = beta1 * m[i] + (one - beta1) * slope
        v[i] = beta2 * v[i] + (one - beta2) * slope * slope
        w[i] -= lr * m[i] / (math.sqrt(v[i]) + epsilon)


@jit
def step_with_moments(weights, gradient, kept, count, decay, hyper):
    """`descend` from a gradient that is not where the optimiser keeps its own."""
    g, v = vector_at(gradient, count, hyper.lr), vector_at(kept, count, hyper.lr)
    momentum = hyper.momentum if hyper.optimizer == MOMENTUM else hyper.lr - hyper.lr
    for i in range(count):
        v[i] = momentum * v[i] + g[i]
    descend(weights, kept, count, decay, hyper)


@thread_kernel
def bias_corrected(context, step, _, __, ___):
    """The hyperparameters of one step of Adam in a call, the first being 1, with m and v's bias towards 0 undone.

    lr m' / (sqrt(v') + epsilon) with m' = m / (1 - beta1^t), v' = v / (1 - beta2^t) is the same as with m and v, and lr and
    epsilon multiplied by what `descend` gets.
    """
    ctx = context_at(context)
    job = job_at(ctx.job)
    t = job.steps + step
    of_m, of_v = 1.0 - job.beta1 ** t, math.sqrt(1.0 - job.beta2 ** t)
    ctx.lr, ctx.epsilon = job.lr * of_v / of_m, job.epsilon * of_v


@op_kernel
def update_bias(op, context, start, n, one):
    """b -= lr (column sums of dA) (3.10); a range of the units.

    The sums are a product with a row of ones: A is the address of a single 1, and its strides are 0.
    """
    op, ctx = op_at(op), context_at(context)
    j0, j1, dz = _sums_of(op, ctx, one)
    width, lr = lanes(one), cast_like(ctx.lr, one)
    tile_loop(Mat(op.c.at + j0 * (VECTOR_BYTES // width), 0, 1, width), mat(op.a), dz, 1, j1 - j0, n, -lr, one, 0, 0, 0)


@op_kernel
def update_bias_with_moments(op, context, start, n, one):
    """As `update_bias`, but a step of another optimiser than plain gradient descent."""
    op, ctx = op_at(op), context_at(context)
    hyper, (j0, j1, dz) = hyperparameters(ctx, one), _sums_of(op, ctx, one)
    width = lanes(one)
    size = VECTOR_BYTES // width
    gradient = op.aux + j0 * size
    keep = hyper.momentum if hyper.optimizer == MOMENTUM else one - one
    tile_loop(Mat(gradient, 0, 1, width), mat(op.a), dz, 1, j1 - j0, n, one, keep, 0, 0, 0)
    descend(op.c.at + j0 * size, gradient, j1 - j0, one - one, hyper)


@jit
def _sums_of(op, ctx, one):
    """This part's units, and dA of them."""
    width = lanes(one)
    j0, j1 = partition(op.n, width, ctx.part, ctx.parts), partition(op.n, width, ctx.part + 1, ctx.parts)
    return j0, j1, Mat(op.b.at + j0 * (VECTOR_BYTES // width), op.b.row, 1, width)
