"""The search for a wrong line: try small changes of the code until the numbers are right.

A change concerns one operator, one constant, one name or one transpose. If it makes the numbers right, the changed line is
probably the wrong one.
"""

from __future__ import annotations

import ast
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastnet.check._source import Source

_SWAPS: dict[str, tuple[str, ...]] = {
    "max": ("min", "sum"), "min": ("max",), "maximum": ("minimum",), "minimum": ("maximum",), "sum": ("mean", "max"),
    "mean": ("sum",), "prod": ("sum",), "argmax": ("argmin",), "argmin": ("argmax",), "zeros": ("ones",), "ones": ("zeros",),
    "log2": ("log",), "log10": ("log",), "log1p": ("log",), "expm1": ("exp",), "exp2": ("exp",), "cumsum": ("sum",),
    "std": ("mean",), "median": ("mean",), "floor": ("ceil",), "ceil": ("floor",), "zeros_like": ("ones_like",),
    "ones_like": ("zeros_like",), "multiply": ("dot",), "subtract": ("add",), "add": ("subtract",), "divide": ("multiply",),
    "fmin": ("fmax",), "log": ("exp",), "exp": ("log",), "nanmin": ("nanmax",)}
_BINARY: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.MatMult),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,),
    ast.MatMult: (ast.Mult,),
    ast.Pow: (ast.Mult,),
}
_COMPARE = (ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq, ast.NotEq)
_RANKS = 3
TRIES = 1500  # changes, in one search
SECONDS = 0.6  # processor time of one search
budget = float("inf")  # for all searches together


class Repair(NamedTuple):
    """A change that makes the numbers right."""

    method: str
    line: int
    old: str
    new: str

    def __str__(self) -> str:
        return (
            f"`{self.old}` here; the numbers are right with `{self.new}`"
            if self.new
            else f"the numbers are right without `{self.old}`"
        )


def search(
    source: Source, layer: type, judge: Callable[[type, bool], set[str] | None], wrong: set[str], quantity: str,
    first: str, tries: int | None = None,
) -> Repair | None:
    """Return the first small change that makes a quantity right and no other one wrong.

    Parameters
    ----------
    source : Source
    layer : type
        The imported class.
    judge : callable
        ``judge(klass, quick)`` returns the names of the wrong quantities; with `quick` it tries only the failing case.
    wrong : set of str
        The names of the wrong quantities.
    quantity : str
        The quantity that the change must make right.
    first : str
        The method to change first.
    tries : int
        The largest number of changes, by default TRIES. The search also ends after SECONDS of processor time.
    """
    global budget
    start = time.process_time()
    end = start + min(SECONDS, budget)
    try:
        return _search(source, layer, judge, wrong, quantity, first, TRIES if tries is None else min(tries, TRIES), end)
    finally:
        budget -= time.process_time() - start


def _search(
    source: Source,
    layer: type,
    judge: Callable[[type, bool], set[str] | None],
    wrong: set[str],
    quantity: str,
    first: str,
    left: int,
    end: float,
) -> Repair | None:
    names = [first, *(name for name in source.methods if name != first)]
    for rank in range(_RANKS):
        for name in names:
            function = source.methods.get(name)
            if function is None or any(isinstance(node, ast.While) for node in ast.walk(function)):
                continue
            for line, old, new in edits(function, rank, source):
                left -= 1
                if left < 0 or time.process_time() > end:
                    return None
                variant = compiled(layer, function, source.path)
                if variant is None:
                    continue
                for quick in (True, False):
                    try:
                        now = judge(variant, quick)
                    except Exception:  # changed code can raise anything
                        now = None
                    if now is None or quantity in now or not now <= wrong:
                        break
                else:
                    return Repair(name, line, old, new)
    return None


def compiled(layer: type, function: ast.FunctionDef, path: str) -> type | None:
    """Return a subclass of the layer with this version of one method; None if it cannot be compiled."""
    original = layer.__dict__.get(function.name)
    scope = getattr(original, "__globals__", None)
    if scope is None:
        return None
    body = ast.ClassDef(layer.__name__, [ast.Name("_Original", ast.Load())], [], [function], [])
    if hasattr(body, "type_params"):
        body.type_params = []
    names: dict[str, Any] = {"_Original": layer}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(ast.fix_missing_locations(ast.Module([body], [])), path, "exec"), scope, names)
    except (SyntaxError, ValueError, TypeError):
        return None
    return names[layer.__name__]


