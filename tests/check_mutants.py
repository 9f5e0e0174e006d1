"""Does fastnet check lead from a wrong layer to what is wrong? ``python -m tests.check_mutants``

Correct layers of several styles (``check_styles/``) are changed by a program: one change of the syntax tree each. Half of
the kinds of change are slips that the checker knows; the others are slips that it was not written for. A mutant counts if
it changes a result, which a judge of its own decides, on inputs that the checker does not use. Correct rewrites are made
by changes that keep every result. The table that is printed stands in ``check_mutants.md``.
"""
import argparse
import ast
import collections
import concurrent.futures
import contextlib
import copy
import io
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from fastnet.check import _reference
from fastnet.check._diagnose import diagnose
from fastnet.check._source import Source

STYLES = Path(__file__).parent / "check_styles"
STEMS = {**_reference.NAMES, **_reference.NEXT}
METHODS = ("__init__", "forward", "backward", "update_param", "update_params", "fit", "predict")


class Endless(KeyboardInterrupt):
    """A mutant does not come to an end."""


# --- classes of a style, and their code -----------------------------------------------------------------------------------


def classes():
    """(style, stem, module with this class alone, own classes) of every class."""
    for path in [*sorted(STYLES.glob("*.py")), STYLES.parent / "dropin_scripts" / "layers"]:
        files = [path] if path.is_file() else [path / f"{stem}.py" for stem in STEMS]
        for file in files:
            tree = ast.parse(file.read_text())
            shared = [node for node in tree.body if not isinstance(node, ast.ClassDef)]
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    stem = next(stem for stem, name in STEMS.items() if name == node.name)
                    yield path.stem, stem, ast.Module([*shared, node], [])


def made(tree, stem):
    """The class of a module, and its text."""
    text = ast.unparse(ast.fix_missing_locations(tree))
    names = {"__name__": "layers." + stem}
    exec(compile(text, f"{stem}.py", "exec"), names)
    return names[STEMS[stem]], text


# --- mutants ----------------------------------------------------------------------------------------------------------------

KNOWN = {"compare", "plus/minus", "times/divide", "transpose", "axis", "reduction", "negate", "drop operand", "accumulate",
         "forget", "exchange arguments", "one more or less", "mask or argument"}


def mutations(tree):
    """Change a class in place, one change at a time; yields (kind, method)."""
    klass = tree.body[-1]
    for method in [node for node in klass.body if isinstance(node, ast.FunctionDef)]:
        for parent in list(ast.walk(method)):
            for field, value in list(ast.iter_fields(parent)):
                if isinstance(value, list):
                    for i, node in enumerate(list(value)):
                        for kind, new in changes(node, parent, field, method):
                            value[i:i + 1] = new if isinstance(new, list) else [new]
                            yield kind, method.name
                            value[i:i + len(new) if isinstance(new, list) else i + 1] = [node]
                elif isinstance(value, ast.AST):
                    for kind, new in changes(value, parent, field, method):
                        if not isinstance(new, list):
                            setattr(parent, field, new)
                            yield kind, method.name
                            setattr(parent, field, value)


def call(name, node, *more):
    return ast.Call(ast.parse(name, mode="eval").body, [node, *more], [])


def parsed(text):
    return ast.parse(text, mode="eval").body


def changes(node, parent, field, method):
    if isinstance(node, ast.stmt):
        yield from of_statement(node, parent, method)
    if not isinstance(node, ast.expr) or (field in ("func", "args", "defaults", "kw_defaults", "decorator_list") and parent is method):
        return
    if isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)) or isinstance(parent, ast.arguments):
        return
    yield from of_expression(node, parent, field, method)


