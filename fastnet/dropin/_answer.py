"""The process that runs a participant's dataset.py or sequential.py: ``python -m fastnet.dropin._answer QUESTION SANDBOX``.

It replaces CIFAR-100's files by small ones, calls the participant's ``cifar100``, and compares the result with that of the
course's function on these files. It gives plain layers to the participant's ``Sequential``, and compares it with the
course's in everything that a script can see.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import inspect
import json
import os
import pickle
import struct
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastnet.base import confinement
from fastnet.check import _reference
from fastnet.check._cases import drawn
from fastnet.check._fit import RATE, random_state
from fastnet.check._observe import agree
from fastnet.check._parts import Parts
from fastnet.dropin import _local

_IMAGES = {"train": 1000, "test": 300}


def load(path: str) -> ModuleType:
    """Import a file of the folder ``layers``, or ``layers.py``, as a module."""
    stem, folder = Path(path).stem, Path(path).parent
    if stem == "layers":
        sys.path.insert(0, str(folder))
        name = "layers"
    else:
        sys.path[:0] = [str(folder.parent)]
        sys.path.append(str(folder))
        sys.modules["layers"] = package = ModuleType("layers")
        package.__path__ = [str(folder)]
        name = f"layers.{stem}"
    try:
        return importlib.import_module(name)
    except SyntaxError:
        module = ModuleType(name)
        module.__file__ = path
        _local.run_source(path, module)
        return module


# --- cifar100 ----------------------------------------------------------------------------------------------------


_PurePickler: Any = pickle._Pickler  # type: ignore[attr-defined]


class _Python2(_PurePickler):  # type: ignore[misc]
    """A pickler that writes text and bytes in the form of Python 2's pickles."""

    dispatch = _PurePickler.dispatch.copy()

    def save_text(self, value: Any) -> None:
        data = value.encode() if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """Write small files in the form of CIFAR-100's, and return their content."""
    folder.mkdir(parents=True)
    rng, made = np.random.default_rng(0), {}
    for part, n in _IMAGES.items():
        labels = rng.permutation(np.arange(n) % 100).tolist()
        made[part] = {
            "data": rng.integers(0, 256, (n, 3072), np.uint8),
            "fine_labels": labels,
            "batch_label": f"{part}ing batch",
            "coarse_labels": [label // 5 for label in labels],
            "filenames": [f"{i}.png" for i in range(n)],
        }
    made["meta"] = {
        "fine_label_names": [f"class {i}" for i in range(100)],
        "coarse_label_names": [f"group {i}" for i in range(20)],
    }
    for part, content in made.items():
        with open(folder / part, "wb") as file:
            _Python2(file, 2).dump(content)
    return made


def of_dataset(path: str, sandbox: str, arguments: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the form of the data that ``cifar100`` returns, as fields of `Edition`, or ``failed`` with a reason."""
    small = Path(sandbox) / "course" / "cifar-100-python"
    content = files(small)
    roots: list[str] = []
    plain_open = builtins.open

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, os.PathLike)) and "b" in mode and os.path.basename(file) in content:
            roots.append(os.path.dirname(os.fspath(file)))
            file = small / os.path.basename(file)
        return plain_open(file, mode, *args, **kwargs)

    builtins.open = opened  # type: ignore[assignment]
    function = getattr(load(path), "cifar100", None)
    if function is None:
        return {"failed": "it has no function cifar100"}
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError:
        return {"failed": "it does not take these arguments", "signature": True}
    returned = function(*arguments, **options)
    state = random_state()
    seed = arguments[0] if arguments else options.get("seed")
    for edition in _candidates(returned):
        expected = course_subset(content, seed, edition)
        if expected is not None and np.array_equal(state, random_state()) and _same(returned, expected, edition["dtype"]):
            return {**edition, "root": roots[0] if roots and roots[0] != str(small) else None}
    return {"failed": "it does not return what the course's function returns"}


def _candidates(returned: Any) -> list[dict[str, Any]]:
    """Return the forms of data, as fields of `Edition`, that could have this result."""
    try:
        (x, y), (_, y_test), *more = returned
        images, classes = np.ndim(x) == 4, np.shape(y)[1]
        dtype = str(np.asarray(x).dtype)
    except (TypeError, ValueError, IndexError):
        return []
    if dtype not in ("float32", "float64") or len(more) > 1:
        return []
    fixed = {"images": images, "dtype": dtype, "one_hot_test": np.ndim(y_test) == 2, "returns_chosen": len(more) == 1}
    return [{"n_classes": n, "replace": replace, **fixed}
            for replace in (False, True) for n in range(classes, min(100, classes + 4 * replace) + 1) if n >= 2]


def course_subset(content: dict[str, Any], seed: Any, edition: dict[str, Any]) -> Any:
    """Return what the course's function returns; it seeds NumPy's global state and draws from it."""
    try:
        np.random.seed(seed)
    except (TypeError, ValueError):
        return None
    chosen = np.random.choice(np.arange(0, 100), edition["n_classes"], replace=edition["replace"])
    pairs = []
    for part in ("train", "test"):
        labels = np.array(content[part]["fine_labels"])
        taken = np.isin(labels, chosen)
        numbers = np.unique(labels[taken], return_inverse=True)[1].ravel()
        x = content[part]["data"][taken] / 255 - 0.5
        x = x.reshape(-1, 3, 32, 32) if edition["images"] else x
        one_hot = part == "train" or edition["one_hot_test"]
        pairs.append((x.astype(edition["dtype"]), np.eye(numbers.max() + 1)[numbers] if one_hot else numbers))
    return (*pairs, chosen) if edition["returns_chosen"] else tuple(pairs)


def _same(found: Any, expected: Any, dtype: str) -> bool:
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(_same(f, e, dtype) for f, e in zip(found, expected))
    f = np.asarray(found)
    return f.shape == expected.shape and bool(np.allclose(f, expected, rtol=0, atol=1e-6 if dtype == "float32" else 1e-12))


# --- Sequential ----------------------------------------------------------------------------------------------------

_VERBS = {"forward", "backward", "update_param", "update_params", "fit", "predict"}
_FIT = {"epochs": 10, "lr": 0.1, "batch_size": 128}
_ORDERS = (["x", "y", "epochs", "lr", "batch_size"], ["x", "y", "x_test", "y_test", "epochs", "lr", "batch_size"])


def of_sequential(path: str, *_: Any) -> dict[str, Any]:
    """Return, as ``own``, how a Sequential differs from the course's in what a script can see; None if it does not."""
    module = load(path)
    klass = getattr(module, "Sequential", None)
    if not isinstance(klass, type):
        return {"failed": "it has no class Sequential"}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"own": _by_signature(klass) or _by_methods(klass, path) or _by_trial(klass)}


def _by_signature(klass: type) -> str | None:
    given = list(inspect.signature(klass).parameters.values())
    if [p.name for p in given] != ["layers", "loss"]:
        return f"its constructor takes {', '.join(p.name for p in given) or 'no arguments'}, not layers and loss"
    fit = list(inspect.signature(klass.fit).parameters.values())[1:]  # type: ignore[attr-defined]
    unknown = [p.name for p in fit if p.name not in _ORDERS[1] and p.kind is not p.VAR_POSITIONAL]
    if unknown:
        return f"its fit takes {', '.join(unknown)}"
    places = [p.name for p in fit if p.kind is p.POSITIONAL_OR_KEYWORD]
    if not any(places == order[:len(places)] for order in _ORDERS):
        return f"its fit takes {', '.join(places)}, in this order"
    missing = [name for name in _FIT if name not in {p.name for p in fit}]
    if missing:
        return f"its fit does not take {', '.join(missing)}"
    other = [f"{p.name}={p.default!r}" for p in fit if p.name in _FIT and p.default not in (p.empty, _FIT[p.name])]
    return f"its fit has other defaults: {', '.join(other)}" if other else None


def _by_methods(klass: type, path: str) -> str | None:
    """Return how the public methods differ; methods that the class calls itself do not count."""
    tree = _local.parsed(Path(path))
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
              and node.value.id == "self" and isinstance(node.ctx, ast.Load)} if tree is not None else set()
    public = {name for base in klass.__mro__[:-1] for name in vars(base) if not name.startswith("_")}
    extra = sorted(public - _VERBS - called)
    return f"it has the method{'s' * (len(extra) > 1)} {', '.join(extra)}" if extra else None