def edits(function: ast.FunctionDef, rank: int, source: Source) -> Iterator[tuple[int, str, str]]:
    """Change the function in place, one change at a time, and undo each change before the next.

    Yields
    ------
    line : int
    old, new : str
        The changed part, before and after.
    """
    names = _names(function, source)
    for parent in list(ast.walk(function)):
        for field, value in ast.iter_fields(parent):
            for i, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(node, (ast.expr, ast.stmt)) or (
                    parent is function and field in ("decorator_list", "returns")
                ):
                    continue
                small = isinstance(node, ast.Constant) and isinstance(parent, (ast.expr, ast.keyword, ast.Slice))
                around = parent if small else None  # axis=1, not 1 alone
                old = _shown(node if around is None else around)
                for new in _changes(node, rank, names, parent):
                    if i is None:
                        setattr(parent, field, new)
                    else:
                        value[i] = new
                    try:
                        if (around is None and _shown(new) != old) or (around is not None and _shown(around) != old):
                            yield node.lineno, old, _shown(new if around is None else around)
                    finally:
                        if i is None:
                            setattr(parent, field, node)
                        else:
                            value[i] = node


def _shown(node: ast.AST) -> str:
    return "" if isinstance(node, ast.Pass) else " ".join(ast.unparse(ast.fix_missing_locations(node)).split())


def _names(function: ast.FunctionDef, source: Source) -> list[ast.expr]:
    """Return the names that a change may put in place of another: arguments, local variables and attributes."""
    arguments: list[ast.expr] = [ast.Name(a.arg, ast.Load()) for a in function.args.args if a.arg not in ("self", "lr")]
    local = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    arguments += [ast.Name(name, ast.Load()) for name in sorted(local)[:6]]
    held = sorted(
        {
            node.attr
            for method in source.methods.values()
            for node in ast.walk(method)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and isinstance(node.ctx, ast.Store)
        }
    )
    return arguments + [ast.Attribute(ast.Name("self", ast.Load()), name, ast.Load()) for name in held[:8]]


def _changes(node: ast.AST, rank: int, names: list[ast.expr], parent: ast.AST) -> Iterator[Any]:
    if isinstance(node, ast.stmt):
        yield from _of_statement(node, rank, names)
    elif rank == 0:
        yield from _of_operator(node)
    elif rank == 1:
        yield from _of_call(node)
        yield from _of_place(node, parent)
    else:
        yield from _of_name(node, names, parent)


def _of_operator(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], _COMPARE):
        yield from (ast.Compare(node.left, [op()], node.comparators) for op in _COMPARE if not isinstance(node.ops[0], op))
        yield ast.Compare(node.left, node.ops, [ast.Constant(0)])
    elif isinstance(node, ast.BinOp):
        yield from (ast.BinOp(node.left, op(), node.right) for op in _BINARY.get(type(node.op), ()))
        yield node.left
        if not isinstance(node.op, (ast.Div, ast.Pow)):
            yield node.right
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)):
            yield ast.BinOp(node.right, node.op, node.left)
        if isinstance(node.op, ast.MatMult):
            yield ast.BinOp(_transposed(node.left), node.op, node.right)
            yield ast.BinOp(node.left, node.op, _transposed(node.right))
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        number: Any = node.value
        yield from (ast.Constant(number + d) for d in (-1, 1))
        yield from (ast.Constant(v) for v in (0, 2) if node.value != v)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)


def _of_call(node: ast.AST) -> Iterator[ast.expr]:
    if not isinstance(node, ast.Call):
        return
    name = (
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
    )
    for other in _SWAPS.get(name, ()):
        func = (
            ast.Attribute(node.func.value, other, ast.Load())
            if isinstance(node.func, ast.Attribute)
            else ast.Name(other, ast.Load())
        )
        yield ast.Call(func, node.args, node.keywords)
    if len(node.args) == 2:
        yield ast.Call(node.func, node.args[::-1], node.keywords)
        if name in ("dot", "matmul"):
            yield ast.Call(node.func, [_transposed(node.args[0]), node.args[1]], node.keywords)
            yield ast.Call(node.func, [node.args[0], _transposed(node.args[1])], node.keywords)
            yield ast.BinOp(node.args[0], ast.Mult(), node.args[1])
    if len(node.args) > 1:
        yield ast.Call(node.func, node.args[1:], node.keywords)
        yield ast.Call(node.func, node.args[:-1], node.keywords)
    axes = [k for k in node.keywords if k.arg in ("axis", "keepdims")]
    for keyword in axes:
        yield ast.Call(node.func, node.args, [k for k in node.keywords if k is not keyword])
    if name in ("sum", "mean", "max", "min", "argmax", "amax", "prod"):
        rest = [k for k in node.keywords if k.arg not in ("axis", "keepdims")]
        for value in (ast.Constant(0), ast.Constant(1), ast.parse("(0, 2, 3)", mode="eval").body):
            for keep in (True, False):
                yield ast.Call(
                    node.func, node.args, [*rest, ast.keyword("axis", value), ast.keyword("keepdims", ast.Constant(keep))]
                )
    if node.args and not node.keywords and name not in ("range", "len", "enumerate", "zip"):
        yield node.args[0]
    if isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Name):
        yield node.func.value


