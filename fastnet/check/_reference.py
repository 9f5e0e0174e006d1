"""The right layers in plain NumPy, and the equations that they compute.

Nothing here is compiled. The classes have the course's names and attributes; :mod:`fastnet.check` compares a folder's
layers with them, and hands them to a folder's ``Sequential``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Equation(NamedTuple):
    """What a quantity is, as the course writes it.

    Attributes
    ----------
    method : str
        The method that computes it.
    number : str
        The equation's number in the chapter, or what the text calls it.
    formula : str
    """

    method: str
    number: str
    formula: str

    def __str__(self) -> str:
        return f"({self.number}): {self.formula}" if self.number[:1].isdigit() else f"{self.number}: {self.formula}"


class FullLayer:
    """y = x Wᵀ + b."""

    def __init__(self, n_i: int, n_o: int) -> None:
        self.n_i, self.n_o = n_i, n_o
        self.W = np.random.normal(0, np.sqrt(2 / (n_i + n_o)), (n_o, n_i))
        self.b = np.zeros((1, n_o))
        self.x: Any = None
        self.W_grad: Any = None
        self.b_grad: Any = None

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W.T + np.reshape(self.b, (1, -1))

    def backward(self, y_grad: Any) -> Any:
        self.W_grad = self.w_grad = y_grad.T @ self.x
        self.b_grad = y_grad.sum(axis=0).reshape(1, -1)
        return y_grad @ self.W

    def update_param(self, lr: float) -> None:
        self.W = self.W - lr * self.W_grad
        self.b = self.b - lr * self.b_grad

    def update_params(self, lr: float) -> None:
        self.update_param(lr)


class _Fixed:
    """A layer without parameters."""

    def update_param(self, lr: float) -> None:
        pass

    update_params = update_param


class ReluLayer(_Fixed):
    """y = max(x, 0)."""

    def __init__(self) -> None:
        self.y: Any = None

    def forward(self, x: Any) -> Any:
        self.y = np.maximum(x, 0)
        return self.y.copy()

    def backward(self, y_grad: Any) -> Any:
        return y_grad * (self.y > 0)


class SoftMaxLayer(_Fixed):
    """z = exp(y) / sum exp(y), row by row."""

    def __init__(self) -> None:
        self.y: Any = None

    def forward(self, x: Any) -> Any:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = e / e.sum(axis=1, keepdims=True)
        return self.y.copy()

    def backward(self, y_grad: Any) -> Any:
        return self.y * (y_grad - (y_grad * self.y).sum(axis=1, keepdims=True))


class CrossEntropyLayer(_Fixed):
    """The mean over the batch of -sum t log z."""

    def __init__(self) -> None:
        self.x: Any = None
        self.t: Any = None

    def forward(self, x: Any, t: Any) -> Any:
        self.x, self.t = x, t
        with np.errstate(divide="ignore"):
            return float(-np.sum(t * np.log(np.where(t > 0, x, 1))) / len(x))

    def backward(self, y_grad: Any = None) -> Any:
        return -self.t / np.where(self.t > 0, self.x, 1) / len(self.x)


class ConvLayer:
    """Cross-correlation with zeros around the image, so that height and width stay."""

    def __init__(self, n_i: int, n_o: int, h: int) -> None:
        self.n_i, self.n_o, self.h = n_i, n_o, h
        self.W = np.random.normal(0, np.sqrt(2 / ((n_i + n_o) * h * h)), (n_o, n_i, h, h))
        self.b = np.zeros((1, n_o))
        self.x: Any = None
        self.W_grad: Any = None
        self.b_grad: Any = None

    def _windows(self) -> Any:
        """(n, n_i, rows, columns, h, h): what each output sees of the padded x."""
        p = self.h // 2
        padded = np.pad(self.x, ((0, 0), (0, 0), (p, p), (p, p)))
        return np.lib.stride_tricks.sliding_window_view(padded, (self.h, self.h), axis=(2, 3))

    def forward(self, x: Any) -> Any:
        self.x = x
        return np.einsum("ncijpq,ocpq->noij", self._windows(), self.W) + np.reshape(self.b, (1, -1, 1, 1))

    def backward(self, y_grad: Any) -> Any:
        self.W_grad = self.w_grad = np.einsum("noij,ncijpq->ocpq", y_grad, self._windows())
        self.b_grad = y_grad.sum(axis=(0, 2, 3)).reshape(1, -1)
        turned = ConvLayer(self.n_o, self.n_i, self.h)
        turned.W = self.W[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        return turned.forward(y_grad)

    update_param = FullLayer.update_param
    update_params = FullLayer.update_params


class MaxPoolLayer(_Fixed):
    """The largest value of each window; every equal one gets the gradient, and rows that do not fill a window none."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.locs: Any = None

    def forward(self, x: Any) -> Any:
        n, c, rows, columns = x.shape
        s, r, k = self.size, rows // self.size, columns // self.size
        windows = x[:, :, : r * s, : k * s].reshape(n, c, r, s, k, s)
        y = windows.max(axis=(3, 5))
        self.locs = np.zeros(x.shape)
        self.locs[:, :, : r * s, : k * s] = (windows == y[:, :, :, None, :, None]).reshape(n, c, r * s, k * s)
        return y

    def backward(self, y_grad: Any) -> Any:
        spread = np.zeros(self.locs.shape)
        whole = y_grad.repeat(self.size, axis=2).repeat(self.size, axis=3)
        spread[:, :, : whole.shape[2], : whole.shape[3]] = whole
        return spread * self.locs


