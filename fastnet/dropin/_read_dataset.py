"""Read, without running it, what a course's ``layers/dataset.py`` serves.

The function ``cifar100(seed)`` of every edition is a straight line of a few steps: seed, load, draw, select, renumber,
one-hot, scale, reshape, return. They are followed with symbols in the place of arrays, each a note of where it comes from
and which steps it has taken; what is returned must have taken those of the course's, and no step may be another one:
fastnet may stand in for the function only where nothing observable differs.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

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


_KEYS = {"data": "pixels", b"data": "pixels", "fine_labels": "labels", b"fine_labels": "labels"}
_FLOATS = {"float": "float64", "'float'": "float64", "'float64'": "float64", "np.float64": "float64",
           "'float32'": "float32", "np.float32": "float32"}
_ONE_HOT = {"zeros", "len", "max", "arange", "eye", "unique", "array"}


class _Array(NamedTuple):
    """A symbol: what an array started as, of which part of the data, and the steps it has taken since."""

    kind: str  # "file", "content", "pixels", "labels", "mask", "drawn"
    part: str = ""  # "train" or "test"
    steps: tuple[str, ...] = ()
    shape: tuple[int, ...] = (3072,)  # of a sample
    dtype: str = "float64"

    def then(self, step: str) -> _Array:
        return self._replace(steps=(*self.steps, step))


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
    trace = _Trace(functions, _constants(tree.body))
    returned = trace.run(function.body, {"seed": "seed"})
    if trace.drawn is None:
        raise Unreadable("it does not seed and draw once, as the course's does")
    return _edition(returned, *trace.drawn)._replace(root=_root(tree))


class _Trace:
    """Follows the statements of a function."""

    def __init__(self, functions: dict[str, ast.FunctionDef], constants: dict[str, Any]) -> None:
        self.functions, self.constants = functions, constants
        self.names: dict[str, Any] = {}
        self.seeds = 0
        self.drawn: tuple[int, bool] | None = None  # how many classes, and whether with replacement

    def run(self, body: list[ast.stmt], names: dict[str, Any]) -> Any:
        """What a function returns, whose arguments are ``names``."""
        before, self.names = self.names, names
        try:
            return self._statements(body)
        finally:
            self.names = before

    def _statements(self, body: list[ast.stmt]) -> Any:
        for statement in body:
            if isinstance(statement, ast.Return):
                return self.value(statement.value)
            if isinstance(statement, ast.Assign):
                value = self.value(statement.value)
                for target in statement.targets:
                    self._bind(target, value)
            elif isinstance(statement, ast.AugAssign):
                self._bind(statement.target, self._computed(statement, statement.target, statement.op, statement.value))
            elif isinstance(statement, ast.With):
                for item in statement.items:
                    if item.optional_vars is not None:
                        self._bind(item.optional_vars, self.value(item.context_expr))
                returned = self._statements(statement.body)
                if returned is not None:
                    return returned
            elif isinstance(statement, ast.Expr):
                self.value(statement.value)
            elif not isinstance(statement, (ast.Pass, ast.Import, ast.ImportFrom)):
                raise Unreadable(f"line {statement.lineno} is a step that the course's has not")
        return None

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, ast.Tuple) and isinstance(value, tuple) and len(target.elts) == len(value) \
                and not isinstance(value, _Array):
            for part, its in zip(target.elts, value):
                self._bind(part, its)
        else:
            raise Unreadable(f"line {target.lineno} is a step that the course's has not")

    def value(self, node: ast.expr | None) -> Any:
        """The symbol, or the constant, that an expression stands for."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in (known := {**self.constants, **self.names}):
            return known[node.id]
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(self.value(part) for part in node.elts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return -1
        if isinstance(node, ast.Attribute) and node.attr == "shape":
            return "shape"
        if isinstance(node, ast.BinOp):
            return self._computed(node, node.left, node.op, node.right)
        if isinstance(node, ast.Subscript):
            return self._item(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        where = "" if node is None else f"line {node.lineno} has "
        raise Unreadable(f"{where}{ast.unparse(node) if node else 'nothing'}, a step that the course's has not")

    def _computed(self, node: ast.AST, left: ast.expr, operator: ast.operator, right: ast.expr) -> Any:
        """x / 255, x - 0.5; a product of sizes; a path put together."""
        a, b = self.value(left), self.value(right)
        if isinstance(a, _Array) and a.kind == "pixels" and isinstance(b, (int, float)):
            if isinstance(operator, ast.Div) and b == 255:
                return a.then("/ 255")
            if isinstance(operator, ast.Sub) and b == 0.5:
                return a.then("- 0.5")
        if isinstance(operator, ast.Mult) and type(a) is int and type(b) is int:
            return a * b
        if isinstance(operator, ast.Add) and isinstance(a, str) and isinstance(b, str):
            return a + b
        raise Unreadable(f"line {getattr(node, 'lineno', 0)} computes something that the course's does not")

    def _item(self, node: ast.Subscript) -> Any:
        """train["data"], x[mask], x.shape[0]."""
        held = self.value(node.value)
        if not isinstance(node.slice, ast.Slice):
            index = self.value(node.slice)
            if held == "shape" and index == 0:
                return -1
            if isinstance(held, _Array) and held.kind == "content" and isinstance(index, (str, bytes)) and index in _KEYS:
                return _Array(_KEYS[index], held.part)
            if isinstance(held, _Array) and index == _Array("mask", held.part) and held.kind in ("pixels", "labels"):
                return held.then("select")
        raise Unreadable(f"line {node.lineno} takes {ast.unparse(node)}, which the course's does not")

    def _call(self, call: ast.Call) -> Any:
        name, line = _called(call), call.lineno
        if name == "print":
            return None
        if name == "seed":
            self.seeds += 1
            if ast.unparse(call) not in ("np.random.seed(seed)", "numpy.random.seed(seed)") or self.seeds > 1:
                raise Unreadable("it does not seed and draw once, as the course's does")
            return None
        if name == "choice":
            return self._draw(call)
        if name in ("astype", "reshape"):
            return self._converted(call)
        step = getattr(self, f"_{name}", None) if name in _CALLS else None
        if step is None:
            raise Unreadable(f"line {line} calls {name or 'something'}, which the course's does not")
        keywords = {k.arg: self.value(k.value) for k in call.keywords if k.arg and name != "load"}  # load's is an encoding
        result = step(*(self.value(argument) for argument in call.args[:2]), **keywords) if len(call.args) <= 2 else None
        if result is None:
            raise Unreadable(f"line {line} is a step that the course's has not: {ast.unparse(call)}")
        return result

    def _draw(self, call: ast.Call) -> _Array:
        if self.seeds != 1 or self.drawn is not None:
            raise Unreadable("it does not seed and draw once, as the course's does")
        given = dict(zip(("a", "size", "replace"), call.args)) | {k.arg: k.value for k in call.keywords if k.arg}
        of_numpy = ast.unparse(call.func) in ("np.random.choice", "numpy.random.choice")
        if not of_numpy or not given.keys() <= {"a", "size", "replace"} or not _is_all_classes(given.get("a")):
            raise Unreadable(f"line {call.lineno} does not draw from all 100 classes alike")
        n_classes = _integer(given.get("size"), {**self.constants, **self.names})
        replace = given.get("replace", ast.Constant(True))
        if n_classes is None or not 2 <= n_classes <= 100 or not isinstance(replace, ast.Constant):
            raise Unreadable(f"line {call.lineno} does not say how many classes it draws")
        self.drawn = n_classes, bool(replace.value)
        return _Array("drawn")

    def _converted(self, call: ast.Call) -> Any:
        """x.astype(type), x.reshape(sizes), np.reshape(x, sizes)."""
        arguments = list(call.args)
        of_numpy = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("np", "numpy")
        array = self.value(arguments.pop(0) if of_numpy and arguments else getattr(call.func, "value", None))
        if not isinstance(array, _Array) or array.kind != "pixels" or call.keywords or not arguments:
            raise Unreadable(f"line {call.lineno} is a step that the course's has not: {ast.unparse(call)}")
        if _called(call) == "astype":
            dtype = _FLOATS.get(ast.unparse(arguments[0]))
            if dtype is None or len(arguments) > 1:
                raise Unreadable(f"line {call.lineno} converts pixels to another type than the course's does")
            return array._replace(dtype=dtype)
        sizes = [self.value(argument) for argument in arguments]
        sizes = list(sizes[0]) if isinstance(sizes[0], tuple) and len(sizes) == 1 else sizes
        if sizes[0] != -1 or tuple(sizes[1:]) not in ((3, 32, 32), (3072,)):
            raise Unreadable(f"line {call.lineno}: its pixels are neither rows nor images, channels first")
        return array._replace(shape=tuple(sizes[1:]))

    # The other calls: their arguments are symbols, and None says that they are not those of the course's.

    def _open(self, path: Any, mode: Any = "r") -> _Array | None:
        part = path.replace("\\", "/").rpartition("/")[2] if isinstance(path, str) else ""
        return _Array("file", part) if part in ("train", "test") else None

    def _load(self, file: Any, *_: Any) -> _Array | None:
        return _Array("content", file.part) if isinstance(file, _Array) and file.kind == "file" else None

    def _array(self, values: Any) -> _Array | None:
        return values if isinstance(values, _Array) and values.kind in ("pixels", "labels") else None

    def _isin(self, labels: Any, drawn: Any) -> _Array | None:
        whole = isinstance(labels, _Array) and labels.kind == "labels" and not labels.steps
        return _Array("mask", labels.part) if whole and drawn == _Array("drawn") else None

    def _unique(self, labels: Any, return_inverse: Any = False) -> tuple[str, _Array] | None:
        known = isinstance(labels, _Array) and labels.kind == "labels" and return_inverse is True
        return ("classes", labels.then("renumber")) if known else None

    def _onehot(self, labels: Any) -> _Array | None:
        _check_one_hot(self.functions.get("onehot"))
        return labels.then("one-hot") if isinstance(labels, _Array) and labels.kind == "labels" else None

    def _scale(self, pixels: Any) -> Any:
        function = self.functions.get("scale")
        if function is None or len(function.args.args) != 1:
            raise Unreadable("its scale is not in the same file")
        return self.run(function.body, {function.args.args[0].arg: pixels})

    def _join(self, a: Any, b: Any) -> str | None:
        return f"{a}/{b}" if isinstance(a, str) and isinstance(b, str) else None

    _asarray, _in1d = _array, _isin


_CALLS = {"open", "load", "array", "asarray", "isin", "in1d", "unique", "onehot", "scale", "join"}


def _edition(returned: Any, n_classes: int, replace: bool) -> Edition:
    """The edition whose function returns these symbols."""
    parts = returned if isinstance(returned, tuple) and len(returned) in (2, 3) else ((), ())
    pairs = [part for part in parts[:2] if isinstance(part, tuple) and len(part) == 2]
    arrays = [array for pair in pairs for array in pair if isinstance(array, _Array)]
    if [array.kind for array in arrays] != ["pixels", "labels"] * 2:
        raise Unreadable("it does not return (x, y), (x, y), as the course's does")
    x_train, y_train, x_test, y_test = arrays
    if x_train.part != "train" or x_test.part != "test" or y_test.part != "test":
        raise Unreadable("it does not return training and test data, as the course's does")
    if y_train.part != "train" or y_train.steps != ("select", "renumber", "one-hot"):
        raise Unreadable("its training labels are not one-hot, of classes numbered anew, as the course's are")
    if y_test.steps not in (("select", "renumber"), y_train.steps):
        raise Unreadable("its test labels are not those of classes numbered anew, as the course's are")
    for x in (x_train, x_test):
        if sorted(x.steps) != ["- 0.5", "/ 255", "select"] or x.steps.index("/ 255") > x.steps.index("- 0.5"):
            raise Unreadable("it does not scale pixels to -0.5 .. 0.5, of the classes drawn, as the course's does")
    if x_train.shape != x_test.shape or x_train.dtype != x_test.dtype:
        raise Unreadable("it reshapes one of the two sets only")
    if len(parts) == 3 and parts[2] != _Array("drawn"):
        raise Unreadable("it returns a third value that is not the classes drawn")
    images = x_train.shape == (3, 32, 32)
    return Edition(n_classes, replace, images, x_train.dtype, y_test.steps == y_train.steps, returns_chosen=len(parts) == 3)


def _check_one_hot(function: ast.FunctionDef | None) -> None:
    """zeros, ones set by index, return; or rows of eye: with 0 and 1 alone."""
    if function is None or len(function.args.args) != 1:
        raise Unreadable("its onehot is not in the same file")
    y = function.args.args[0].arg
    body = [node for node in function.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    for node in ast.walk(ast.Module(body, [])):
        number = node.value if isinstance(node, ast.Constant) else 0
        if isinstance(number, (int, float)) and number not in (0, 1):
            raise Unreadable(f"line {getattr(node, 'lineno', 0)} makes labels other than 0 and 1")
        if isinstance(node, ast.Call) and _called(node) not in _ONE_HOT:
            raise Unreadable(f"line {node.lineno} calls {_called(node)}, which the course's does not")
    text = re.sub(r"\bnumpy\b", "np", "; ".join(ast.unparse(node) for node in body))
    most = rf"(?:np\.max\({y}\)|{y}\.max\(\)|max\({y}\)) \+ 1"
    known = (rf"(\w+) = np\.zeros\(\((?:len\({y}\)|{y}\.shape\[0\]), {most}\)\); "
             rf"\1\[np\.arange\((?:len\({y}\)|{y}\.shape\[0\])\), {y}\] = 1(?:\.0)?; return \1",
             rf"return np\.eye\({most}\)\[{y}\]")
    if not any(re.fullmatch(form, text) for form in known):
        raise Unreadable(f"line {function.lineno}: its onehot is not the course's")


def _is_all_classes(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Call) and _called(node) in ("arange", "range"):
        return [_integer(a, {}) for a in node.args] in ([100], [0, 100])
    return _integer(node, {}) == 100


def _root(tree: ast.Module) -> str | None:
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return next((text for text in texts if text.rstrip("/\\").endswith("cifar-100-python")), None)


def _constants(body: list[ast.stmt]) -> dict[str, Any]:
    """Names of numbers and texts at the top of the file."""
    found: dict[str, Any] = {}
    for statement in body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            whole = _integer(statement.value, {})
            text = statement.value.value if isinstance(statement.value, ast.Constant) else None
            found[statement.targets[0].id] = whole if isinstance(whole, int) else text if isinstance(text, str) else None
    return {name: value for name, value in found.items() if value is not None}


def _integer(node: ast.expr | None, constants: dict[str, Any]) -> int | None:
    """A whole number written as one, as a product, or as the name of one."""
    if isinstance(node, ast.Name):
        value = constants.get(node.id)
        return value if type(value) is int else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _integer(node.left, constants), _integer(node.right, constants)
        return None if left is None or right is None else left * right
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
