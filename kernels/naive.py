"""A float64 NumPy twin of every kernel, under the same name and with the same arguments.

Each says its equation as plainly as NumPy can and computes in float64 whatever it is given. The tests compare the
kernels with these; nothing else uses them. Numbers in parentheses are the chapter's equations.
"""
import numpy as np


def _f64(*arrays):
    return tuple(np.asarray(a, dtype=np.float64) for a in arrays)


def matmul(c, a, b, *, alpha=1.0, beta=0.0, bias=None, relu=False):
    """c = relu(alpha a b + beta c + bias); with beta = 0, c is not read"""
    a, b = _f64(a, b)
    out = alpha * (a @ b)
    if beta != 0:
        out += beta * np.asarray(c, dtype=np.float64)
    if bias is not None:
        out += np.reshape(bias, (1, -1))
    c[...] = np.maximum(out, 0) if relu else out


def syrk(c, a):
    """c = a a.T"""
    (a,) = _f64(a)
    c[...] = a @ a.T


def pack(b):
    """A copy of b, which later changes of b do not change"""
    return np.array(b, dtype=np.float64)


def full_forward(y, x, W, b):
    """y = x W.T + b (3.7)"""
    x, W, b = _f64(x, W, b)
    y[...] = x @ W.T + b


def full_backward(dx, dW, db, dy, x, W):
    """dx = dy W, dW = dy.T x, db = column sums of dy (3.9)"""
    full_backward_input(dx, dy, W)
    full_backward_weights(dW, dy, x)
    full_backward_bias(db, dy)


def full_backward_input(dx, dy, W):
    """dx = dy W (3.9)"""
    dy, W = _f64(dy, W)
    dx[...] = dy @ W


def full_backward_weights(dW, dy, x):
    """dW = dy.T x (3.9)"""
    dy, x = _f64(dy, x)
    dW[...] = dy.T @ x


def full_backward_bias(db, dy):
    """db = column sums of dy (3.9)"""
    (dy,) = _f64(dy)
    db[...] = dy.sum(axis=0, keepdims=True)


def relu_forward(y, x):
    """y = max(x, 0) (3.14)"""
    (x,) = _f64(x)
    y[...] = np.maximum(x, 0)


def relu_backward(dx, dy, y):
    """dx = dy (y > 0) (3.14)"""
    dy, y = _f64(dy, y)
    with np.errstate(invalid="ignore"):  # 0 inf
        dx[...] = dy * (y > 0)


def leaky_relu_forward(y, x, slope):
    """y = x where x > 0, else slope x"""
    (x,) = _f64(x)
    y[...] = np.where(x > 0, x, slope * x)


def leaky_relu_backward(dx, dy, y, slope):
    """dx = dy where y > 0, else slope dy"""
    dy, y = _f64(dy, y)
    dx[...] = np.where(y > 0, dy, slope * dy)


def tanh_forward(y, x):
    """y = tanh(x)"""
    (x,) = _f64(x)
    y[...] = np.tanh(x)


def tanh_backward(dx, dy, y):
    """dx = dy (1 - y^2)"""
    dy, y = _f64(dy, y)
    dx[...] = dy * (1 - y * y)


def sigmoid_forward(y, x):
    """y = 1 / (1 + exp(-x))"""
    (x,) = _f64(x)
    t = np.exp(-np.abs(x))  # not exp(-x), which overflows
    y[...] = np.where(x < 0, t, 1) / (1 + t)


def sigmoid_backward(dx, dy, y):
    """dx = dy y (1 - y)"""
    dy, y = _f64(dy, y)
    dx[...] = dy * y * (1 - y)


