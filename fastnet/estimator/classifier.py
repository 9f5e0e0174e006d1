"""scikit-learn's multi-layer perceptron on fastnet's kernels: same parameters, same attributes, same habits.

It needs scikit-learn (the extra ``sklearn``), and is meant to stand in for ``sklearn.neural_network.MLPClassifier``.
"""
from __future__ import annotations

import warnings
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import FullLayer, Sequential, one_hot, training
from fastnet.base.one_thread import one_thread

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

    from fastnet.estimator.rules import Order, Stopper, check_parameters
    from fastnet.estimator.weights import Hidden, Weights, network
except ImportError as error:
    raise ImportError("fastnet.estimator needs scikit-learn 1.6 or newer: pip install 'scikit-learn>=1.6'.") from error

class MLPClassifier(ClassifierMixin, BaseEstimator):
    """Multi-layer perceptron classifier, with scikit-learn's interface.

    Weights are drawn, samples ordered and training stopped as by ``sklearn.neural_network.MLPClassifier``: with three
    classes or more, ``"sgd"`` and the same `random_state`, the weights are those of scikit-learn to rounding.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Number of units in each hidden layer.
    activation : {"relu", "tanh", "logistic", "identity"}
        What follows each hidden layer.
    solver : {"adam", "sgd"}
        What updates the weights: Adam (Kingma and Ba 2015), or stochastic gradient descent.
    alpha : float
        Strength of the L2 penalty, alpha / (2 batch_size) times the sum of the squared weights.
    batch_size : int or "auto"
        Samples per step; "auto" is min(200, n_samples).
    learning_rate : {"constant", "invscaling", "adaptive"}
        ``"constant"`` stays at `learning_rate_init`; ``"invscaling"`` divides it by (samples seen + 1)**`power_t` after each
        epoch; ``"adaptive"`` divides it by 5 where training would otherwise stop, down to 1e-6. For ``"sgd"`` only.
    learning_rate_init : float
        The learning rate at the start.
    power_t : float
        Exponent of ``"invscaling"``.
    max_iter : int
        Number of epochs at most.
    shuffle : bool
        Take the samples in a new order each epoch.
    random_state : int, RandomState or None
        Draws the weights, the order and the validation data.
    tol : float
        The least improvement of the loss (with `early_stopping`, of the validation accuracy) that counts as one.
    verbose : bool
        Print the loss of every epoch.
    warm_start : bool
        Let ``fit`` go on from the weights of the last fit, with its velocities or moments. The classes must be the same.
    momentum : float
        Momentum of ``"sgd"``, from 0 to below 1; ``"adam"`` ignores it. With a changing rate, what has gathered counts at
        the new rate.
    nesterovs_momentum : bool
        Use Nesterov's momentum. ``"adam"`` ignores it.
    early_stopping : bool
        Hold out part of the data, stop when their accuracy no longer improves, and keep the weights of the best epoch.
    validation_fraction : float
        The part held out; stratified with two classes.
    n_iter_no_change : int
        How many epochs without an improvement are tolerated.
    dropout : float
        Probability that an output of a hidden layer becomes 0 in a step of training, see :class:`fastnet.DropoutLayer`.
        `random_state` draws the masks. scikit-learn has no such parameter.
    beta_1, beta_2, epsilon : float
        Of ``"adam"``: 0.9, 0.999 and 1e-8; no other values are available.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The labels, sorted.
    model_ : Sequential
        The network. ``predict_proba`` is its own.
    coefs_, intercepts_ : list of ndarray
        Weights, shape (n_in, n_out), and biases, shape (n_out,), of every layer. Both may be changed: the arrays in place,
        the items of the lists, and the lists themselves, also those of an estimator that has `classes_` and was not fitted.
    loss_, best_loss_ : float
        Loss of the last epoch, and the least; `best_loss_` is None with `early_stopping`.
    loss_curve_ : list of float
        Mean of the mini-batches' cross-entropies for every epoch, without the penalty.
    validation_scores_ : list of float or None
        Accuracy on the validation data after every epoch, with `early_stopping`.
    best_validation_score_ : float or None
        The best of them.
    n_iter_, t_ : int
        Number of epochs, and of training samples seen.
    n_features_in_, n_layers_, n_outputs_ : int
        Sizes of the network.
    feature_names_in_ : ndarray of str
        Names of the columns, if X was a table.

    Notes
    -----
    What is different from scikit-learn:

    - Two classes are two softmax outputs, not one logistic one.
    - Adam's epsilon is added after the correction of the first steps, as in the paper: losses differ by some 1e-5.
    - A last, smaller mini-batch weighs as much as the others in `loss_curve_`, and has the same penalty.
    - With `warm_start`, velocities and moments go on as in ``partial_fit``; scikit-learn starts them from 0.
    - One estimator serves one thread at a time: predictions wait for each other, and a call during another thread's ``fit``
      raises RuntimeError.
    - Several labels per sample, sparse X, sample weights and ``"lbfgs"`` are not available.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = MLPClassifier((64,), solver="sgd", learning_rate_init=0.1, max_iter=60, tol=0.05, n_iter_no_change=3)
    >>> bool(cross_val_score(classifier, X / 16, y, cv=3).mean() > 0.9)
    True
    """

    def __init__(
        self, hidden_layer_sizes: Any = (100,), activation: str = "relu", *, solver: str = "adam", alpha: float = 0.0001,
        batch_size: int | str = "auto", learning_rate: str = "constant", learning_rate_init: float = 0.001,
        power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True, random_state: Any = None, tol: float = 1e-4,
        verbose: bool = False, warm_start: bool = False, momentum: float = 0.9, nesterovs_momentum: bool = True,
        early_stopping: bool = False, validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999,
        epsilon: float = 1e-8, n_iter_no_change: int = 10, dropout: float = 0.0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.dropout = dropout

    @one_thread(long=True)
    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> MLPClassifier:
        """Train the network.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
        y : array_like, shape (n_samples,)
            Labels of any kind: numbers or strings.

        Returns
        -------
        MLPClassifier
            Itself.
        """
        check_parameters(self)
        again = self.warm_start and self.__sklearn_is_fitted__()
        x, numbers = self._validated(X, y, None, reset=not again, all_classes=again)
        state = check_random_state(self.random_state)
        if not again:
            self._start(x, state)
        else:
            self._check_sizes()
            self._go_on()
            self._rates = None
        if again and self.early_stopping != (self.validation_scores_ is not None):
            self._start_record()  # it stops by another measure than before
        held_out = None
        if self.early_stopping:
            x, x_val, numbers, val = train_test_split(
                x, numbers, random_state=state, test_size=self.validation_fraction,
                stratify=numbers if len(self.classes_) == 2 else None)  # as scikit-learn's does
            if len(val) < 2:
                raise ValueError("MLPClassifier.fit: the validation set is too small. Increase validation_fraction or the "
                                 f"number of samples; it has {len(val)}.")
            held_out = x_val, val
        self._train(x, numbers, state, self.max_iter, held_out)
        if self.n_iter_ == self.max_iter and not self._stopped:
            warnings.warn(f"MLPClassifier.fit: the {self.max_iter} epochs of max_iter are done, and the loss still falls.",
                          ConvergenceWarning, stacklevel=2)
        return self

    @one_thread(long=True)
    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> MLPClassifier:
        """Go through some data once, from where the last call ended: its weights, velocities or moments, and rate.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.
        classes : array_like, shape (n_classes,)
            All labels there will be; needed in the first call.

        Returns
        -------
        MLPClassifier
            Itself.
        """
        check_parameters(self)
        if self.early_stopping:
            raise ValueError("MLPClassifier.partial_fit: early_stopping must be False; one pass has nothing to stop.")
        first = not self.__sklearn_is_fitted__()
        if first and classes is None:
            raise ValueError("MLPClassifier.partial_fit: classes must be passed on the first call to partial_fit.")
        x, numbers = self._validated(X, y, classes, reset=first)
        state = check_random_state(self.random_state)
        if first:
            self._start(x, state)
        self._go_on()
        self._train(x, numbers, state, 1, None)
        return self

    def predict(self, X: npt.ArrayLike) -> np.ndarray:
        """Return the most probable label of each sample.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,)
        """
        p = self.predict_proba(X)
        return self.classes_[p.argmax(axis=1)]

    @one_thread()
    def predict_proba(self, X: npt.ArrayLike) -> np.ndarray:
        """Return the probability of each class, in the order of `classes_`.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.model_.predict_proba(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def predict_log_proba(self, X: npt.ArrayLike) -> np.ndarray:
        """Return the logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Weights of every layer, shape (n_in, n_out)."""
        return self._list("coefs")

    @coefs_.setter
    def coefs_(self, arrays: Any) -> None:
        self._lists().coefs = arrays if isinstance(arrays, list) else list(arrays)

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Biases of every layer, shape (n_out,)."""
        return self._list("intercepts")

    @intercepts_.setter
    def intercepts_(self, arrays: Any) -> None:
        self._lists().intercepts = arrays if isinstance(arrays, list) else list(arrays)

    @property
    def model_(self) -> Sequential:
        """The network, with the weights that `coefs_` and `intercepts_` hold."""
        classes = vars(self).get("classes_")
        return self._lists().push(self.activation, self.dropout, None if classes is None else len(classes))

    @model_.setter
    def model_(self, model: Sequential) -> None:
        self._weights = Weights(Hidden(self.activation, self.dropout), model)

    def _lists(self) -> Weights:
        if "_weights" not in vars(self):
            self._weights = Weights()
        return self._weights

    def _list(self, name: str) -> list[np.ndarray]:
        lists = vars(self).get("_weights", Weights())
        lists.pull()
        if getattr(lists, name) is None:
            raise AttributeError("MLPClassifier has no weights yet; call fit first.")
        return getattr(lists, name)

    def __sklearn_is_fitted__(self) -> bool:
        lists = vars(self).get("_weights", Weights())
        return hasattr(self, "classes_") and lists.coefs is not None and lists.intercepts is not None

    def _full_layers(self) -> list[FullLayer]:
        return [layer for layer in self.model_.layers if isinstance(layer, FullLayer)]

    def _validated(self, X: Any, y: Any, classes: Any, reset: bool,
                   all_classes: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The data as arrays, labels as numbers; `classes_` follows them if this is a new start, or they must be there."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), reset=reset)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if reset and classes is None:
            self.classes_, numbers = np.unique(y, return_inverse=True)
            return X, numbers
        found = np.unique(y)
        if reset:
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"MLPClassifier: classes={classes!r} differ from those of the first call, {self.classes_}.")
        unknown = np.setdiff1d(found, self.classes_)
        if len(unknown):
            raise ValueError(f"MLPClassifier: y holds the labels {unknown}, not among the classes {self.classes_}.")
        if all_classes and len(found) < len(self.classes_):
            raise ValueError(f"MLPClassifier.fit: warm_start goes on with the classes of the last fit, {self.classes_}, but "
                             f"y holds {found}. Use partial_fit for a part of the classes, or warm_start=False to start "
                             "anew.")
        order = np.argsort(self.classes_)  # somebody may have written them
        return X, order[np.searchsorted(self.classes_, y, sorter=order)]

    def _start(self, X: np.ndarray, state: np.random.RandomState) -> None:
        """A new network, with weights drawn as scikit-learn draws them."""
        sizes = (X.shape[1], *self._hidden(), len(self.classes_))
        parameters = []
        for n_i, n_o in pairwise(sizes):
            bound = np.sqrt((2 if self.activation == "logistic" else 6) / (n_i + n_o))
            W = np.ascontiguousarray(state.uniform(-bound, bound, (n_i, n_o)).T.astype(X.dtype))
            parameters.append((W, state.uniform(-bound, bound, n_o).astype(X.dtype)))
        hidden = Hidden(self.activation, self.dropout, int(state.randint(1 << 31)) if self.dropout else 0)
        self._weights = Weights(hidden, network(sizes, hidden, X.dtype, parameters))
        self.n_layers_, self.n_outputs_, self.out_activation_ = len(sizes), sizes[-1], "softmax"
        self._optimizer, self._waited, self._rates = training.OptimizerState(), 0, None
        self.t_ = 0
        self.loss_curve_: list[float] = []
        self._start_record()

    def _hidden(self) -> tuple[int, ...]:
        hidden = self.hidden_layer_sizes
        return tuple(map(int, hidden if np.iterable(hidden) else (hidden,)))

    def _check_sizes(self) -> None:
        """That a warm start goes on with a network of the hidden layers that are asked for."""
        there = tuple(layer.n_o for layer in self._full_layers()[:-1])
        if there != self._hidden():
            raise ValueError(f"MLPClassifier.fit: warm_start goes on with hidden layers of {there} units, but "
                             f"hidden_layer_sizes is {self.hidden_layer_sizes!r}. Use warm_start=False to start anew.")

    def _go_on(self) -> None:
        """What a fit leaves, where weights were assigned instead."""
        if not hasattr(self, "_optimizer"):
            self._optimizer, self._waited, self._rates = training.OptimizerState(), 0, None
        if not hasattr(self, "best_loss_"):
            self._start_record()
        self.t_ = getattr(self, "t_", 0)
        self.loss_curve_ = getattr(self, "loss_curve_", [])

    def _start_record(self) -> None:
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_loss_: float | None = None if self.early_stopping else np.inf
        self.best_validation_score_: float | None = -np.inf if self.early_stopping else None

    def _train(self, X: np.ndarray, numbers: np.ndarray, state: np.random.RandomState, epochs: int, held_out: Any) -> None:
        batch_size = self._samples_per_step(len(X))
        momentum = self.momentum if self.solver == "sgd" else 0.0
        kept = ("t_", "loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_")
        record = SimpleNamespace(**self.get_params(), **{name: getattr(self, name) for name in kept})
        if self._rates is None or self._rates[0] != self.learning_rate_init:  # else it has come down
            self._rates = self.learning_rate_init, float(self.learning_rate_init)
        model = self.model_
        stopper = Stopper(record, len(X), self._full_layers() if held_out is not None else [], self._rates[1], self._waited)
        try:
            training.fit(
                model, X, one_hot(numbers, len(self.classes_), X.dtype), "MLPClassifier.fit", epochs=epochs, lr=stopper.rate,
                batch_size=batch_size, optimizer=self.solver, state=self._optimizer, momentum=momentum,
                nesterov=bool(self.nesterovs_momentum and momentum), weight_decay=self.alpha / batch_size,
                shuffle=self.shuffle, rng=Order(state), validation=held_out, callbacks=stopper, progress=False,
                on_divergence="raise")
        except FloatingPointError as error:
            raise ValueError(f"MLPClassifier.fit: {error} The data may contain large values: scale them.") from None
        except KeyboardInterrupt:
            if not stopper.epochs:
                raise
            warnings.warn("MLPClassifier.fit: training interrupted by user.", stacklevel=3)
        for name in kept:
            setattr(self, name, getattr(record, name))
        self.n_iter_, self.loss_ = stopper.epochs, self.loss_curve_[-1]
        self._stopped, self._waited = stopper.stopped, stopper.waited
        self._rates = self.learning_rate_init, stopper.current
        if stopper.best:
            for layer, (W, b) in zip(self._full_layers(), stopper.best):
                layer.W, layer.b = W, b

    def _samples_per_step(self, n: int) -> int:
        size: Any = self.batch_size
        if size == "auto":
            return min(200, n)
        if size > n:
            warnings.warn(f"MLPClassifier.fit: batch_size is {size}, but there are {n} samples; it is clipped.",
                          stacklevel=4)
        return min(int(size), n)