def _by_trial(klass: Any) -> str | None:
    """Return how the class differs in use."""
    x, t = drawn((21, 6), 1), np.eye(3)[np.random.default_rng(2).integers(0, 3, 21)]
    own, right = Parts({}), Parts({})
    model, course = klass(layers=tuple(own.layers), loss=own.loss), _reference.Sequential(tuple(right.layers), right.loss)
    state = random_state()
    for name, arguments in (("forward", (x,)), ("forward", (x, t)), ("backward", ())):
        if not agree(getattr(model, name)(*map(np.copy, arguments)), getattr(course, name)(*arguments), tolerance=1e-9):
            return f"its {name} returns another result than the course's; fastnet check shows why"
    for name in ("update_param", "update_params"):
        if hasattr(model, name):
            getattr(model, name)(RATE)
            course.update_param(RATE)
    labels, expected = model.predict(x.copy()), course.predict(x)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != expected.shape:
        shape = f"an array of shape {labels.shape}" if isinstance(labels, np.ndarray) else f"a {type(labels).__name__}"
        return f"its predict returns {shape} for {len(x)} samples, not integers of shape {expected.shape}"
    if not np.array_equal(labels, expected):
        return "its predict returns other labels than the course's; fastnet check shows why"
    names = inspect.signature(model.fit).parameters
    of_2018 = "x_test" in names and names["x_test"].default is inspect.Parameter.empty
    before = None
    for epochs in (3, 2):
        losses = model.fit(x.copy(), t.copy(), *([x, t] if of_2018 else []), epochs=epochs, lr=RATE, batch_size=8)
        expected = course.fit(x, t, epochs, RATE, 8)
        if of_2018 and isinstance(losses, tuple) and len(losses) == 2:
            losses = losses[0]
        if not isinstance(losses, np.ndarray) or losses.shape != (epochs,):
            shape = f"an array of shape {losses.shape}" if isinstance(losses, np.ndarray) else f"a {type(losses).__name__}"
            return f"its fit returns {shape} for {epochs} epochs, not an array of shape ({epochs},)"
        if not agree(losses, expected, tolerance=1e-9) or not agree(own.parameters(), right.parameters(), tolerance=1e-9):
            return "its fit trains differently from the course's; fastnet check shows how"
        if before is not None and not np.array_equal(*before):
            return "its fit changes the array that an earlier fit returned"
        before = losses, copy.copy(losses)
    if not np.array_equal(state, random_state()):
        return "its fit draws random numbers"
    held = sorted(name for name in vars(model) if not name.startswith("_") and name not in ("layers", "loss"))
    return f"it has the attribute{'s' * (len(held) > 1)} {', '.join(held)}" if held else None


def main() -> None:
    question, sandbox = sys.argv[1:]
    what, path, _, arguments, options = json.loads(question)
    confinement.confine(sandbox, os.path.dirname(path))
    try:
        answer = {"dataset": of_dataset, "sequential": of_sequential}[what](path, sandbox, arguments, options)
    except BaseException as error:  # SystemExit too
        answer = {"failed": f"it raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    with open(Path(sandbox) / "answer", "w", encoding="utf-8") as file:
        json.dump(answer, file)
    sys.stdout.flush()
    os._exit(0)  # without the threads and exit handlers of the file


if __name__ == "__main__":
    main()
