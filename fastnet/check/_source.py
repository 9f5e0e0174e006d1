"""The source of a class: its methods, and the lines that compute its quantities."""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

RETURNED = ("the output", "the gradient of x", "the loss", "the labels", "the losses")
_ATTRIBUTES = {"W_grad": ("W_grad", "w_grad"), "b_grad": ("b_grad",), "W": ("W",), "b": ("b",), "initial W": ("W",),
               "initial b": ("b",), "the updated parameters": (), "the batches": (), "the layers": ("layers", "loss")}
_CHECKED = {"forward", "backward", "update_param", "update_params", "predict", "fit"}
_LOOPS = {"conv": 4, "maxpool": 4}  # nested loops from which a layer is called slow; 2 for all others


class Source:
    """The source of one class.

    Parameters
    ----------
    text : str
        The text of the file.
    path : str
        The file's path in tracebacks.
    name : str
        The name of the class.
    """

    def __init__(self, text: str, path: str, name: str) -> None:
        self.path, self.name, self.lines = path, name, text.splitlines()
        tree = ast.parse(text)
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
        self.tree = classes[-1] if classes else None
        body = self.tree.body if self.tree is not None else []
        self.methods = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}

    def line(self, number: int) -> str:
        return self.lines[number - 1].strip() if 0 < number <= len(self.lines) else ""

    def line_of(self, method: str, quantity: str) -> int | None:
        """Return the number of the line that computes a quantity; None if the source does not show it."""
        function = self._method(method)
        if function is None:
            return None
        if quantity in RETURNED:
            return self._of_return(function, {method})
        names = _ATTRIBUTES[quantity]
        if not names:  # a loop computes it
            loops = [
                node.lineno
                for f in (function, *self.helpers(function))
                for node in ast.walk(f)
                if isinstance(node, (ast.For, ast.While))
            ]
            return loops[-1] if loops else function.lineno
        for reached in (function, *self.helpers(function)):
            found = [node.lineno for node, target in _assignments(reached) if _attribute(target) in names]
            if found:
                return found[-1]
        return function.lineno

    def _method(self, method: str) -> ast.FunctionDef | None:
        other = {"update_param": "update_params", "update_params": "update_param"}.get(method, method)
        return self.methods.get(method) or self.methods.get(other)

    def helpers(self, function: ast.FunctionDef) -> Iterator[ast.FunctionDef]:
        """Return the methods that a method calls."""
        for node in ast.walk(function):
            name = _attribute(node.func) if isinstance(node, ast.Call) else None
            if name in self.methods and name not in _CHECKED and self.methods[name] is not function:
                yield self.methods[name]

    def _of_return(self, function: ast.FunctionDef, seen: set[str]) -> int:
        returns = [node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
        if not returns:
            return function.lineno
        value = returns[-1].value
        if isinstance(value, ast.Call) and (name := _attribute(value.func)) in self.methods and name not in seen:
            return self._of_return(self.methods[name], {*seen, name})
        if isinstance(value, (ast.Name, ast.Attribute)):
            same = [
                node.lineno for node, target in _assignments(function) if ast.dump(_root(target)) == ast.dump(_load(value))
            ]
            if same:
                return same[-1]
        return returns[-1].lineno

    def forgotten(self) -> tuple[str, int] | None:
        """Return an attribute that backward reads and forward does not assign, and the line that reads it."""
        forward, backward = self.methods.get("forward"), self.methods.get("backward")
        if forward is None or backward is None:
            return None
        own = {target for f in (forward, *self.helpers(forward), backward, *self.helpers(backward))
               for _, node in _assignments(f) if (target := _attribute(_root(node)))}
        known = {"W", "b", "n_i", "n_o", "h", "size", "layers", "loss", *self.methods, *self._only_in_init()}
        for node in ast.walk(backward):
            name = _attribute(node)
            if isinstance(getattr(node, "ctx", None), ast.Load) and name and name not in own and name not in known:
                return name, getattr(node, "lineno", 0)
        return None

    def _only_in_init(self) -> set[str]:
        """Return the attributes to which __init__ assigns something other than None."""
        init = self.methods.get("__init__")
        return set() if init is None else {
            name for node, target in _assignments(init) if (name := _attribute(target)) and not (
                isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is None)}

    def slow(self, stem: str) -> int | None:
        """Return the line of a loop over single elements; None without one."""
        for name in ("forward", "backward"):
            function = self.methods.get(name)
            deepest = max(_loops(function.body, 0), default=(0, 0)) if function is not None else (0, 0)
            if deepest[0] >= _LOOPS.get(stem, 2):
                return deepest[1]
        return None

    def guarded(self) -> int | None:
        """Return the line of forward that stores something only under a condition; None without one."""
        forward = self.methods.get("forward")
        for node in ast.walk(forward) if forward is not None else ():
            if isinstance(node, (ast.If, ast.Try)):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Assign) and any(_attribute(_root(t)) for t in inner.targets):
                        return inner.lineno
        return None

    def method_at(self, number: int) -> str | None:
        return next((name for name, node in self.methods.items() if node.lineno <= number <= (node.end_lineno or 0)), None)

    def frame(self, error: BaseException, other: Collection[str] = ()) -> int | None:
        """Return the line of this file that raised an exception, if possible outside the methods `other`."""
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self.path and f.lineno]
        apart = [line for line in lines if self.method_at(line) not in other]
        return apart[-1] if apart else lines[-1] if lines else None

    def never_kept(self, error: BaseException) -> str | None:
        """Return the attribute that an AttributeError names, if no method of the class assigns it."""
        name = getattr(error, "name", None) if isinstance(error, AttributeError) else None
        assigned = {_attribute(target) for function in self.methods.values() for _, target in _assignments(function)}
        return name if isinstance(name, str) and name not in assigned and name not in self.methods else None

    def kept_at(self, name: str) -> int | None:
        """Return the line of forward that assigns an attribute."""
        forward = self.methods.get("forward")
        found = [] if forward is None else [node.lineno for function in (forward, *self.helpers(forward))
                                            for node, target in _assignments(function) if _attribute(target) == name]
        return found[-1] if found else forward.lineno if forward is not None else None


