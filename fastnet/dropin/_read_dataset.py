"""Read, without running it, what a course's ``layers/dataset.py`` serves.

The function ``cifar100(seed)`` of every edition is a straight line of a few steps: seed, load, draw, select, renumber,
one-hot, scale, reshape, return. It is read only if each of its steps is one of these, and nothing else is in it: fastnet
may stand in for it only where nothing observable differs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastnet.dropin._local import parsed


class Edition(NamedTuple):
    """What a ``cifar100(seed)`` returns."""

    n_classes: int
    replace: bool
    images: bool  # (n, 3, 32, 32), not (n, 3072)
    dtype: str = "float64"
    one_hot_test: bool = False  # test labels one-hot too
    returns_chosen: bool = False  # the classes drawn as a third value
    root: str | None = None  # the folder that it reads

    def __str__(self) -> str:
        return (f"{self.n_classes} classes drawn {'with' if self.replace else 'without'} replacement, "
                f"{'images (n, 3, 32, 32)' if self.images else 'rows (n, 3072)'}")


class Unreadable(Exception):
    """Says what is in the file that the course's has not."""


_STEPS = {"seed", "open", "load", "array", "asarray", "arange", "range", "choice", "isin", "in1d", "unique", "onehot",
          "scale", "astype", "reshape", "print", "join", "dirname", "abspath"}
_STATEMENTS = (ast.Assign, ast.AugAssign, ast.Expr, ast.With, ast.Return, ast.Pass, ast.Import, ast.ImportFrom)
_KEYS = ("data", "fine_labels", b"data", b"fine_labels")
_HELPER_STEPS = {"onehot": {"zeros", "len", "max", "arange", "range", "eye", "unique", "int", "array"},
                 "scale": {"astype", "reshape", "array", "asarray", "float32", "float64", "len"}}


def read(path: Path) -> Edition:
    """What the ``cifar100`` of a source file returns.

    Raises
    ------
    Unreadable
        If the file is not Python, or the function is not the course's.
    """
    tree = parsed(path)
    functions = {} if tree is None else {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
    if tree is None or "cifar100" not in functions:
        raise Unreadable("it is not written as a plain function")
    function = functions["cifar100"]
    parameters = [argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)]
    if parameters != ["seed"]:
        raise Unreadable(f"line {function.lineno} takes {', '.join(parameters) or 'nothing'}, not a seed alone")
    helpers = {name: functions[name] for name in _HELPER_STEPS if name in functions}
    _check_steps(function, helpers)
    for name, helper in helpers.items():
        _check_calls(helper, _HELPER_STEPS[name])
    _check_numbers(helpers.get("onehot"))
    constants = _constants([*tree.body, *function.body])
    n_classes, replace = _draw(function, constants)
    one_hot_test = _one_hot(function)
    _check_scaled(function, helpers.get("scale"))
    return Edition(
        n_classes, replace, _images(function, helpers.get("scale")), _dtype(function, helpers.get("scale")), one_hot_test,
        _returned(function), _root(tree))


def _check_steps(function: ast.FunctionDef, helpers: dict[str, ast.FunctionDef]) -> None:
    for node in ast.walk(function):
        known = node is function or not isinstance(node, ast.stmt) or isinstance(node, _STATEMENTS)
        if not known or isinstance(node, (ast.Slice, ast.comprehension, ast.Lambda, ast.IfExp)):
            raise Unreadable(f"line {getattr(node, 'lineno', function.lineno)} is a step that the course's has not")
        if isinstance(node, ast.Subscript) and not _is_known_item(node):
            raise Unreadable(f"line {node.lineno} takes {ast.unparse(node)}, which the course's does not")
    _check_calls(function, _STEPS)
    missing = {"onehot", "scale"} & {_called(call) for call in _calls(function)} - helpers.keys()
    if missing:
        raise Unreadable(f"its {missing.pop()} is not in the same file")