def of_expression(node, parent, field, method):
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
        if type(node.ops[0]) in other:
            yield "compare", ast.Compare(node.left, [other[type(node.ops[0])]()], node.comparators)
        yield "condition always true", ast.Constant(True)
        yield "condition always false", ast.Constant(False)
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, (ast.Add, ast.Sub)):
            yield "plus/minus", ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
        if isinstance(node.op, (ast.Mult, ast.Div)):
            yield "times/divide", ast.BinOp(node.left, ast.Div() if isinstance(node.op, ast.Mult) else ast.Mult(), node.right)
        yield "drop operand", node.left
        yield "power", ast.BinOp(node, ast.Pow(), ast.Constant(2))
        yield "complement", ast.BinOp(ast.Constant(1), ast.Sub(), node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "negate", node.operand
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield "transpose", node.value
    if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(parent, (ast.BinOp, ast.Call)) and field != "func":
        if not (isinstance(node, ast.Name) and node.id in ("self", "np", "F", "math", "float", "int", "layer")):
            yield "transpose", ast.Attribute(node, "T", ast.Load())
            yield "absolute value", call("np.abs", node)
            yield "rounded", call("np.round", node)
            yield "reversed rows", parsed(f"({ast.unparse(node)})[::-1]")
            yield "rolled", call("np.roll", node, ast.Constant(1))
            for name in [a.arg for a in method.args.args if a.arg != "self"]:
                if ast.unparse(node) != name:
                    yield "mask or argument", ast.Name(name, ast.Load())
    if isinstance(node, ast.Call) and not (isinstance(parent, ast.For) and field == "iter"):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for a, b in (("sum", "mean"), ("max", "min"), ("maximum", "minimum"), ("argmax", "argmin"), ("mean", "sum"), ("zeros", "ones")):
            if name == a and isinstance(node.func, ast.Attribute):
                yield "reduction", ast.Call(ast.Attribute(node.func.value, b, ast.Load()), node.args, node.keywords)
        for k, keyword in enumerate(node.keywords):
            if keyword.arg == "axis" and isinstance(keyword.value, ast.Constant):
                rest = [*node.keywords[:k], ast.keyword("axis", ast.Constant(1 - keyword.value.value if keyword.value.value in (0, 1) else 0)), *node.keywords[k + 1:]]
                yield "axis", ast.Call(node.func, node.args, rest)
            if keyword.arg in ("axis", "keepdims"):
                yield "axis", ast.Call(node.func, node.args, [*node.keywords[:k], *node.keywords[k + 1:]])
        if name in ("dot", "where", "matmul") and len(node.args) > 1:
            args = [node.args[1], node.args[0]] if name != "where" else [node.args[0], *node.args[:0:-1]]
            yield "exchange arguments", ast.Call(node.func, args, node.keywords)
        if name in ("dot", "exp", "log", "sum", "einsum", "maximum"):
            yield "square root of the absolute value", call("np.sqrt", call("np.abs", node))
            yield "cut off", call("np.clip", node, ast.Constant(-0.5), ast.Constant(0.5))
            yield "sorted", call("np.sort", node)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "one more or less", ast.Constant(node.value + 1)
        if node.value > 0:
            yield "one more or less", ast.Constant(node.value - 1)
            yield "half as much again", ast.Constant(node.value * 1.5)
    if (isinstance(node, ast.Name) and field == "upper") or (isinstance(node, ast.Name) and isinstance(parent, ast.Slice)):
        yield "index moved", parsed(f"{node.id} + 1")
    if isinstance(parent, (ast.Return, ast.Assign)) and field == "value" and not isinstance(node, (ast.Constant, ast.Tuple, ast.List)):
        yield "negate", ast.UnaryOp(ast.USub(), node)
        yield "whole numbers", ast.parse(f"np.asarray({ast.unparse(node)}).astype(int)", mode="eval").body
        yield "tanh", call("np.tanh", node)
        yield "running sum", call("np.cumsum", node)


def of_statement(node, parent, method):
    first = ast.unparse(node) if isinstance(node, (ast.Assign, ast.AugAssign)) else ""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        if (first.startswith("self.") and "grad" in first.split("=")[0]) or isinstance(node.targets[0], ast.Subscript):
            yield "accumulate", [ast.If(parsed(f"getattr(self, '_seen_{node.lineno}', False)"), [ast.AugAssign(node.targets[0], ast.Add(), node.value)], [node]),
                                 ast.parse(f"self._seen_{node.lineno} = True").body[0]] if first.startswith("self.") else ast.AugAssign(node.targets[0], ast.Add(), node.value)
        if first.startswith("self.") and method.name == "forward":
            yield "forget", ast.Pass()
            yield "kept from the first call only", ast.If(parsed(f"getattr(self, '_seen_{node.lineno}', None) is None"),
                                                          [node, ast.parse(f"self._seen_{node.lineno} = 1").body[0]], [])
        else:
            yield "statement left out", ast.Pass()
    if isinstance(node, ast.AugAssign):
        other = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
        yield "plus/minus", ast.AugAssign(node.target, other[type(node.op)](), node.value)
        yield "accumulate", ast.Assign([node.target], node.value, lineno=node.lineno)
        yield "statement repeated", [node, node]
        yield "statement left out", ast.Pass()
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement repeated", [node, node]
        yield "statement left out", ast.Pass()
    if isinstance(node, ast.For):
        yield "loop ends after one turn", ast.For(node.target, node.iter, [*node.body, ast.Break()], node.orelse, lineno=node.lineno)
        yield "first turn left out", ast.For(node.target, parsed(f"list({ast.unparse(node.iter)})[1:]"), node.body, node.orelse, lineno=node.lineno)
        yield "last turn left out", ast.For(node.target, parsed(f"list({ast.unparse(node.iter)})[:-1]"), node.body, node.orelse, lineno=node.lineno)
        if len(node.body) > 1:
            yield "statements exchanged", ast.For(node.target, node.iter, [node.body[1], node.body[0], *node.body[2:]], node.orelse, lineno=node.lineno)
    if isinstance(node, ast.If) and not node.orelse:
        yield "condition left out", list(node.body)
    if isinstance(node, ast.Return) and isinstance(node.value, (ast.Name, ast.Attribute, ast.BinOp)) and method.name != "__init__":
        yield "first row only", ast.Return(parsed(f"({ast.unparse(node.value)})[:1]"))
        yield "nothing returned", ast.Return(None)


# --- the judge --------------------------------------------------------------------------------------------------------------


def results(stem, klass, own):
    """What a class gives on inputs of the judge's own; an exception is a result too."""
    rng, out = np.random.RandomState(42), []

    def note(value):
        out.append(value.copy() if isinstance(value, np.ndarray) else value)

    def attempt(function):
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                function()
        except Endless:
            raise
        except Exception as error:
            out.append(type(error).__name__)

    def layer_passes(args, shape):
        layer = klass(*args)
        if hasattr(layer, "W"):
            note(np.shape(layer.W))
            layer.W = rng.normal(size=np.shape(layer.W))
            layer.b = rng.normal(size=np.shape(layer.b)) if np.shape(layer.b) else 0
        for extra in (0, 1, 1):
            x = np.round(rng.normal(size=(shape[0] + extra, *shape[1:])), 1)
            x.flat[::5] = 0
            y = layer.forward(x.copy())
            note(y)
            note(layer.backward(rng.normal(size=np.shape(y))))
            for name in ("W_grad", "w_grad", "b_grad"):
                grad = getattr(layer, name, None)
                note(np.ravel(grad) if name == "b_grad" else grad)
            if hasattr(layer, "W"):
                getattr(layer, "update_param", None)(0.3) if hasattr(layer, "update_param") else layer.update_params(0.3)
                note(layer.W), note(np.ravel(layer.b))

    def initial():
        np.random.seed(7)
        layer = klass(250, 150)
        std = float(np.std(layer.W))  # three readings of (3.12) are accepted
        note(0.0707 if min(abs(std / value - 1) for value in (0.0707, 0.2659, 0.005)) < 0.05 else round(std, 3)), note(np.abs(np.mean(layer.W)) < 0.01), note(np.max(np.abs(layer.b)) > 0)

    if stem == "sequential":
        for n, size in ((23, 8), (16, 8), (5, 128)):
            def model(n=n, size=size):
                layers = [own["FullLayer"](6, 5), own["ReluLayer"](), own["FullLayer"](5, 3), own["SoftMaxLayer"]()]
                for i, layer in enumerate(layers):
                    if hasattr(layer, "W"):
                        layer.W = np.random.RandomState(i).normal(size=np.shape(layer.W))
                net = klass(tuple(layers), own["CrossEntropyLayer"]())
                x, t = rng.normal(size=(n, 6)), np.eye(3)[rng.randint(0, 3, n)]
                note(net.forward(x)), note(net.predict(x)), note(net.forward(x, t)), note(net.backward())
                getattr(net, "update_param", getattr(net, "update_params", None))(0.2)
                note(layers[0].W), note(layers[2].W)
                note(net.fit(x, t, epochs=3, lr=0.2, batch_size=size)), note(layers[0].W), note(layers[2].W)
            attempt(model)
    elif stem == "cross_entropy":
        for n, k in ((4, 3), (1, 6), (3, 3)):
            def loss(n=n, k=k):
                layer = klass()
                for extra in (0, 1):
                    z = np.exp(rng.normal(size=(n + extra, k)))
                    z /= z.sum(axis=1, keepdims=True)
                    note(layer.forward(z.copy(), np.eye(k)[rng.randint(0, k, n + extra)]))
                    note(layer.backward())
            attempt(loss)
    else:
        shapes = {"full": [((6, 4), (3, 6)), ((3, 5), (1, 3)), ((3, 3), (3, 3))], "relu": [((), (4, 5)), ((), (2, 2, 3, 4))],
                  "softmax": [((), (4, 6)), ((), (3, 3)), ((), (1, 2))], "conv": [((2, 4, 3), (2, 2, 4, 6)), ((1, 2, 5), (1, 1, 6, 5))],
                  "maxpool": [((2,), (2, 2, 5, 6)), ((3,), (1, 2, 7, 6))], "flatten": [((), (2, 3, 2, 5))]}
        for args, shape in shapes[stem]:
            attempt(lambda args=args, shape=shape: layer_passes(args, shape))
        if stem == "full":  # how ConvLayer's weights are drawn is not said
            attempt(initial)
    return out


def equal(a, b):
    if len(a) != len(b):
        return False
    for x, y in zip(a, b):
        try:
            p, q = np.asarray(x, float), np.asarray(y, float)
        except (TypeError, ValueError):
            if not (x is y or (type(x) is type(y) and x == y)):
                return False
            continue
        if x is None or y is None:
            if x is not y:
                return False
        elif p.size != q.size or not np.allclose(p.ravel(), q.ravel(), rtol=1e-4, atol=1e-5 * max(1e-30, np.max(np.abs(q), initial=0)), equal_nan=True):
            return False
        elif p.shape != q.shape and p.ndim > 1:
            return False
    return True


# --- the trial --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def at_most(seconds):
    """Raise Endless in code that takes more processor time (where the system can)."""
    def stop(*_):
        raise Endless

    if hasattr(signal, "SIGVTALRM"):
        before = signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        if hasattr(signal, "SIGVTALRM"):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)


