"""The check of ``Sequential.fit``: the batches that it trains on, and the losses that it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.check._observe import agree, numbers_of
from fastnet.check._parts import Observed, Parts, Result, attempt, batch, failed

RATE = 0.2
_SHIFTED = "samples and labels do not belong together: the labels are shifted"
_FITS = ((20, 8, 3), (16, 8, 2), (20, 32, 2))  # samples, batch size, epochs


def observe_fit(seen: Observed, make: Callable[[Observed, Any, Parts, str], Any], klass: Any, own: dict[str, type]) -> None:
    """Train with a folder's class, a few times.

    Parameters
    ----------
    seen : Observed
        Takes the results.
    make : callable
        Makes the model around the right layers.
    klass : type
    own : dict
        The folder's classes by name.
    """
    for n, batch_size, epochs in _FITS:
        _fit(seen, make, klass, own, n, batch_size, epochs)
    _defaults(seen, klass)


def _fit(seen: Observed, make: Any, klass: Any, own: dict[str, type], n: int, batch_size: int, epochs: int) -> None:
    x, t = batch(n)
    parts = Parts(own)
    model = make(seen, klass, parts, "fit")
    if model is None or failed(seen, "the batches"):
        return
    state = random_state()
    returned = attempt(seen, "the batches", lambda: call_fit(model, x.copy(), t.copy(), epochs, RATE, batch_size))
    if failed(seen, "the batches"):
        if any(not paired for _, paired, *_ in _trace(parts, x, t)):
            seen.results["the batches"].slip = _SHIFTED
        return
    if not np.array_equal(state, random_state()):
        seen.remarks.append("fit draws random numbers: it shuffles the samples, which the chapter assumes to be done before")
    trace = _trace(parts, x, t)
    expected = [list(range(i, min(i + batch_size, n))) for i in range(0, n, batch_size)] * epochs
    found = [ids for ids, *_ in trace]
    each = len(expected) // epochs
    shuffled = len(found) == len(expected) and [len(ids) for ids in found] == [len(ids) for ids in expected] and all(
        sorted(i for ids in found[e * each:(e + 1) * each] for i in ids) == list(range(n)) for e in range(epochs))
    right = (found == expected or shuffled) and all(
        paired and backs == 1 and lr == RATE for _, paired, backs, lr, _ in trace
    )
    if not right:
        if not ("the batches" in seen.results and seen.results["the batches"].wrong):
            seen.results["the batches"] = Result(_rows(found[:each + 1]), _rows(expected[:each + 1]),
                                                 _slip_of_batches(trace, expected, n, batch_size, epochs), wrong=True)
        return
    seen.results.setdefault("the batches", Result(_rows(found[:each]), _rows(expected[:each])))
    _losses(seen, returned, [np.asarray([loss for *_, loss in trace[e * each:(e + 1) * each]]) for e in range(epochs)],
            [len(ids) for ids in expected[:each]])


def random_state() -> Any:
    """Return the state of NumPy's global generator."""
    state: Any = np.random.get_state()
    return np.append(state[1], state[2])


def call_fit(model: Any, x: Any, t: Any, epochs: int, lr: float, batch_size: int) -> Any:
    names = inspect.signature(model.fit).parameters
    if "x_test" in names or "y_test" in names:
        return model.fit(x, t, x.copy(), t.copy(), epochs=epochs, lr=lr, batch_size=batch_size)
    return model.fit(x, t, epochs=epochs, lr=lr, batch_size=batch_size)


def _trace(parts: Parts, x: np.ndarray, t: np.ndarray) -> list[tuple[list[int], bool, int, Any, float]]:
    """Return for each update: the rows of the batch, whether it had their targets, backward passes, learning rate, loss."""
    trace: list[tuple[list[int], bool, int, Any, float]] = []
    ids: list[int] = []
    paired, backs, loss = False, 0, np.nan
    end = len(parts.layers)
    for name, i, args, value in parts.events:
        if name == "forward" and i == 0:
            ids = [int(np.argmin(np.abs(x[:, 0] - row))) for row in np.atleast_2d(args[0])[:, 0]]
        elif name == "forward" and i == end:
            paired, loss = np.array_equal(args[1], t[ids]), float(np.mean(value))
        elif name == "backward" and i == 0:
            backs += 1
        elif name == "update_param" and i == 0:
            trace.append((ids, paired, backs, args[0] if args else None, loss))
            backs = 0
    return trace


def _rows(batches: list[list[int]]) -> str:
    return "; ".join(
        f"{ids[0]}..{ids[-1]}" if ids and ids == list(range(ids[0], ids[-1] + 1)) else str(ids)[:40] for ids in batches
    )


