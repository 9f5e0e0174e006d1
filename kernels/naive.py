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


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _geometry(W, stride, padding):
    """Side of the filters, pairs of strides and paddings"""
    return W.shape[2], _pair(stride), _pair(W.shape[2] // 2 if padding is None else padding)


def _frame(x, padding):
    """Zeros around every image"""
    return np.pad(x, ((0, 0), (0, 0), *((f, f) for f in padding)))


def _at(around, p, q, stride, y):
    """A view (n, c, rows, columns of y): value (p, q) of every window"""
    (down, right), (rows, columns) = stride, y.shape[2:]
    return around[:, :, p:p + down * rows:down, q:q + right * columns:right][:, :, :rows, :columns]


def conv_forward(y, x, W, b, stride=1, padding=None):
    """y[i, j] = b + sum over p, q of W[:, :, p, q] x[stride i + p - padding, stride j + q - padding]"""
    x, W, b = _f64(x, W, b)
    h, stride, padding = _geometry(W, stride, padding)
    around = _frame(x, padding)
    out = np.zeros(y.shape) + b.reshape(1, -1, 1, 1)
    for p, q in np.ndindex(h, h):
        out += np.einsum("oc,ncij->noij", W[:, :, p, q], _at(around, p, q, stride, y)) if y.size else 0
    y[...] = out


def conv_backward_input(dx, dy, W, stride=1, padding=None):
    """dx[stride i + p - padding, stride j + q - padding] += W[:, :, p, q].T dy[i, j]; what falls outside is dropped"""
    dy, W = _f64(dy, W)
    h, stride, padding = _geometry(W, stride, padding)
    around = _frame(np.zeros(dx.shape), padding)
    for p, q in np.ndindex(h, h):
        if dy.size:
            _at(around, p, q, stride, dy)[...] += np.einsum("oc,noij->ncij", W[:, :, p, q], dy)
    dx[...] = around[:, :, padding[0]:padding[0] + dx.shape[2], padding[1]:padding[1] + dx.shape[3]]


def conv_backward_weights(dW, dy, x, stride=1, padding=None):
    """dW[:, :, p, q] = sum over n, i, j of dy[i, j] x[stride i + p - padding, stride j + q - padding]"""
    dy, x = _f64(dy, x)
    h, stride, padding = _geometry(dW, stride, padding)
    around = _frame(x, padding)
    for p, q in np.ndindex(h, h):
        dW[:, :, p, q] = np.einsum("noij,ncij->oc", dy, _at(around, p, q, stride, dy)) if dy.size else 0


def conv_backward_bias(db, dy):
    """db = sum of dy over samples, rows and columns"""
    (dy,) = _f64(dy)
    db[...] = dy.sum(axis=(0, 2, 3))


def conv_backward(dx, dW, db, dy, x, W, stride=1, padding=None):
    """dx, dW, db"""
    conv_backward_input(dx, dy, W, stride, padding)
    conv_backward_weights(dW, dy, x, stride, padding)
    conv_backward_bias(db, dy)


def _windows(x, size):
    """A view (n, c, rows, columns, size, size) of the whole windows"""
    n, c, r, k = x.shape
    whole = x[:, :, :r // size * size, :k // size * size]
    return whole.reshape(n, c, r // size, size, k // size, size).transpose(0, 1, 2, 4, 3, 5)


def maxpool_forward(y, locs, x, size, stride=None):
    """y = maximum of each window, locs = 1 at every value that equals it: of the image, or of the windows if they overlap"""
    (x,) = _f64(x)
    (high, wide), stride = _pair(size), _pair(size if stride is None else stride)
    places = list(np.ndindex(high, wide))
    if y.size:
        y[...] = np.max([_at(x, p, q, stride, y) for p, q in places], axis=0)
    locs[...] = 0
    for p, q in places:
        to = locs[..., p, q] if locs.ndim == 6 else _at(locs, p, q, stride, y)
        to[...] = _at(x, p, q, stride, y) == y


def maxpool_backward(dx, dy, locs, size, stride=None):
    """dx = the sum of dy over the windows where locs is 1"""
    (dy,) = _f64(dy)
    (high, wide), stride = _pair(size), _pair(size if stride is None else stride)
    dx[...] = 0
    for p, q in np.ndindex(high, wide):
        there = locs[..., p, q] if locs.ndim == 6 else _at(locs, p, q, stride, dy)
        _at(dx, p, q, stride, dy)[...] += np.where(there, dy, 0)


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


def conv_pool_forward(y, bits, x, W, b, relu, padding=None):
    """Convolution, ReLU if `relu`, pool of size 2; bit 2 p + q of `bits` is set where pixel (p, q) is the maximum.

    With `relu` no bit is set where the maximum is 0.
    """
    h, _, (above, left) = _geometry(W, 1, padding)
    full = np.empty((x.shape[0], len(W), x.shape[2] + 2 * above - h + 1, x.shape[3] + 2 * left - h + 1))
    conv_forward(full, x, W, b, 1, padding)
    windows = _windows(np.maximum(full, 0) if relu else full, 2)
    y[...] = windows.max(axis=(4, 5))
    places = windows == windows.max(axis=(4, 5), keepdims=True)
    if relu:
        places &= windows > 0
    bits[...] = places.reshape(*y.shape, 4) @ np.array([1, 2, 4, 8])


def conv_pool_backward(dx, dW, db, dy, bits, x, W, padding=None):
    """dx, dW, db from the gradient of the pooled output, which goes to every place that has a bit"""
    (dy,) = _f64(dy)
    h, _, (above, left) = _geometry(W, 1, padding)
    full = np.zeros((x.shape[0], len(W), x.shape[2] + 2 * above - h + 1, x.shape[3] + 2 * left - h + 1))
    for place, (p, q) in enumerate(np.ndindex(2, 2)):
        rows, cols = dy.shape[2:]
        full[:, :, p:2 * rows:2, q:2 * cols:2] = np.where(np.asarray(bits) >> place & 1, dy, 0)
    conv_backward(dx, dW, db, full, x, W, 1, padding)


def conv_op(y, x, W, b, relu, stride=1, padding=None):
    """Convolution, and ReLU if `relu`"""
    conv_forward(y, x, W, b, stride, padding)
    if relu:
        y[...] = np.maximum(y, 0)


def conv_back_op(dx, dW, db, dy, y, x, W, relu, stride=1, padding=None):
    """dx, dW, db from the gradient of `conv_op`'s output y"""
    (dy,) = _f64(dy)
    conv_backward(dx, dW, db, np.where(np.asarray(y) > 0, dy, 0) if relu else dy, x, W, stride, padding)


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