def all_mutants(wanted=None):
    """(style, stem, kind, method, module) of every mutant, changed or not; of those wanted, by their number, the module."""
    number = 0
    for style, stem, tree in classes():
        for kind, method in mutations(tree):
            taken = wanted is None or number in wanted
            yield style, stem, kind, method, copy.deepcopy(tree) if taken and wanted != () else None
            number += 1


def own_classes():
    return {style: {STEMS[s]: made(tree, s)[0] for st, s, tree in all_ if st == style}
            for all_ in [list(classes())] for style in {st for st, _, _ in all_}}


def trial(style, stem, kind, method, tree, own, originals):
    """What the checker says about a mutant: None if it changes nothing, else a dict."""
    try:
        with at_most(20):
            klass, text = made(tree, stem)
            if equal(results(stem, klass, own), originals[style, stem]):
                return None
    except (Endless, RecursionError, SyntaxError, MemoryError):
        return None
    try:
        with at_most(20), contextlib.redirect_stdout(io.StringIO()):
            start = time.process_time()
            found = diagnose(stem, klass, Source(text, f"{stem}.py", STEMS[stem]), own, images=True)
            seconds = time.process_time() - start
    except Endless:  # fastnet check ends its process, and says where it was: test_check tries that
        return None
    equations = _reference.EQUATIONS[stem]
    truth = {method.replace("update_params", "update_param")}
    if method not in METHODS:  # a helper: those that call it
        klass_node = tree.body[-1]
        truth = {m.name.replace("update_params", "update_param") for m in klass_node.body if isinstance(m, ast.FunctionDef)
                 and f"self.{method}(" in ast.unparse(m)}
    first = found.faults[0] if found.faults else None
    return {"differs": bool(found.faults), "method": bool(first) and first.method in truth,
            "named": bool(first) and (first.equation in {e.number for e in equations.values() if e.method in truth}
                                   or (first.method in truth and bool(first.repair or (first.slip and "forward" in first.slip)))),
            "slip": bool(first) and bool(first.slip or first.repair), "seconds": seconds,
            "line": bool(first) and first.source != "" and first.line in _changed_lines(text, style, stem), "first": first}