def _slip_of_batches(trace: list[Any], expected: list[list[int]], n: int, batch_size: int, epochs: int) -> str:
    found, each = [ids for ids, *_ in trace], len(expected) // epochs
    if not trace:
        return "the layers are never updated"
    if not any(backs for _, _, backs, _, _ in trace):
        return "backward is not called before the update"
    if found == expected and any(backs != 1 for _, _, backs, _, _ in trace):
        return "backward is not called once before each update"
    if found == expected and not all(paired for _, paired, *_ in trace):
        return _SHIFTED
    if found == expected:
        return f"the layers get the learning rate {next(lr for _, _, _, lr, _ in trace if lr != RATE)!r}, not {RATE}"
    whole = [ids for ids in expected if len(ids) == batch_size]
    if found == whole and len(whole) < len(expected):
        return "the last, smaller batch of an epoch is left out"
    if any(not ids for ids in found):
        return "an empty batch is trained on at the end of an epoch"
    if all(len(ids) == n for ids in found) and batch_size < n:
        return "every update sees all samples, not a batch of them"
    if found == expected[:each]:
        return "only one epoch is trained"
    if len(found) % each == 0 and found == expected[:each] * (len(found) // each):
        return f"{len(found) // each} epochs are trained, not {epochs}"
    if all(ids == found[0] for ids in found):
        return "every update sees the same batch"
    unseen = sorted(set(range(n)) - {i for ids in found for i in ids})
    if unseen:
        return f"some samples are never seen: {unseen[0]}" + (f" .. {unseen[-1]}" if len(unseen) > 1 else "")
    if sum(map(len, found)) > n * epochs:
        return "samples are repeated within an epoch: the batches overlap, or one is used again"
    return "the batches are not those of consecutive samples"


def _losses(seen: Observed, returned: Any, epochs: list[np.ndarray], sizes: list[int]) -> None:
    if isinstance(returned, tuple) and len(returned) == 2 and np.ndim(returned[0]) == 1:  # 2018: losses of test data too
        returned = returned[0]
    if isinstance(returned, list):
        returned = np.ravel(np.asarray(returned, np.float64)) if numbers_of(returned) is not None else returned
    means = np.array([losses.mean() for losses in epochs])
    batches, n = np.concatenate(epochs), sum(sizes)
    if len(sizes) > 1 and agree(returned, batches, "the losses"):
        seen.remarks.append("fit returns the loss of every batch; the plot of the assignment wants an epoch's mean")
        returned = means
    weighted = np.array([np.dot(losses, sizes) / n for losses in epochs])
    if agree(returned, weighted, "the losses") and not agree(returned, means, "the losses"):
        seen.remarks.append("fit weighs the batches' losses by their sizes; the chapter takes their plain mean")
        returned = means
    slips = {
        "fit returns nothing": lambda: None,
        "it is the loss of an epoch's last batch, not the mean of all": lambda: [e[-1] for e in epochs],
        "it is the loss of an epoch's first batch, not the mean of all": lambda: [e[0] for e in epochs],
        "it is the sum of the batches' losses, not their mean": lambda: [e.sum() for e in epochs],
        "the sum of the batches' losses is divided by the number of samples, not of batches": lambda: [
            e.sum() / n for e in epochs
        ],
        "the sum of the batches' losses is divided by the number of whole batches": lambda: [
            e.sum() / (n // sizes[0]) for e in epochs
        ],
        "the sum of the batches' losses is divided by the batch size": lambda: [e.sum() / sizes[0] for e in epochs],
        "the losses of earlier epochs are not forgotten: the mean is over all batches so far": lambda: [
            np.concatenate(epochs[: i + 1]).mean() for i in range(len(epochs))
        ],
        "the losses of earlier epochs are not forgotten: the sum goes on": lambda: np.cumsum(means),
        "it is the largest loss of an epoch's batches, not their mean": lambda: [e.max() for e in epochs],
        "it is the smallest loss of an epoch's batches, not their mean": lambda: [e.min() for e in epochs],
        "it is the loss of the last epoch only": lambda: means[-1],
        "it is the mean over all epochs": lambda: means.mean(),
        "the sign is reversed": lambda: -means,
        "the losses are in reversed order": lambda: means[::-1],
        "all losses are 0": lambda: 0 * means,
    }
    seen.compare("the losses", returned, means, slips)


def _defaults(seen: Observed, klass: Any) -> None:
    try:
        given = {name: p.default for name, p in inspect.signature(klass.fit).parameters.items()}
    except (TypeError, ValueError, AttributeError):
        return
    for name, value in {"epochs": 10, "lr": 0.1, "batch_size": 128}.items():
        if given.get(name, inspect.Parameter.empty) not in (inspect.Parameter.empty, value):
            seen.remarks.append(f"fit has {name}={given[name]!r} by default; the course's template has {value}")
