"""The network: a sequence of layers, and a loss at the end."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import training
from fastnet.base import checks, dtypes, editions, modes
from fastnet.base.attributes import checkpoint, roll_back
from fastnet.base.one_thread import OneThread, one_thread
from fastnet.layer import (
    Shape,
    foreign,
    inherits,
    input_shape,
    known,
    learned,
    output_shape,
    parameters,
    shielded,
    updater,
)
from fastnet.training import EpochReport, Evaluation, History, OptimizerState, Plan, on_batch, scoring


@known
class Sequential:
    """A network: a stack of layers and a loss.

    Parameters
    ----------
    layers : tuple or list of layers
        At least one layer. A layer is one of fastnet's, or any object with ``forward(x)`` and ``backward(y_grad)``, and
        ``update_param(lr)`` (or ``update_params``) if it learns: see :class:`fastnet.layer.Layer`. A user-defined layer
        may write into its input.
    loss : layer
        An object with ``forward(x, t)``, which returns a number, and ``backward()``: usually a ``CrossEntropyLayer()``.

    Attributes
    ----------
    layers : tuple or list of layers
    loss : layer
    history : History or None
        The record of the last ``fit``.
    optimizer_state : OptimizerState or None
        The velocities, or Adam's moments, after the last ``partial_fit``. If it is None, the next call starts from 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import CrossEntropyLayer, FullLayer, SoftMaxLayer, one_hot
    >>> model = Sequential((FullLayer(2, 2, rng=0), SoftMaxLayer()), loss=CrossEntropyLayer())
    >>> x = np.array([[-1.0, 0.5], [1.0, 0.5]])
    >>> losses = model.fit(x, one_hot([0, 1]), epochs=20, lr=1.0)
    >>> bool(losses[-1] < losses[0])
    True
    >>> model.predict(x)
    array([0, 1])
    """

    def __init__(self, layers: Iterable[Any], loss: Any) -> None:
        self.layers = checks.layers("Sequential", layers)
        self.loss = checks.loss("Sequential", loss)
        self.history: History | None = None
        self.optimizer_state: OptimizerState | None = None
        self._in_use = OneThread()
        self.output_width()

    @property
    def dtype(self) -> np.dtype | None:
        """The widest dtype of the layers with parameters, in which the model computes; None if no layer has any."""
        found = [getattr(layer, name) for layer in self.layers for name in learned(layer)]
        return dtypes.result_dtype(*found) if found else None

    def input_width(self) -> int | None:
        """Number of values per sample that the model takes; None if a user-defined layer decides it."""
        shape = input_shape(self.layers[0])
        return shape[0] if shape is not None and len(shape) == 1 and inherits(self, Sequential, "forward") else None

    def output_width(self) -> int | None:
        """Number of values per sample that the last layer returns; None if a user-defined layer decides it.

        Raises
        ------
        ValueError
            If a layer does not take the output of the layers before it.
        """
        shape = self._shapes()[-1][1]
        return shape[0] if shape is not None and len(shape) == 1 and inherits(self, Sequential, "forward") else None

    def check_sample(self, who: object, shape: Shape) -> None:
        """Refuse samples of a shape that a network for images cannot take, before it computes anything.

        Raises
        ------
        ValueError
            If a layer does not take the data or the output of the layers before it; the message names both shapes.
        """
        if any(getattr(layer, "needs_images", False) for layer in self.layers):
            self._shapes(shape, who)

    def compares_classes(self) -> bool:
        """Return whether the loss is fastnet's cross-entropy, which compares probabilities of classes."""
        return bool(getattr(self.loss, "compares_classes", False)) and not foreign(self.loss)

    def _shapes(self, shape: Shape | None = None, who: object = "Sequential") -> list[tuple[Shape | None, Shape | None]]:
        """Return the shapes of a sample before and after each layer, as far as they are known, for data of a `shape`."""
        shapes: list[tuple[Shape | None, Shape | None]] = []
        source = None
        for i, layer in enumerate(self.layers):
            before = shape
            taken = input_shape(layer)
            if taken is not None and len(taken) == 1:
                before = taken
                checks.width_before(who, i, self.layers, shape[0] if shape and len(shape) == 1 else None, source)
            elif taken is not None and shape is None:
                before = taken
            try:
                shape = output_shape(layer, shape)
            except ValueError as error:
                raise ValueError(f"{who}: layers[{i}], {error}") from None
            shapes.append((before, shape))
            source = i if shape is not before else source
        return shapes

    @one_thread()
    def forward(self, x: npt.ArrayLike, target: npt.ArrayLike | None = None) -> Any:
        """Pass x through all layers, and through the loss if there is a target.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            One sample per row.
        target : array_like, shape (n, n_classes), optional
            One-hot targets.

        Returns
        -------
        ndarray or float
            The output of the last layer; with a target, the loss.
        """
        layers, loss = self.layers, self.loss
        before = checkpoint((*layers, loss))
        try:
            for layer in layers:
                x = layer.forward(shielded(x, layer))
            return x if target is None else loss.forward(shielded(x, loss), shielded(target, loss))
        except BaseException as error:  # Ctrl-C as well
            roll_back(before)
            if isinstance(error, Exception):
                self.output_width()  # says which layers do not fit each other, if that is why
            raise

    @one_thread()
    def backward(self) -> np.ndarray:
        """Run the backward pass through all layers, which keep the gradients of their parameters.

        Returns
        -------
        ndarray
            Gradient of the loss with respect to the input of the last ``forward`` with a target.
        """
        layers, loss = self.layers, self.loss
        before = checkpoint((*layers, loss))
        try:
            grad = loss.backward()
            for layer in reversed(layers):
                grad = layer.backward(grad)
            return grad
        except BaseException:
            roll_back(before)
            raise

    @one_thread()
    def update_param(self, lr: float) -> None:
        """Update the parameters of every layer that learns: one step against their gradients.

        Parameters
        ----------
        lr : float
            The learning rate.
        """
        lr = checks.rate("Sequential.update_param", lr)
        before = checkpoint(self.layers)
        try:
            for layer in self.layers:
                update = updater(layer)
                if update is not None:
                    update(lr)
        except BaseException:
            roll_back(before)
            raise

    def update_params(self, lr: float) -> None:
        """Do what :meth:`update_param` does; the chapter uses both names."""
        self.update_param(lr)

    def train(self, mode: bool = True) -> Sequential:
        """Set the mode of all layers for hand-written loops: training or, with ``mode=False``, prediction.

        A layer that works differently in the two (dropout, batch normalisation, perhaps your own) has an attribute
        ``training``, initially True, which this method sets. Only hand-written loops need it: ``fit``, ``predict`` and the
        other methods always use the right mode, and do not change the attribute.

        Parameters
        ----------
        mode : bool

        Returns
        -------
        Sequential
            The model itself.
        """
        modes.set_mode(self, checks.truth("Sequential.train", "mode", mode))
        return self

    def eval(self) -> Sequential:
        """Set the mode of all layers to prediction: ``train(False)``."""
        return self.train(False)

    @one_thread()
    def train_on_batch(self, x: npt.ArrayLike, t: npt.ArrayLike, lr: float) -> float:
        """Take one step of gradient descent: forward, backward and update, in one compiled call where that is possible.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            One sample per row.
        t : array_like, shape (n, n_classes)
            One-hot targets.
        lr : float
            The learning rate.

        Returns
        -------
        float
            The loss of the batch, before the step.

        Notes
        -----
        Between calls the parameters stay in the packed form that the kernels use; ``layer.W`` always has the current
        values. fastnet computes a layer's ``x``, ``y`` and gradients when you read them, for the last batch and the
        parameters it was trained with. A network that the compiled engines do not support is trained layer by layer.
        """
        return on_batch.train_on_batch(self, x, t, lr)

    @one_thread()
    def test_on_batch(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the loss of a batch. Neither parameters nor the layers' stored inputs and gradients change.

        Parameters
        ----------
        x, t
            As in :meth:`train_on_batch`.

        Returns
        -------
        float
        """
        return on_batch.test_on_batch(self, x, t)

    @one_thread(long=True)
    @editions.every_form
    def fit(
        self, x: npt.ArrayLike, y: npt.ArrayLike, epochs: int = 10, lr: Any = 0.1, batch_size: int = 128, *,
        engine: str = "auto", validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, shuffle: bool = False,
        rng: Any = None, momentum: float = 0.0, weight_decay: float = 0.0, early_stop: int | None = None,
        callbacks: Callable[[EpochReport], Any] | Sequence[Callable[[EpochReport], Any]] = (),
        progress: bool | None = None, on_divergence: str = "stop", optimizer: str = "sgd", nesterov: bool = False,
    ) -> np.ndarray:
        """Train with stochastic gradient descent.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            One sample per row; the values must be finite. fastnet converts data of another dtype than the model's once. It
            reads a ``numpy.memmap`` batch by batch, so that it may be larger than memory.
        y : array_like, shape (n, n_classes)
            One-hot targets, see :func:`fastnet.one_hot`.
        epochs : int
            Number of passes through the data.
        lr : float, sequence of float, or callable
            The learning rate: one number, one for each epoch, or a function of the epoch's number, which starts at 0. A
            list of one rate is used for all epochs.
        batch_size : int
            Samples per step. The last batch of an epoch holds the remaining samples.
        engine : {"auto", "layers", "fused", "gram", "windows", "mixed"}
            The engine that trains; :meth:`explain` describes them. All return the same losses, up to rounding.
        validation : (x, y), optional
            Data that fastnet evaluates after every epoch, as :meth:`evaluate` does; y is one-hot, or labels.
        shuffle : bool
            Take the rows in a new order each epoch, drawn from `rng`. The order is the same in all engines.
        rng : numpy.random.Generator or int, optional
            By default fastnet draws from NumPy's global state, as it does for the weights.
        momentum : float
            V = momentum V + gradient, W -= lr V. The velocity V starts at 0 in every fit; calls of :meth:`partial_fit`
            continue with it. When fastnet updates a user-defined layer, the layer's gradient attributes hold V. Parameters
            whose gradient fastnet cannot find are trained without momentum, and a warning names them: see
            :class:`fastnet.layer.Layer`.
        weight_decay : float
            Adds weight_decay W to the gradient of W, not to that of b. In a user-defined layer all parameters decay except
            biases, or those that its attribute ``decays`` names.
        early_stop : int, optional
            Stop when the validation loss (without validation, the training loss) has not improved for this many epochs.
        callbacks : callable or sequence of callables
            Functions that fastnet calls after every epoch with an :class:`EpochReport` (epoch, epochs, lr, loss, val_loss,
            val_accuracy, seconds). If one returns True, the fit ends. A callback that holds a reference to the model reads
            the current parameters in its layers. It may change them, or anything else about the model: training then
            continues from there, layer by layer. The layers' inputs, outputs and gradients are available after the fit,
            and with ``engine="layers"`` also during it.
        progress : bool, optional
            Show a progress bar. By default fastnet shows one if the error stream is a terminal.
        on_divergence : {"stop", "raise", "ignore"}
            What to do when a loss is not finite: stop with a warning, raise FloatingPointError, or continue.
        optimizer : {"sgd", "adam", "rmsprop"}
            Stochastic gradient descent; Adam (Kingma & Ba 2015) with beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8; or RMSprop
            (Tieleman & Hinton 2012), v = 0.99 v + 0.01 gradient^2, W -= lr gradient / (sqrt(v) + 1e-8). The usual rate of
            both is 0.001. Weight decay is added to the gradient in all of them.
        nesterov : bool
            Use Nesterov's momentum (Sutskever et al. 2013): W -= lr (gradient + momentum V).

        Returns
        -------
        ndarray, shape (epochs,)
            The mean of the batches' losses in each epoch, float64; nan for epochs that were not run.

        Notes
        -----
        The course's 2018 signature, ``fit(x, y, x_test, y_test, epochs, lr, batch_size)``, works too: it means
        ``validation=(x_test, y_test)``. It returns two arrays of shape (epochs,): the losses, and the loss on the test data
        after each epoch.

        Afterwards the layers hold the parameters, and the last batch's inputs, outputs and gradients. If training ended
        early, fastnet computes these for the last batch with the final parameters. After compiled training fastnet computes
        them when you read one, from copies of that batch and of the parameters; until then ``vars(layer)`` does not show
        them. ``history`` has the full record. After Ctrl-C or an error the layers hold the last complete epoch.

        The compiled engines train fastnet's own, unmodified layers. Once per mini-batch, fastnet calls the methods of

        - user-defined layers and losses,
        - subclasses of fastnet's layers,
        - layers of which you replaced a method, on an instance or a class.

        The other layers may be compiled around them. A subclass of Sequential that overrides anything used in a fit is
        trained layer by layer. ``history.why`` and :meth:`explain` name the reason.
        """
        return training.fit(
            self, x, y, epochs=epochs, lr=lr, batch_size=batch_size, engine=engine, optimizer=optimizer,
            validation=validation, shuffle=shuffle, rng=rng, momentum=momentum, weight_decay=weight_decay,
            early_stop=early_stop, callbacks=callbacks, progress=progress, on_divergence=on_divergence, nesterov=nesterov)

    @one_thread(long=True)
    def partial_fit(
        self, x: npt.ArrayLike, y: npt.ArrayLike, lr: float, batch_size: int = 128, *, momentum: float = 0.0,
        weight_decay: float = 0.0, optimizer: str = "sgd", shuffle: bool = False, rng: Any = None,
    ) -> float:
        """Train for one pass through some data, continuing from the last call.

        A loop of calls takes the same steps as one :meth:`fit` with the same number of epochs: the model keeps the
        velocities of momentum, or Adam's moments and its count of steps, in `optimizer_state`. Each ``fit``, in contrast,
        starts from 0.

        Parameters
        ----------
        x, y, lr, batch_size, momentum, weight_decay, optimizer, shuffle, rng
            As in :meth:`fit`. To shuffle, pass the same generator to all calls: a seed gives each call the same order.

        Returns
        -------
        float
            The mean of the batches' losses.

        Notes
        -----
        The velocities start from 0 again after a ``fit``, for another optimiser, and where a layer or the shape of its
        parameters has changed. ``model.optimizer_state = None`` does the same.
        """
        return training.partial_fit(self, x, y, lr=lr, batch_size=batch_size, momentum=momentum, weight_decay=weight_decay,
                                    optimizer=optimizer, shuffle=shuffle, rng=rng)

    def explain(
        self, x: npt.ArrayLike, y: npt.ArrayLike, epochs: int = 10, batch_size: int = 128, *, engine: str = "auto",
        validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, shuffle: bool = False, momentum: float = 0.0,
        weight_decay: float = 0.0, optimizer: str = "sgd", nesterov: bool = False,
    ) -> Plan:
        """Estimate the time and memory that each engine needs for a fit, and say which one ``engine="auto"`` would choose.

        Parameters
        ----------
        x, y, epochs, batch_size, engine, validation, shuffle, momentum, weight_decay, optimizer, nesterov
            As in :meth:`fit`.

        Returns
        -------
        Plan
            It prints as a table. Its memory column is what the fit needs in addition to the data.

        Notes
        -----
        ===========  ==============================================================================================
        ``layers``   calls one layer after the other from Python; works with any network
        ``fused``    compiles whole steps; works with fastnet's unmodified layers
        ``gram``     as ``fused``, but computes with products of the samples (the Gram matrix) in place of the first
                     layer's weights, which it forms at the end; for many epochs on a few thousand samples
        ``windows``  as ``gram``, for a few hundred samples at a time; for small mini-batches
        ``mixed``    compiles fastnet's layers, and calls user-defined layers or losses between them once per mini-batch
        ===========  ==============================================================================================
        """
        return training.explain(self, x, y, epochs=epochs, batch_size=batch_size, engine=engine, optimizer=optimizer,
                                validation=validation, shuffle=shuffle, momentum=momentum, weight_decay=weight_decay,
                                nesterov=nesterov)

    @one_thread()
    def predict(self, x: npt.ArrayLike) -> np.ndarray:
        """Return the number of the most probable class of each sample.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            One sample per row. fastnet processes a few thousand rows at a time, and leaves the layers' stored inputs and
            outputs unchanged.

        Returns
        -------
        ndarray of int, shape (n,)
        """
        return np.argmax(self._scores("Sequential.predict", x), axis=1)

    @one_thread()
    def predict_proba(self, x: npt.ArrayLike) -> np.ndarray:
        """Return the probability of each class for each sample: the output of the last layer.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            As in :meth:`predict`.

        Returns
        -------
        ndarray, shape (n, n_classes)
        """
        return self._scores("Sequential.predict_proba", x)

    @one_thread()
    def evaluate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Evaluation:
        """Compute the loss and the accuracy on data with known labels.

        Parameters
        ----------
        x : array_like, shape (n, ...)
        y : array_like, shape (n, n_classes) or (n,)
            One-hot targets, or labels.

        Returns
        -------
        Evaluation
            A named tuple (loss, accuracy): the model's loss on all samples at once, and the share of samples for which
            :meth:`predict` is right. The accuracy is NaN if the targets are not classes.
        """
        return training.evaluate(self, x, y)

    @one_thread()
    def score(self, x: npt.ArrayLike, labels: npt.ArrayLike) -> float:
        """Return the accuracy on data with known labels, as scikit-learn's classifiers do.

        Parameters
        ----------
        x : array_like, shape (n, ...)
        labels : array_like, shape (n,) or (n, n_classes)
            Class numbers, or one-hot targets.

        Returns
        -------
        float
            Share of the samples whose most probable class is the right one.
        """
        return self.evaluate(x, labels).accuracy

    def plot(self) -> Any:
        """Draw the last fit's loss and accuracy against the epoch.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it; ``savefig("name.png")`` writes it. :mod:`fastnet.plots` has more pictures.

        Raises
        ------
        RuntimeError
            If the model has not been fitted.
        """
        return checks.computed("Sequential.plot", "history", self.history, "fit").plot()

    def _repr_png_(self) -> bytes | None:
        """Return the picture of the last fit for a notebook; None before a fit, so that the notebook shows the layers."""
        return None if self.history is None else self.history._repr_png_()

    @one_thread()
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layers and their parameters into a safetensors file, which :func:`fastnet.load` reads.

        Parameters
        ----------
        path : path-like
            The file, usually ``NAME.safetensors``. fastnet writes the whole file or, after an error, none.

        Raises
        ------
        TypeError
            If the class of a layer, of the loss or of the model is user-defined: the file holds no code.
        ImportError
            If the package safetensors is not installed (the extra ``safetensors``).

        Notes
        -----
        The tensors are named as in the state of :meth:`to_torch`'s module, so PyTorch reads them without fastnet:
        ``module.load_state_dict(safetensors.torch.load_file(path))``. Inputs, gradients and the history are not kept.
        """
        from fastnet.interop import safetensors

        safetensors.save(self, path, Sequential)

    def to_torch(self) -> Any:
        """Make a PyTorch module that computes the same outputs as this model, up to rounding.

        Returns
        -------
        torch.nn.Sequential
            One module per layer, in the same order, with copies of the parameters. If this model returns probabilities, so
            does the module; ``torch.nn.CrossEntropyLoss`` needs the scores before the softmax: ``module[:-1]``.

        Raises
        ------
        TypeError
            If the class of a layer, of the loss or of the model is user-defined.
        ImportError
            If PyTorch is not installed.
        """
        from fastnet.interop import torch

        return torch.to_torch(self, Sequential)

    def _scores(self, who: str, x: npt.ArrayLike) -> np.ndarray:
        self.output_width()
        x = checks.batch(who, self, x)
        return checks.scores(who, scoring.outputs(self, x))

    def summary(self) -> str:
        """Return a table of the layers with their input, output and number of parameters."""
        rows: list[tuple[str, ...]] = []
        total = 0
        for i, (layer, (before, after)) in enumerate(zip(self.layers, self._shapes(), strict=True)):
            count = sum(np.size(getattr(layer, name)) for name in parameters(layer))
            rows.append((str(i), type(layer).__name__, _shape(before), _shape(after), f"{count:,}"))
            total += count
        dtype = "" if self.dtype is None else f" of {self.dtype}"
        table = _table(("", "layer", "input", "output", "parameters"), rows)
        return f"{table}\nloss: {type(self.loss).__name__}; {total:,} parameters{dtype}"

    def __repr__(self) -> str:
        layers = ",\n".join(f"    {layer!r}" for layer in self.layers)
        return f"{type(self).__name__}([\n{layers},\n], loss={self.loss!r})"


def _shape(shape: Shape | None) -> str:
    return "(n, ...)" if shape is None else f"(n, {', '.join('?' if n is None else str(n) for n in shape)})"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[c]) for row in (head, *rows)) for c in range(len(head))]
    lines = []
    for row in (head, *rows):
        left = "  ".join(cell.ljust(w) for cell, w in zip(row[:-1], widths[:-1]))
        lines.append(f"{left}  {row[-1].rjust(widths[-1])}".rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)