_ORIGINAL_TEXT = {}


def _changed_lines(text, style, stem):
    original = _ORIGINAL_TEXT[style, stem].splitlines()
    lines = text.splitlines()
    start = next((i for i, (a, b) in enumerate(zip(lines, original)) if a != b), min(len(lines), len(original)))
    return range(start, start + max(3, len(lines) - len(original) + 3))


def run(chosen, show=False):
    """Try the mutants; returns the counts by (family, kind)."""
    own = own_classes()
    originals = {}
    for style, stem, tree in classes():
        klass, _ORIGINAL_TEXT[style, stem] = made(tree, stem)
        originals[style, stem] = results(stem, klass, own[style])
    table = collections.defaultdict(collections.Counter)
    for style, stem, kind, method, tree in chosen:
        result = trial(style, stem, kind, method, tree, own[style], originals)
        if result is None:
            continue
        row = table["known" if kind in KNOWN else "other", kind]
        row["changed"] += 1
        for name in ("differs", "method", "named", "slip", "line"):
            row[name] += result[name]
        row["ms"] += 1000 * result["seconds"]
        if show and not (result["differs"] and result["method"] and result["named"]):
            print(style, stem, kind, method, {k: v for k, v in result.items() if k != "first"}, result["first"], flush=True)
            original = _ORIGINAL_TEXT[style, stem].splitlines()
            print("\n".join(f"    {line}" for line in made(tree, stem)[1].splitlines() if line not in original))
    return table