def dropout_forward(y, mask, x, rate, seed, call):
    """y = x mask; mask = 0 where a half word of Philox is below rate 2^32, else 1 / (1 - rate)"""
    (x,) = _f64(x)
    rows = x.reshape(len(x), -1) if x.size else x.reshape(0, 0)
    bits = np.empty(rows.shape, np.uint32)
    for i, row in enumerate(bits):
        counter = (i << 64) + (call << 128) - 1  # which NumPy's generator adds 1 to first
        words = np.random.Philox(key=seed, counter=counter % (1 << 256)).random_raw(-(-row.size // 2))
        row[:] = np.stack([words & 0xFFFFFFFF, words >> np.uint64(32)], axis=1).ravel()[:row.size]
    mask[...] = np.where(bits < rate * 2**32, 0, 1 / (1 - rate)).reshape(x.shape)
    y[...] = x * mask


def dropout_backward(dx, dy, mask):
    """dx = dy mask"""
    dy, mask = _f64(dy, mask)
    dx[...] = dy * mask


def _by_channel(x, *arrays):
    """The axes that a channel's values lie along, and (1, c) arrays as x's channels"""
    axes = (0, *range(2, np.ndim(x)))
    return axes, [np.reshape(a, (1, -1, *[1] * (np.ndim(x) - 2))) for a in _f64(*arrays)]


def batch_norm_forward(y, mean, var, inv, x, gamma, beta, eps):
    """mean and var of each channel, inv = 1 / sqrt(var + eps), y = gamma (x - mean) inv + beta"""
    (x,) = _f64(x)
    axes, (gamma, beta) = _by_channel(x, gamma, beta)
    m, v = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    w = 1 / np.sqrt(v + eps)
    y[...] = gamma * (x - m) * w + beta
    mean[...], var[...], inv[...] = (a.reshape(1, -1) for a in (m, v, w))


def batch_norm_predict(y, x, gamma, beta, mean, inv):
    """y = gamma (x - mean) inv + beta"""
    (x,) = _f64(x)
    _, (gamma, beta, mean, inv) = _by_channel(x, gamma, beta, mean, inv)
    y[...] = gamma * (x - mean) * inv + beta


def batch_norm_backward(dx, dgamma, dbeta, dy, x, gamma, mean, inv):
    """dbeta = sum dy, dgamma = sum dy z, dx = gamma inv (dy - (dbeta + z dgamma) / N), z = (x - mean) inv"""
    dy, x = _f64(dy, x)
    axes, (gamma, mean, inv) = _by_channel(x, gamma, mean, inv)
    z = (x - mean) * inv
    of_beta, of_gamma = dy.sum(axis=axes, keepdims=True), (dy * z).sum(axis=axes, keepdims=True)
    dx[...] = gamma * inv * (dy - (of_beta + z * of_gamma) / max(1, x.size / max(1, x.shape[1])))
    dgamma[...], dbeta[...] = of_gamma.reshape(1, -1), of_beta.reshape(1, -1)


def mean_squared_error_forward(x, t):
    """mean (x - t)^2"""
    x, t = _f64(x, t)
    return np.mean((x - t) ** 2)


def mean_squared_error_backward(dx, x, t):
    """dx = 2 (x - t) / x.size"""
    x, t = _f64(x, t)
    dx[...] = 2 * (x - t) / x.size


def _frame(x, f):
    """Zeros around every image"""
    return np.pad(x, ((0, 0), (0, 0), (f, f), (f, f)))


def conv_forward(y, x, W, b):
    """y = b + sum over p, q of W[:, :, p, q] x moved by (p - h // 2, q - h // 2)"""
    x, W, b = _f64(x, W, b)
    h, (r, k) = W.shape[2], x.shape[2:]
    around = _frame(x, h // 2)
    out = np.zeros(y.shape) + b.reshape(1, -1, 1, 1)
    for p, q in np.ndindex(h, h):
        out += np.einsum("oc,ncij->noij", W[:, :, p, q], around[:, :, p:p + r, q:q + k])
    y[...] = out


def conv_backward_input(dx, dy, W):
    """dx[i + p - h // 2, j + q - h // 2] += W[:, :, p, q].T dy[i, j]; what falls outside is dropped"""
    dy, W = _f64(dy, W)
    h, (n, n_i, r, k) = W.shape[2], dx.shape
    f = h // 2
    around = np.zeros((n, n_i, r + 2 * f, k + 2 * f))
    for p, q in np.ndindex(h, h):
        around[:, :, p:p + r, q:q + k] += np.einsum("oc,noij->ncij", W[:, :, p, q], dy)
    dx[...] = around[:, :, f:f + r, f:f + k]


def conv_backward_weights(dW, dy, x):
    """dW[:, :, p, q] = sum over n, i, j of dy[i, j] x[i + p - h // 2, j + q - h // 2]"""
    dy, x = _f64(dy, x)
    h, (r, k) = dW.shape[2], x.shape[2:]
    around = _frame(x, h // 2)
    for p, q in np.ndindex(h, h):
        dW[:, :, p, q] = np.einsum("noij,ncij->oc", dy, around[:, :, p:p + r, q:q + k])


def conv_backward_bias(db, dy):
    """db = sum of dy over samples, rows and columns"""
    (dy,) = _f64(dy)
    db[...] = dy.sum(axis=(0, 2, 3))


def conv_backward(dx, dW, db, dy, x, W):
    """dx, dW, db"""
    conv_backward_input(dx, dy, W)
    conv_backward_weights(dW, dy, x)
    conv_backward_bias(db, dy)


def _windows(x, size):
    """A view (n, c, rows, columns, size, size) of the whole windows"""
    n, c, r, k = x.shape
    whole = x[:, :, :r // size * size, :k // size * size]
    return whole.reshape(n, c, r // size, size, k // size, size).transpose(0, 1, 2, 4, 3, 5)


def maxpool_forward(y, locs, x, size):
    """y = maximum of each window, locs = 1 at every place that equals it"""
    (x,) = _f64(x)
    y[...] = _windows(x, size).max(axis=(4, 5))
    locs[...] = 0
    rows, cols = y.shape[2] * size, y.shape[3] * size
    locs[:, :, :rows, :cols] = x[:, :, :rows, :cols] == np.repeat(np.repeat(y, size, axis=2), size, axis=3)


def maxpool_backward(dx, dy, locs, size):
    """dx = dy of the window where locs is 1, else 0"""
    (dy,) = _f64(dy)
    dx[...] = 0
    spread = np.repeat(np.repeat(dy, size, axis=2), size, axis=3)
    rows, cols = spread.shape[2:]
    dx[:, :, :rows, :cols] = np.where(locs[:, :, :rows, :cols], spread, 0)


def average_pool_forward(y, x, size):
    """y = mean of each window"""
    (x,) = _f64(x)
    y[...] = _windows(x, size).mean(axis=(4, 5))


def average_pool_backward(dx, dy, size):
    """dx = dy / size^2 of the window, and 0 behind the last whole one"""
    (dy,) = _f64(dy)
    dx[...] = 0
    spread = np.repeat(np.repeat(dy, size, axis=2), size, axis=3) / size**2
    rows, cols = spread.shape[2:]
    dx[:, :, :rows, :cols] = spread


def conv_pool_forward(y, bits, x, W, b, relu):
    """Convolution, ReLU if `relu`, pool of size 2; bit 2 p + q of `bits` is set where pixel (p, q) is the maximum.

    With `relu` no bit is set where the maximum is 0.
    """
    full = np.empty((x.shape[0], len(W), *x.shape[2:]))
    conv_forward(full, x, W, b)
    windows = _windows(np.maximum(full, 0) if relu else full, 2)
    y[...] = windows.max(axis=(4, 5))
    places = windows == windows.max(axis=(4, 5), keepdims=True)
    if relu:
        places &= windows > 0
    bits[...] = places.reshape(*y.shape, 4) @ np.array([1, 2, 4, 8])


def conv_pool_backward(dx, dW, db, dy, bits, x, W):
    """dx, dW, db from the gradient of the pooled output, which goes to every place that has a bit"""
    (dy,) = _f64(dy)
    full = np.zeros((x.shape[0], len(W), *x.shape[2:]))
    for place, (p, q) in enumerate(np.ndindex(2, 2)):
        rows, cols = dy.shape[2:]
        full[:, :, p:2 * rows:2, q:2 * cols:2] = np.where(np.asarray(bits) >> place & 1, dy, 0)
    conv_backward(dx, dW, db, full, x, W)


def conv_op(y, x, W, b, relu):
    """Convolution, and ReLU if `relu`"""
    conv_forward(y, x, W, b)
    if relu:
        y[...] = np.maximum(y, 0)


def conv_back_op(dx, dW, db, dy, y, x, W, relu):
    """dx, dW, db from the gradient of `conv_op`'s output y"""
    (dy,) = _f64(dy)
    conv_backward(dx, dW, db, np.where(np.asarray(y) > 0, dy, 0) if relu else dy, x, W)


conv_winograd_op = conv_op
conv_pool_op = conv_pool_winograd_op = conv_pool_forward
conv_pool_back_op = conv_pool_backward


def rows_to_images_op(images, rows, f):
    """images (n, r + 2 f, k + 2 f, c) = each row's image, channels last, in the middle; what is around it stays"""
    n, high, wide, c = images.shape
    images[:, f:high - f, f:wide - f] = rows.reshape(n, c, high - 2 * f, wide - 2 * f).transpose(0, 2, 3, 1)


def images_to_rows_op(rows, images, f):
    """rows = the middle of each image, channel after channel"""
    n, high, wide, _ = images.shape
    rows[...] = images[:, f:high - f, f:wide - f].transpose(0, 3, 1, 2).reshape(n, -1)


def conv_update_op(W, b, dW, db, lr):
    """W -= lr (sum of all dW), b -= lr (sum of all db)"""
    W[...] = W - lr * np.sum(_f64(*dW), axis=0)
    b[...] = b - lr * np.sum(_f64(*db), axis=0)


def flatten_forward(y, x):
    """y = each image as one row, in C order"""
    y[...] = np.reshape(x, y.shape)


def flatten_backward(dx, dy):
    """dx = each row as an image"""
    dx[...] = np.reshape(dy, dx.shape)

def softmax_forward(y, x):
    """y = exp(x - max) / sum(exp(x - max)), row by row (3.16)"""
    (x,) = _f64(x)
    with np.errstate(invalid="ignore"):  # inf - inf: the row becomes NaN
        e = np.exp(x - x.max(axis=1, keepdims=True, initial=-np.inf))
    y[...] = e / e.sum(axis=1, keepdims=True)


def softmax_backward(dx, dy, y):
    """dx = dy (diag(y) - y.T y), row by row (3.17)"""
    dy, y = _f64(dy, y)
    dx[...] = y * (dy - (dy * y).sum(axis=1, keepdims=True))


def cross_entropy_forward(p, t):
    """-sum(t log p) / n, with 0 log 0 = 0 (3.18)"""
    p, t = _f64(p, t)
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0, and 0 * log 0 in the branch not taken
        terms = np.where((t == 0) & (p == 0), 0.0, t * np.log(p))
    return float(np.divide(-terms.sum(), len(p)))


def cross_entropy_backward(dp, p, t):
    """dp = -t / p / n, and 0 where t = 0 (3.19)"""
    p, t = _f64(p, t)
    with np.errstate(divide="ignore", invalid="ignore"):
        dp[...] = np.where(t == 0, 0.0, -t / p / len(p))


def sgd_update(out, W, dW, lr):
    """out = W - lr dW (3.10, 3.11)"""
    W, dW = _f64(W, dW)
    out[...] = W - lr * dW