def _check_calls(function: ast.FunctionDef, known: set[str]) -> None:
    for call in _calls(function):
        if _called(call) not in known:
            raise Unreadable(f"line {call.lineno} calls {_called(call) or 'something'}, which the course's does not")
    for node in ast.walk(function):
        if isinstance(node, (ast.BinOp, ast.AugAssign)) and not _is_known_arithmetic(node):
            raise Unreadable(f"line {node.lineno} computes something that the course's does not")


def _check_numbers(onehot: ast.FunctionDef | None) -> None:
    """Rows of 0 and 1: no smoothed labels."""
    for node in ast.walk(onehot) if onehot else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and node.value not in (0, 1):
            raise Unreadable(f"line {node.lineno} makes labels other than 0 and 1")


def _is_known_item(node: ast.Subscript) -> bool:
    """train['data'], train['fine_labels'], x[mask], x.shape[0]."""
    if isinstance(node.slice, ast.Constant):
        return node.slice.value in _KEYS or (isinstance(node.value, ast.Attribute) and node.value.attr == "shape")
    return isinstance(node.slice, ast.Name)


def _is_known_arithmetic(node: ast.BinOp | ast.AugAssign) -> bool:
    """x / 255, x - 0.5, n + 1; a product of numbers; a path put together."""
    right = node.value if isinstance(node, ast.AugAssign) else node.right
    left = node.target if isinstance(node, ast.AugAssign) else node.left
    value = right.value if isinstance(right, ast.Constant) else None
    if isinstance(node.op, ast.Div):
        return value == 255
    if isinstance(node.op, ast.Sub):
        return value == 0.5
    if isinstance(node.op, ast.Mult):
        return _integer(left, {}) is not None and _integer(right, {}) is not None
    return isinstance(node.op, ast.Add) and (value == 1 or isinstance(value, str))


def _draw(function: ast.FunctionDef, constants: dict[str, int]) -> tuple[int, bool]:
    """How many classes are drawn, and whether with replacement."""
    draws = [call for call in _calls(function) if _called(call) == "choice"]
    seeds = [ast.unparse(call) for call in _calls(function) if _called(call) == "seed"]
    if len(draws) != 1 or seeds not in (["np.random.seed(seed)"], ["numpy.random.seed(seed)"]):
        raise Unreadable("it does not seed and draw once, as the course's does")
    call = draws[0]
    given = dict(zip(("a", "size", "replace"), call.args)) | {k.arg: k.value for k in call.keywords if k.arg}
    of_numpy = ast.unparse(call.func) in ("np.random.choice", "numpy.random.choice")
    if not of_numpy or not given.keys() <= {"a", "size", "replace"} or not _is_all_classes(given.get("a")):
        raise Unreadable(f"line {call.lineno} does not draw from all 100 classes alike")
    n_classes = _integer(given.get("size"), constants)
    replace = given.get("replace", ast.Constant(True))
    if n_classes is None or not 2 <= n_classes <= 100 or not isinstance(replace, ast.Constant):
        raise Unreadable(f"line {call.lineno} does not say how many classes it draws")
    return n_classes, bool(replace.value)


def _is_all_classes(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Call) and _called(node) in ("arange", "range"):
        return [_integer(a, {}) for a in node.args] in ([100], [0, 100])
    return _integer(node, {}) == 100


def _one_hot(function: ast.FunctionDef) -> bool:
    """Whether the test labels are one-hot too; the training labels must be."""
    made = ["test" in ast.unparse(call) for call in _calls(function) if _called(call) == "onehot"]
    if made not in ([False], [False, True], [True, False]):
        raise Unreadable("its training labels are not one-hot, as the course's are")
    return len(made) == 2