def _of_place(node: ast.AST, parent: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield node.value
        if isinstance(node.slice, ast.Slice):
            s = node.slice
            yield from (ast.Subscript(node.value, new, ast.Load()) for new in (
                ast.Slice(None, s.upper, s.step), ast.Slice(s.lower, None, s.step), ast.Slice(s.lower, s.upper, None)))
    if isinstance(node, ast.Tuple) and len(node.elts) in (2, 3, 4):
        for i in range(len(node.elts) - 1):
            yield ast.Tuple([*node.elts[:i], node.elts[i + 1], node.elts[i], *node.elts[i + 2:]], node.ctx)
    if isinstance(parent, ast.For) and node is parent.iter:
        yield ast.Call(ast.Name("reversed", ast.Load()), [node], [])
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "->" in node.value:
        left, right = node.value.split("->")
        yield from (
            ast.Constant(f"{left}->{right[:i]}{right[i + 1]}{right[i]}{right[i + 2 :]}") for i in range(len(right) - 1)
        )


def _of_name(node: ast.AST, names: list[ast.expr], parent: ast.AST) -> Iterator[ast.expr]:
    """Yield other names for a name, its transpose, and its log and exp."""
    if (
        not isinstance(node, (ast.Name, ast.Attribute))
        or not isinstance(node.ctx, ast.Load)
        or (isinstance(parent, ast.Call) and node is parent.func)
    ):
        return
    if (isinstance(node, ast.Name) and node.id in ("self", "np", "numpy")) or isinstance(parent, ast.Attribute):
        return
    yield from names
    if isinstance(parent, (ast.BinOp, ast.Call)):
        yield _transposed(node)
        np = ast.Name("np", ast.Load())
        yield from (ast.Call(ast.Attribute(np, f, ast.Load()), [node], []) for f in ("log", "exp"))


def _of_statement(node: ast.stmt, rank: int, names: list[ast.expr]) -> Iterator[ast.stmt]:
    if rank == 0:
        if isinstance(node, ast.AugAssign):
            for op in _BINARY.get(type(node.op), ()):
                yield ast.AugAssign(node.target, op(), node.value)
            yield ast.Assign([node.target], node.value, lineno=node.lineno)
        if (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], (ast.Name, ast.Attribute, ast.Subscript))
        ):
            yield ast.AugAssign(node.targets[0], ast.Add(), node.value)
        if isinstance(node, ast.If):
            yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        return
    value = getattr(node, "value", None)
    if rank == 1 and isinstance(value, ast.expr) and isinstance(node, (ast.Return, ast.Assign, ast.AugAssign)):
        lengths = [ast.Call(ast.Name("len", ast.Load()), [name], []) for name in names]
        wrapped = [ast.UnaryOp(ast.USub(), value), _transposed(value), *(ast.BinOp(value, ast.Div(), n) for n in lengths),
                   *(ast.BinOp(value, ast.Mult(), name) for name in names if isinstance(node, ast.Return))]
        yield from (_with_value(node, new) for new in wrapped)
    if rank == 2 and isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr, ast.If)):
        yield ast.Pass()
        if isinstance(node, ast.If):
            yield from node.body[:1]


def _with_value(node: ast.stmt, value: ast.expr) -> ast.stmt:
    if isinstance(node, ast.Return):
        return ast.Return(value)
    if isinstance(node, ast.Assign):
        return ast.Assign(node.targets, value, lineno=node.lineno)
    assert isinstance(node, ast.AugAssign)
    return ast.AugAssign(node.target, node.op, value)


def _transposed(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Attribute) and node.attr == "T" else ast.Attribute(node, "T", ast.Load())