class FlattenLayer(_Fixed):
    """(n, c, r, k) -> (n, c r k)."""

    def __init__(self) -> None:
        self.orig_shape: tuple[int, ...] = ()

    def forward(self, x: Any) -> Any:
        self.orig_shape = x.shape
        return x.reshape(len(x), -1).copy()

    def backward(self, y_grad: Any) -> Any:
        return y_grad.reshape(self.orig_shape).copy()


class Sequential:
    """Layers in a row, trained batch by batch."""

    def __init__(self, layers: Any, loss: Any) -> None:
        self.layers, self.loss = layers, loss

    def forward(self, x: Any, target: Any = None) -> Any:
        for layer in self.layers:
            x = layer.forward(x)
        return x if target is None else self.loss.forward(x, target)

    def backward(self) -> Any:
        grad = self.loss.backward()
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad

    def update_param(self, lr: float) -> None:
        for layer in self.layers:
            layer.update_param(lr)

    update_params = update_param

    def fit(self, x: Any, y: Any, epochs: int = 10, lr: float = 0.1, batch_size: int = 128) -> Any:
        losses = np.zeros(epochs)
        for epoch in range(epochs):
            batches = []
            for i in range(0, len(x), batch_size):
                batches.append(self.forward(x[i : i + batch_size], y[i : i + batch_size]))
                self.backward()
                self.update_param(lr)
            losses[epoch] = np.mean(batches)
        return losses

    def predict(self, x: Any) -> Any:
        return np.argmax(self.forward(x), axis=1)


NAMES = {"full": "FullLayer", "relu": "ReluLayer", "softmax": "SoftMaxLayer", "cross_entropy": "CrossEntropyLayer",
         "sequential": "Sequential"}
NEXT = {"conv": "ConvLayer", "maxpool": "MaxPoolLayer", "flatten": "FlattenLayer"}
CLASSES: dict[str, Any] = {name: globals()[name] for name in (*NAMES.values(), *NEXT.values())}

_UPDATE_W = Equation("update_param", "3.11", "W' = W - lr dL/dW")
_UPDATE_B = Equation("update_param", "3.10", "b' = b - lr dL/db")