def _check_scaled(function: ast.FunctionDef, scale: ast.FunctionDef | None) -> None:
    used = sum(_called(call) == "scale" for call in _calls(function))
    inline = [node for node in ast.walk(function) if isinstance(node, (ast.BinOp, ast.AugAssign))]
    helper = [] if scale is None else [node for node in ast.walk(scale) if isinstance(node, (ast.BinOp, ast.AugAssign))]
    steps, times = (helper, used) if used else (inline, 1)
    expected = (1, 1, 2) if used else (2, 2, 1)
    found = (sum(isinstance(n.op, ast.Div) for n in steps), sum(isinstance(n.op, ast.Sub) for n in steps), times)
    if found != expected or (used and any(isinstance(n.op, (ast.Div, ast.Sub)) for n in inline)):
        raise Unreadable("it does not scale pixels to -0.5 .. 0.5, as the course's does")


def _images(function: ast.FunctionDef, scale: ast.FunctionDef | None) -> bool:
    """Whether pixels are returned as (n, 3, 32, 32)."""
    shapes = _shapes(function)
    if shapes and len(shapes) != 2:
        raise Unreadable("it reshapes one of the two sets only")
    found = {*(shapes or (_shapes(scale) if scale else []))}
    if found - {(3, 32, 32), (3072,)} or len(found) > 1:
        raise Unreadable("its pixels are neither rows nor images, channels first")
    return found == {(3, 32, 32)}


def _shapes(function: ast.FunctionDef) -> list[tuple[int, ...]]:
    """What follows the number of samples in each call of reshape."""
    shapes = []
    for call in _calls(function):
        if _called(call) == "reshape":
            last = call.args[-1] if call.args else None
            sizes = last.elts if isinstance(last, (ast.Tuple, ast.List)) else call.args
            shapes.append(tuple(size for size in (_integer(node, {}) for node in sizes[1:]) if size is not None))
    return shapes


def _dtype(function: ast.FunctionDef, scale: ast.FunctionDef | None) -> str:
    casts = [call for f in (function, scale) if f for call in _calls(f) if _called(call) == "astype"]
    named = [ast.unparse(argument) for call in casts for argument in call.args]
    return "float32" if any("float32" in name or "'f4'" in name for name in named) else "float64"


def _returned(function: ast.FunctionDef) -> bool:
    """Whether the classes drawn are returned as a third value."""
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    value = returns[0].value if len(returns) == 1 else None
    parts = value.elts if isinstance(value, ast.Tuple) else []
    pairs = [[ast.unparse(e).lower() for e in part.elts] for part in parts[:2] if isinstance(part, ast.Tuple)]
    if len(pairs) != 2 or not all(len(pair) == 2 and "x" in pair[0] and "y" in pair[1] for pair in pairs):
        raise Unreadable("it does not return (x, y), (x, y), as the course's does")
    if "test" in "".join(pairs[0]) or "train" in "".join(pairs[1]) or len(parts) > 3:
        raise Unreadable("it does not return training and test data, as the course's does")
    if len(parts) == 3 and ast.unparse(parts[2]) not in _drawn_names(function):
        raise Unreadable(f"line {returns[0].lineno} returns a third value that is not the classes drawn")
    return len(parts) == 3


def _drawn_names(function: ast.FunctionDef) -> list[str]:
    return [ast.unparse(node.targets[0]) for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _called(node.value) == "choice"]


def _root(tree: ast.Module) -> str | None:
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return next((text for text in texts if text.rstrip("/\\").endswith("cifar-100-python")), None)


def _constants(body: list[ast.stmt]) -> dict[str, int]:
    return {target.id: value for statement in body if isinstance(statement, ast.Assign)
            for target in statement.targets if isinstance(target, ast.Name)
            if (value := _integer(statement.value, {})) is not None}


def _integer(node: ast.expr | None, constants: dict[str, int]) -> int | None:
    """A whole number written as one, as a product, or as the name of one."""
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _integer(node.left, constants), _integer(node.right, constants)
        return None if left is None or right is None else left * right
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _calls(function: ast.FunctionDef) -> Iterator[ast.Call]:
    return (node for node in ast.walk(function) if isinstance(node, ast.Call))


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
