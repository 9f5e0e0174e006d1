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
    """dx = dy where y > 0, else 0 (3.14)"""
    dy, y = _f64(dy, y)
    dx[...] = np.where(y > 0, dy, 0)


def softmax_forward(y, x):
    """y = exp(x - max) / sum(exp(x - max)), row by row (3.16)"""
    (x,) = _f64(x)
    with np.errstate(invalid="ignore"):  # inf - inf: the row becomes NaN
        e = np.exp(x - x.max(axis=1, keepdims=True))
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
    return float(-terms.sum() / len(p))


def cross_entropy_backward(dp, p, t):
    """dp = -t / p / n, and 0 where t = 0 (3.19)"""
    p, t = _f64(p, t)
    with np.errstate(divide="ignore", invalid="ignore"):
        dp[...] = np.where(t == 0, 0.0, -t / p / len(p))


def sgd_update(out, W, dW, lr):
    """out = W - lr dW (3.10, 3.11)"""
    W, dW = _f64(W, dW)
    out[...] = W - lr * dW