def sample(n_known, n_other, seed=0):
    """Mutants, in an order that a seed decides."""
    kinds = [kind for _, _, kind, _, _ in all_mutants(())]
    order = list(range(len(kinds)))
    random.Random(seed).shuffle(order)
    wanted = {*[i for i in order if kinds[i] in KNOWN][:n_known], *[i for i in order if kinds[i] not in KNOWN][:n_other]}
    return [mutant for mutant in all_mutants(wanted) if mutant[4] is not None], len(kinds)


def lines_of(table, rewrites=None):
    """The table, in Markdown."""
    def line(name, row):
        n = row["changed"]
        shares = " | ".join(f"{row[key]} ({row[key] / n:.1%})" for key in ("differs", "method", "named", "line"))
        return f"| {name} | {n} | {shares} | {row['ms'] / n:.0f} |"

    yield "| change | mutants | differs | right method | slip or equation named | right line | ms of processor time each |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for family, text in (("known", "kinds that the checker knows"), ("other", "kinds that it was not written for")):
        yield line(f"**{text}**", sum((row for (f, _), row in table.items() if f == family), collections.Counter()))
        yield from (line(kind, row) for (f, kind), row in sorted(table.items()) if f == family)
    yield line("**all**", sum(table.values(), collections.Counter()))
    if rewrites is not None:
        yield f"\nCorrect rewrites: {rewrites[0]}, of which {len(rewrites[1])} are blamed."


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, default=740)
    parser.add_argument("--other", type=int, default=500)
    parser.add_argument("--rewrites", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--show", action="store_true", help="print mutants that are not led to the right place")
    given = parser.parse_args(argv)
    chosen, total = sample(given.known, given.other, given.seed)
    print(f"`python -m tests.check_mutants --known {given.known} --other {given.other} --rewrites {given.rewrites} --seed {given.seed}`: "
          f"of {total} mutants that can be made, {len(chosen)} were tried; those that change no result are left out.\n", flush=True)
    table = collections.defaultdict(collections.Counter)
    with concurrent.futures.ProcessPoolExecutor(given.jobs, initializer=getattr(os, "setsid", None)) as pool:
        parts = [chosen[i::40] for i in range(40)]
        for done in concurrent.futures.as_completed([pool.submit(run, part, given.show) for part in parts]):
            for key, row in done.result().items():
                table[key] += row
            if given.show:
                print("\n".join(lines_of(table)), flush=True)
    from tests import check_rewrites

    print("\n".join(lines_of(table, check_rewrites.run(given.rewrites, given.seed))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
