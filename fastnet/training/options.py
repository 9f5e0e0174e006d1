"""The arguments of a fit: one record, checked once."""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.cross_entropy import one_hot
from fastnet.training.history import EpochReport
from fastnet.training.resuming import OptimizerState

COMPILED = ("fused", "gram", "windows")  # for networks of fastnet's layers alone
ENGINES = ("layers", *COMPILED, "mixed")
NAMES = {"sgd": "stochastic gradient descent", "adam": "Adam", "rmsprop": "RMSprop"}
OPTIMIZERS = tuple(NAMES)

Callbacks = Callable[[EpochReport], Any] | Sequence[Callable[[EpochReport], Any]]


@dataclass(frozen=True)
class FitOptions:
    """All arguments of a fit, which :meth:`fastnet.Sequential.fit` describes.

    `explain` uses the same record, and each trial of a sweep trains with one.
    """

    epochs: int
    lr: Callable[[int], float]  # the learning rate of each epoch, from 0
    batch_size: int = 128
    engine: str = "auto"
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    shuffle: bool = False
    rng: np.random.Generator | None = None  # draws the orders, if the data are shuffled
    validation: tuple[np.ndarray, np.ndarray] | None = None
    early_stop: int | None = None
    callbacks: tuple[Callable[[EpochReport], Any], ...] = ()
    progress: bool = False
    on_divergence: str = "stop"
    state: OptimizerState | None = None  # the state to continue from, which training updates
    user_code: bool = False  # whether a user's callback or schedule runs between epochs

    @classmethod
    def checked(
        cls, who: str, model: Any, *, epochs: int, lr: Any, batch_size: int = 128, engine: str = "auto",
        optimizer: str = "sgd", validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, shuffle: bool = False,
        rng: Any = None, momentum: float = 0.0, weight_decay: float = 0.0, early_stop: int | None = None,
        callbacks: Callbacks = (), progress: bool | None = None, on_divergence: str = "stop", nesterov: bool = False,
        state: OptimizerState | None = None,
    ) -> FitOptions:
        """Check the user's arguments and return their record; `who` is the method's name for error messages."""
        epochs = checks.whole_number(who, "epochs", epochs, "It is the number of passes through the data.")
        batch_size = checks.whole_number(who, "batch_size", batch_size, "128 is usual.")
        checks.choice(who, "engine", engine, ("auto", *ENGINES))
        checks.choice(who, "optimizer", optimizer, OPTIMIZERS)
        checks.choice(who, "on_divergence", on_divergence, ("stop", "raise", "ignore"))
        momentum = checks.fraction(who, "momentum", momentum)
        refuse_momentum(who, optimizer, momentum)
        if checks.truth(who, "nesterov", nesterov) and (optimizer != "sgd" or not momentum):
            raise ValueError(f"{who}: nesterov=True needs a momentum. Give momentum=0.9 with optimizer='sgd', or leave "
                             "nesterov out.")
        shuffle, generator = checks.truth(who, "shuffle", shuffle), checks.generator(who, rng)
        return cls(
            epochs=epochs, lr=checks.schedule(who, lr, epochs), batch_size=batch_size, engine=engine,
            optimizer=optimizer, momentum=momentum, nesterov=bool(nesterov),
            weight_decay=checks.rate(who, weight_decay, "weight_decay"),
            shuffle=shuffle, rng=_of_orders(generator) if shuffle else None,
            validation=None if validation is None else labelled(
                who, model, *checks.pair(who, "validation", validation)),
            early_stop=None if early_stop is None else checks.whole_number(
                who, "early_stop", early_stop, "It is the number of epochs to wait for a lower loss."),
            callbacks=checks.callbacks(who, callbacks), on_divergence=on_divergence, state=state,
            user_code=callable(lr) or bool(checks.callbacks(who, callbacks)),
            progress=sys.stderr is not None and sys.stderr.isatty() if progress is None
            else checks.truth(who, "progress", progress))

    def resumes(self, model: Any) -> bool:
        """Return whether the optimiser continues from an earlier call."""
        return self.state is not None and self.state.fits(model, self.optimizer)

    def with_(self, **changes: Any) -> FitOptions:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def refuse_momentum(who: str, optimizer: str, momentum: Any) -> None:
    """Raise ValueError for a momentum with an optimiser that takes none."""
    if optimizer == "adam" and np.any(momentum):
        raise ValueError(f"{who}: got momentum={momentum} with optimizer='adam', which has its own momentum "
                         "(beta1 = 0.9). Leave momentum out, or use optimizer='sgd'.")
    if optimizer != "sgd" and np.any(momentum):
        raise ValueError(f"{who}: got momentum={momentum} with optimizer={optimizer!r}, which has none. Leave momentum out, "
                         "or use optimizer='sgd'.")


def labelled(who: str, model: Any, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Samples with one-hot targets, or with labels, as the course's test data have them."""
    width = model.output_width()
    if np.ndim(y) == 1 and width is not None:
        found, _ = checks.labels(who, y, width)
        n = len(x) if isinstance(x, (list, tuple)) else next(iter(getattr(x, "shape", ())), len(found))
        if len(found) != n:
            raise ValueError(f"{who}: y must have shape ({n},), got {found.shape}. Give one label per sample.")
        y = one_hot(found, width)
    return checks.samples_and_targets(who, model, x, y)


def _of_orders(rng: Any) -> Any:
    """The generator of the epochs' orders: the one given, or one that NumPy's global state decides, as for the weights."""
    return np.random.default_rng(np.random.randint(2**31)) if rng is np.random else rng
