"""An address keeps no array alive: Numba frees what a compiled function made after the last use of its name.

What is written by the address afterwards lands in memory that is already something else's, which fails anywhere, rarely. So a
kernel must name an array it made where it uses its address, or later, or in the loop in which that is.
"""
import ast
from pathlib import Path

import fastnet.kernels
import pytest

KERNELS = sorted(path for path in Path(fastnet.kernels.__file__).parent.rglob("*.py") if path.stem != "naive")
_MAKERS = {"empty", "zeros", "ones", "full", "empty_like", "zeros_like", "full_like", "copy"}


def names(node, context=ast.Load):
    """The names that are read (or assigned) in a piece of code, with their lines."""
    return [(n.id, n.lineno) for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)]


def assigned(function):
    """Pairs of a name and the expression that it is assigned; a, b = x, y are two."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple):
                    one_each = isinstance(node.value, ast.Tuple) and len(node.value.elts) == len(target.elts)
                    pairs = zip(target.elts, node.value.elts if one_each else [node.value] * len(target.elts), strict=True)
                yield from ((t.id, value, node) for t, value in pairs if isinstance(t, ast.Name))


def addresses_taken(expression):
    """The arrays whose `.ctypes` an expression reads."""
    return {n.value.id for n in ast.walk(expression) if isinstance(n, ast.Attribute) and n.attr == "ctypes"
            and isinstance(n.value, ast.Name)}


def outlived(source):
    """Function, array and name of an address that is used when the array may have been freed."""
    found = []
    for function in (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)):
        definitions = list(assigned(function))
        made = {name for name, value, _ in definitions if isinstance(value, ast.Call)
                and isinstance(value.func, ast.Attribute) and value.func.attr in _MAKERS}
        loops = [n for n in ast.walk(function) if isinstance(n, (ast.For, ast.While))]
        held = {}  # name of an address: the arrays it points into
        for _ in range(3):  # addresses made of addresses
            for name, value, _node in definitions:
                arrays = (addresses_taken(value) & made).union(*(held.get(read, ()) for read, _ in names(value)))
                if arrays and not isinstance(value, ast.Call):
                    held.setdefault(name, set()).update(arrays)
        begins = {name: min(node.lineno for other, _, node in definitions if other == name) for name in held}
        for name, arrays in held.items():
            for used in (line for read, line in names(function) if read == name):
                around = [loop for loop in loops if begins[name] < loop.lineno <= used <= loop.end_lineno]
                for array in sorted(arrays):
                    lines = [line for read, line in names(function) if read == array]
                    if not (max(lines) >= used or any(read == array for loop in around for read, _ in names(loop))):
                        found.append((function.name, array, name))
    return sorted(set(found))


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_kernels_name_an_array_as_long_as_they_use_its_address(path):
    assert outlived(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("body", "wrong"), [
    ("a = np.empty(9); at = a.ctypes.data; f(at)", [("f", "a", "at")]),
    ("a = np.empty(9); at = (a.ctypes.data + 63) // 64 * 64\n    for i in range(3):\n        f(at)", [("f", "a", "at")]),
    ("a, b = np.empty(9), np.empty(8)\n    x, y = a.ctypes.data, b.ctypes.data\n    f(x, y)\n    f(b.size)", [("f", "a", "x")]),
    ("a = np.empty(9); at = a.ctypes.data; after = at + 8\n    f(after)", [("f", "a", "after"), ("f", "a", "at")]),
    ("a = np.empty(9)\n    at = a.ctypes.data\n    for i in range(3):\n        f(a.size)\n        f(at)", []),
    ("a = np.empty(9)\n    at = a.ctypes.data\n    f(at)\n    f(len(a))", []),
    ("a = np.empty(9)\n    f(a.ctypes.data)", []),
])
def test_such_a_place_is_found(body, wrong):
    body = body.replace("; ", "\n    ")
    assert outlived(f"def f():\n    {body}\n") == wrong