# What each module computes: quantity -> equation.
EQUATIONS: dict[str, dict[str, Equation]] = {
    "full": {
        "initial W": Equation("__init__", "3.12", "W ~ N(0, sqrt(2 / (n_i + n_o))), of shape (n_o, n_i)"),
        "initial b": Equation("__init__", "3.13", "b = 0, of shape (1, n_o)"),
        "the output": Equation("forward", "3.7", "y = x W.T + b"),
        "W_grad": Equation("backward", "3.9", "dL/dW = sum over i of y_grad[i].T x[i]"),
        "b_grad": Equation("backward", "3.9", "dL/db = sum over i of y_grad[i]"),
        "the gradient of x": Equation("backward", "3.9", "dL/dx = y_grad W"),
        "W": _UPDATE_W, "b": _UPDATE_B},
    "relu": {
        "the output": Equation("forward", "3.14", "y = x where x > 0, and 0 elsewhere"),
        "the gradient of x": Equation("backward", "3.14", "dL/dx = y_grad where x > 0, and 0 elsewhere")},
    "softmax": {
        "the output": Equation("forward", "3.16", "z[i,j] = exp(y[i,j] - max) / sum over k of exp(y[i,k] - max)"),
        "the gradient of x": Equation("backward", "3.17", "dL/dy[i] = y_grad[i] (diag(z[i]) - z[i].T z[i])")},
    "cross_entropy": {
        "the loss": Equation("forward", "3.18", "L = -1/n sum over i, j of t[i,j] log z[i,j]"),
        "the gradient of x": Equation("backward", "3.19", "dL/dz[i,j] = -1/n t[i,j] / z[i,j]")},
    "sequential": {
        "the layers": Equation("__init__", "section 3.4.1", "the model keeps its layers and its loss"),
        "the output": Equation("forward", "section 3.4.1, forward", "each layer's output is the next one's input"),
        "the loss": Equation("forward", "section 3.4.1, forward", "with a target, the loss of the last layer's output"),
        "the gradient of x": Equation("backward", "section 3.4.1, backward", "the loss's gradient, passed through the "
                                      "layers from last to first"),
        "the updated parameters": Equation("update_param", "section 3.4.1, update_params", "every layer is updated once"),
        "the labels": Equation("predict", "section 3.4.1, predict", "the class of the largest output, in each row"),
        "the batches": Equation("fit", "section 3.4.1, fit", "in each epoch, every batch goes forward, backward and is "
                                "followed by an update"),
        "the losses": Equation("fit", "section 3.4.2", "an epoch's loss is the mean of its batches' losses")},
    "conv": {
        "initial W": Equation("__init__", "next chapter", "W ~ N(0, s), of shape (n_o, n_i, h, h)"),
        "initial b": Equation("__init__", "next chapter", "b = 0, of shape (1, n_o)"),
        "the output": Equation("forward", "next chapter", "y[n,o,i,j] = b[o] + sum over c, p, q of "
                               "W[o,c,p,q] x[n,c,i+p-h//2,j+q-h//2]"),
        "W_grad": Equation("backward", "next chapter", "dL/dW[o,c,p,q] = sum over n, i, j of "
                           "y_grad[n,o,i,j] x[n,c,i+p-h//2,j+q-h//2]"),
        "b_grad": Equation("backward", "next chapter", "dL/db[o] = sum over n, i, j of y_grad[n,o,i,j]"),
        "the gradient of x": Equation("backward", "next chapter", "dL/dx[n,c,i,j] = sum over o, p, q of "
                                      "W[o,c,p,q] y_grad[n,o,i-p+h//2,j-q+h//2]"),
        "W": _UPDATE_W, "b": _UPDATE_B},
    "maxpool": {
        "the output": Equation("forward", "next chapter", "y = the largest x of each window of size x size"),
        "the gradient of x": Equation("backward", "next chapter", "y_grad goes to every largest x of its window, and 0 "
                                      "to all others")},
    "flatten": {
        "the output": Equation("forward", "next chapter", "(n, c, r, k) becomes (n, c r k), a copy"),
        "the gradient of x": Equation("backward", "next chapter", "y_grad in the shape of x")},
}
