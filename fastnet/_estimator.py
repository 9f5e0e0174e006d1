"""How scikit-learn's MLPClassifier takes samples, sets rates, stops, and checks parameters; for `fastnet.estimator`."""
from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import shuffle

from fastnet import ReluLayer

ACTIVATIONS: dict[str, Callable[[], Any] | None] = {"relu": ReluLayer, "identity": None}


class Order(np.random.RandomState):
    """Gives the orders in which scikit-learn takes samples: each epoch's is a shuffle of the one before."""

    def __init__(self, source: np.random.RandomState) -> None:
        super().__init__(0)
        self.source = source
        self.order: np.ndarray | None = None

    def permutation(self, n: int) -> np.ndarray:  # type: ignore[override]
        self.order = shuffle(np.arange(n) if self.order is None else self.order, random_state=self.source)
        return self.order


class Stopper:
    """A callback that stops training, and sets the rates, by scikit-learn's rules."""

    def __init__(self, estimator: Any, n: int) -> None:
        self.estimator, self.n = estimator, n
        self.current = float(estimator.learning_rate_init)
        self.rates: list[float] = []
        self.waited = self.best = 0
        self.stopped = False

    def rate(self, epoch: int) -> float:
        e = self.estimator
        if e.learning_rate == "invscaling" and e.solver == "sgd" and e.t_:
            return float(e.learning_rate_init / (e.t_ + 1) ** e.power_t)
        return self.current

    def __call__(self, report: Any) -> bool:
        e = self.estimator
        self.rates.append(report.lr)
        e.t_ += self.n
        e.loss_curve_.append(report.loss)
        if e.verbose:
            print(f"Iteration {len(self.rates)}, loss = {report.loss:.8f}")
        self.waited = self.waited + 1 if not self._improved(report) else 0
        if self.waited <= e.n_iter_no_change:
            return False
        if e.learning_rate == "adaptive" and e.solver == "sgd" and self.current > 1e-6:
            self.current /= 5
            self.waited = 0
            return False
        self.stopped = True
        return True

    def _improved(self, report: Any) -> bool:
        """Whether this epoch is better by `tol` than the best so far, which it may replace."""
        e = self.estimator
        if e.validation_scores_ is not None and report.val_accuracy is not None:
            before, score = e.best_validation_score_, report.val_accuracy
            e.validation_scores_.append(score)
            if score > before:
                e.best_validation_score_, self.best = score, len(self.rates)
            return bool(score >= before + e.tol)
        before = np.inf if e.best_loss_ is None else e.best_loss_
        e.best_loss_ = min(before, report.loss)
        return bool(report.loss <= before - e.tol)


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
        ("nesterovs_momentum", not e.nesterovs_momentum or e.momentum == 0 or e.solver == "adam",
         "False unless momentum is 0: it is missing"),
        ("validation_fraction", _real(e.validation_fraction) and 0 < e.validation_fraction < 1, "above 0 and below 1"),
        ("beta_1", e.beta_1 == 0.9, "0.9: others are not available"),
        ("beta_2", e.beta_2 == 0.999, "0.999: others are not available"),
        ("epsilon", e.epsilon == 1e-8, "1e-8: others are not available"),
        ("n_iter_no_change", e.n_iter_no_change == np.inf or _whole(e.n_iter_no_change), whole),
    ]
    for name, right, expected in checks:
        if not right:
            raise ValueError(f"MLPClassifier: {name} must be {expected}, got {getattr(e, name)!r}.")


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


def _real(value: Any) -> bool:
    return isinstance(value, Real) and bool(np.isfinite(float(value)))
