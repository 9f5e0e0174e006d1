"""Cross-validation: which samples each fold holds out."""
from __future__ import annotations

import numpy as np

_SEED = 20170  # of the one shuffle that all trials of all sweeps share


def held_out(t: np.ndarray, folds: int) -> np.ndarray:
    """The fold, from 1, that holds out each sample: shuffled and stratified.

    Every class is spread over the folds as evenly as it can be, and so are the samples in all. The same targets always
    give the same folds, so that rates, seeds and sweeps can be compared in pairs.

    Parameters
    ----------
    t : ndarray, shape (n, n_o)
        One-hot targets.
    folds : int

    Returns
    -------
    ndarray of int, shape (n,)
    """
    rng = np.random.default_rng(_SEED)
    shuffled = rng.permutation(len(t))
    by_class = shuffled[np.argsort(t[shuffled].argmax(1), kind="stable")]
    fold = np.empty(len(t), int)
    fold[by_class] = 1 + np.arange(len(t)) % folds  # dealt like cards, class after class
    return fold


def rows_of(fold_of: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the samples to train on and of those held out, each in the order of the data."""
    return np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