def _assignments(function: ast.FunctionDef) -> Iterator[tuple[ast.stmt, ast.expr]]:
    for node in ast.walk(function):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                    yield node, _root(part)


def _root(node: ast.expr) -> ast.expr:
    """Return the node of self.a for self.a[i] and self.a.b."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return _load(node)


def _load(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Name):
        return ast.Name(node.id, ast.Load())
    return ast.Attribute(node.value, node.attr, ast.Load()) if isinstance(node, ast.Attribute) else node


def _attribute(node: ast.AST) -> str | None:
    """Return "a" for the node of self.a; None for other nodes."""
    return (
        node.attr
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        else None
    )


def _loops(body: list[ast.stmt], depth: int) -> Iterator[tuple[int, int]]:
    for node in body:
        if isinstance(node, (ast.For, ast.While)):
            yield depth + 1, node.lineno
        for name in ("body", "orelse"):
            yield from _loops(getattr(node, name, []), depth + isinstance(node, (ast.For, ast.While)))


# --- Python 2 -------------------------------------------------------------------------------------------------------------

_PYTHON_2 = re.compile(r"^\s*print\s+[^(=\s]|^\s*print\s*$|^\s*except\s+[\w.()]+\s*,\s*\w+\s*:|^\s*exec\s+[^(=\s]|<>"
                       r"|^\s*raise\s+\w+\s*,|\b0[0-7]+\b(?!\.)|\bur[\"']|`[^`]+`")
_GONE = {"xrange": "range", "raw_input": "input", "unicode": "str", "long": "int", "reduce": "functools.reduce",
         "cPickle": "pickle", "iteritems": "items", "itervalues": "values", "iterkeys": "keys", "has_key": "in"}


def python_2(error: BaseException, line: str = "") -> str | None:
    """Return how an error follows from code for Python 2; None if it does not.

    Parameters
    ----------
    error : exception
    line : str
        The line of source that it comes from.
    """
    if isinstance(error, SyntaxError):
        text = error.text or line
        return "this is Python 2; translate the file once, with 2to3 or futurize" if _PYTHON_2.search(text) else None
    message = str(error)
    gone = next((name for name in _GONE if re.search(rf"'{name}'", message)), None)
    if gone and isinstance(error, (NameError, AttributeError, ImportError)):
        return f"{gone} is a name of Python 2; Python 3 says {_GONE[gone]}"
    integers = (
        "'float' object cannot be interpreted as an integer",
        "slice indices must be integers",
        "only integers, slices",
        "'float' object",
        "must be integers",
    )
    if (
        isinstance(error, (TypeError, IndexError))
        and any(text in message for text in integers)
        and "float" in message + line + "/"
    ):
        return "in Python 3, / gives a float: write // where a whole number is meant"
    return None


def read(path: str | Path) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
