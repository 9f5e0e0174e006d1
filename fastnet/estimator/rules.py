"""How scikit-learn's MLPClassifier takes samples, sets rates, stops, and checks parameters; for `fastnet.estimator`."""
from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from fastnet import ReluLayer, SigmoidLayer, TanhLayer

ACTIVATIONS: dict[str, Callable[[], Any] | None] = {"relu": ReluLayer, "tanh": TanhLayer, "logistic": SigmoidLayer,
                                                  "identity": None}


class Order(np.random.RandomState):
    """Gives the orders in which scikit-learn takes samples: each epoch's is a shuffle of the one before."""

    def __init__(self, source: np.random.RandomState) -> None:
        super().__init__(0)
        self.source = source
        self.order: np.ndarray | None = None

    def permutation(self, n: int) -> np.ndarray:  # type: ignore[override]
        moved = np.arange(n)
        self.source.shuffle(moved)  # what sklearn.utils.shuffle does, with checks that take longer than an epoch may
        self.order = moved if self.order is None else self.order[moved]
        return self.order


class Stopper:
    """A callback that stops training, and sets the rates, by scikit-learn's rules.

    It holds the estimator's parameters and record, not the estimator: a callback that can reach the model has the
    parameters put into its layers after every epoch, which takes time. Only early stopping needs them.

    Parameters
    ----------
    record : namespace
        The estimator's parameters, and ``t_``, ``loss_curve_`` and so on, which are kept up to date here.
    n : int
        Training samples.
    layers : list of FullLayer
        Whose parameters in the best epoch are kept in `best`; empty without early stopping.
    rate : float
        The learning rate to start with.
    waited : int
        Epochs without an improvement before this call.
    """

    def __init__(self, record: Any, n: int, layers: list[Any], rate: float, waited: int) -> None:
        self.record, self.n, self.layers = record, n, layers
        self.current, self.waited = rate, waited
        self.epochs = 0
        self.best: list[tuple[np.ndarray, np.ndarray]] = []
        self.stopped = False

    def rate(self, epoch: int) -> float:
        return self.current

    def __call__(self, report: Any) -> bool:
        r = self.record
        self.epochs += 1
        r.t_ += self.n
        r.loss_curve_.append(report.loss)
        if r.verbose:
            print(f"Iteration {self.epochs}, loss = {report.loss:.8f}")
        if r.learning_rate == "invscaling" and r.solver == "sgd":
            self.current = float(r.learning_rate_init / (r.t_ + 1) ** r.power_t)
        self.waited = self.waited + 1 if not self._improved(report) else 0
        if self.waited <= r.n_iter_no_change:
            return False
        if r.learning_rate == "adaptive" and r.solver == "sgd" and self.current > 1e-6:
            self.current /= 5
            self.waited = 0
            return False
        self.stopped = True
        return True

    def _improved(self, report: Any) -> bool:
        """Whether this epoch is better by `tol` than the best so far, which it may replace."""
        r = self.record
        if r.early_stopping:
            before, score = r.best_validation_score_, report.val_accuracy
            r.validation_scores_.append(score)
            if score > before:
                r.best_validation_score_ = score
                self.best = [(layer.W.copy(), layer.b.copy()) for layer in self.layers]
            return bool(score >= before + r.tol)
        before = r.best_loss_
        r.best_loss_ = min(before, report.loss)
        return bool(report.loss <= before - r.tol)


def check_parameters(e: Any) -> None:
    """Every parameter, before anything is changed."""
    hidden = e.hidden_layer_sizes if np.iterable(e.hidden_layer_sizes) else (e.hidden_layer_sizes,)
    rates = ("constant", "invscaling", "adaptive")
    at_least_0, above_0, whole = "a number of at least 0", "a number above 0", "a whole number above 0"
    checks = [
        ("hidden_layer_sizes", all(map(_whole, hidden)), "whole numbers above 0"),
        ("activation", e.activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}"),
        ("solver", e.solver in ("sgd", "adam"), "'sgd' or 'adam'"),
        ("alpha", _real(e.alpha) and e.alpha >= 0, at_least_0),
        ("batch_size", e.batch_size == "auto" or _whole(e.batch_size), f"'auto' or {whole}"),
        ("learning_rate", e.learning_rate in rates, f"one of {', '.join(rates)}"),
        ("learning_rate_init", _real(e.learning_rate_init) and e.learning_rate_init > 0, above_0),
        ("power_t", _real(e.power_t) and e.power_t >= 0, at_least_0),
        ("max_iter", _whole(e.max_iter), whole),
        ("tol", e.tol == np.inf or (_real(e.tol) and e.tol >= 0), at_least_0),
        ("momentum", _real(e.momentum) and 0 <= e.momentum < 1, "at least 0 and below 1"),
        ("validation_fraction", _real(e.validation_fraction) and 0 < e.validation_fraction < 1, "above 0 and below 1"),
        ("beta_1", e.beta_1 == 0.9, "0.9: others are not available"),
        ("beta_2", e.beta_2 == 0.999, "0.999: others are not available"),
        ("epsilon", e.epsilon == 1e-8, "1e-8: others are not available"),
        ("dropout", _real(e.dropout) and 0 <= e.dropout < 1, "at least 0 and below 1"),
        ("n_iter_no_change", e.n_iter_no_change == np.inf or _whole(e.n_iter_no_change), whole),
    ]
    for name, right, expected in checks:
        if not right:
            raise ValueError(f"MLPClassifier: {name} must be {expected}, got {getattr(e, name)!r}.")


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


def _real(value: Any) -> bool:
    return isinstance(value, Real) and bool(np.isfinite(float(value)))
