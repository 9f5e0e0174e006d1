"""Is any correct layer blamed? Rewrites of correct layers, made by a program: other words for the same numbers."""
import ast
import contextlib
import copy
import io
import random

from fastnet.check._diagnose import diagnose
from fastnet.check._source import Source
from tests import check_mutants as mutants

KEPT = {"W", "b", "W_grad", "w_grad", "b_grad", "layers", "loss", "forward", "backward", "update_param", "update_params", "fit",
        "predict", "__init__", "size", "h", "n_i", "n_o"}


def expression(text):
    return ast.parse(text, mode="eval").body


def _named(node, *names):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names and ast.unparse(node.func.value) == "np"


def expressions(node, rng):
    """Other expressions of the same value."""
    u = ast.unparse
    if isinstance(node, ast.BinOp):
        a, b = u(node.left), u(node.right)
        if isinstance(node.op, ast.Mult):
            yield f"({b}) * ({a})"
            yield f"np.multiply({a}, {b})"
        if isinstance(node.op, ast.Add):
            yield f"({b}) + ({a})"
            yield f"({a}) - (-({b}))"
        if isinstance(node.op, ast.Sub):
            yield f"-(({b}) - ({a}))"
            yield f"np.subtract({a}, {b})"
        if isinstance(node.op, ast.Div):
            yield f"({a}) * (1.0 / ({b}))"
            yield f"np.true_divide({a}, {b})"
        if isinstance(node.op, ast.MatMult):
            yield f"np.dot({a}, {b})"
            yield f"np.array([[np.sum(row * column) for column in ({b}).T] for row in {a}])"
    if _named(node, "dot") and len(node.args) == 2 and not node.keywords:
        a, b = map(u, node.args)
        yield f"({a}) @ ({b})"
        yield f"np.matmul({a}, {b})"
        yield f"np.einsum('ij,jk->ik', {a}, {b})"
        yield f"np.tensordot({a}, {b}, 1)"
        yield f"np.array([[sum(p * q for p, q in zip(row, column)) for column in ({b}).T] for row in {a}])"
        yield f"np.sum(({a})[:, :, None] * ({b})[None, :, :], axis=1)"
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield f"np.transpose({u(node.value)})"
        yield f"np.swapaxes({u(node.value)}, 0, 1)"
    if _named(node, "sum", "max", "mean", "argmax") and node.args:
        method = ast.Call(ast.Attribute(node.args[0], node.func.attr, ast.Load()), node.args[1:], node.keywords)
        yield f"({u(node.args[0])}).{u(method).split('.')[-1]}" if not node.args[1:] and not node.keywords else u(method)
    if _named(node, "sum") and [k.arg for k in node.keywords] == ["axis"] and isinstance(node.keywords[0].value, ast.Constant):
        yield f"np.add.reduce({u(node.args[0])}, axis={u(node.keywords[0].value)})"
    if _named(node, "maximum") and u(node.args[1]) == "0":
        x = u(node.args[0])
        yield from (f"np.where({x} > 0, {x}, 0)", f"({x}) * ({x} > 0)", f"(np.abs({x}) + {x}) / 2", f"np.clip({x}, 0, None)",
                    f"np.fmax({x}, 0.0)", f"np.where({x} <= 0, 0, {x})", f"({x}).clip(min=0)")
    if _named(node, "exp"):
        yield f"np.e ** ({u(node.args[0])})"
        yield f"np.power(np.e, {u(node.args[0])})"
    if _named(node, "log"):
        x = u(node.args[0])
        yield from (f"np.log({x} + 1e-12)", f"np.log(np.maximum({x}, 1e-15))", f"np.log(np.clip({x}, 1e-12, 1))", f"np.log2({x}) * np.log(2)",
                    f"np.log({x} + 1e-9)", f"-np.log(1 / ({x}))")
    if _named(node, "max") and any(k.arg == "axis" for k in node.keywords) and any(k.arg == "keepdims" for k in node.keywords):
        yield f"np.max({u(node.args[0])})"  # as (3.16) is printed
        yield f"np.amax({u(node.args[0])}, axis=1)[:, None]"
        yield f"np.max({u(node.args[0])}, axis=-1).reshape(-1, 1)"
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Gt):
        yield f"({u(node.comparators[0])}) < ({u(node.left)})"
        yield f"np.greater({u(node.left)}, {u(node.comparators[0])})"
        yield f"np.logical_not({u(node.left)} <= {u(node.comparators[0])})"
    if isinstance(node, ast.Subscript) and u(node).endswith(".shape[0]"):
        yield f"len({u(node)[:-9]})"
    if u(node) in ("np.zeros((1, n_o))",):
        yield from ("np.zeros(n_o)", "np.zeros([1, n_o])", "0.01 * np.zeros((1, n_o))", "np.full((1, n_o), 0.0)", "np.array([[0.0] * n_o])")
    if _named(node, "sqrt"):
        yield f"({u(node.args[0])}) ** 0.5"
    if u(node).startswith("np.random.normal(0, "):
        yield u(node).replace("np.random.normal(0, ", "np.random.normal(0.0, ", 1)
        if isinstance(node, ast.Call) and len(node.args) == 3:
            scale, shape = u(node.args[1]), u(node.args[2])
            yield f"np.random.standard_normal({shape}) * ({scale})"
            yield f"np.random.uniform(-3 ** 0.5, 3 ** 0.5, {shape}) * ({scale})"
    if u(node) == "reversed(self.layers)":
        yield "self.layers[::-1]"
        yield "[self.layers[i] for i in range(len(self.layers) - 1, -1, -1)]"


def statements(node, rng):
    """Other statements to the same effect."""
    n = rng.randrange(1000)
    text = ast.unparse(node)
    if isinstance(node, ast.Return) and node.value is not None:
        yield f"result_{n} = {ast.unparse(node.value)}\nreturn result_{n}"
        if "forward" not in text and "loss" not in text and "layer" not in text:
            yield f"return np.array({ast.unparse(node.value)})"
            yield f"return np.asarray({ast.unparse(node.value)}).astype(np.float32)"
            yield f"out_{n} = np.array({ast.unparse(node.value)}, dtype=np.float64)\nreturn out_{n}"
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], (ast.Name, ast.Attribute)):
        target, value = ast.unparse(node.targets[0]), ast.unparse(node.value)
        yield f"temporary_{n} = {value}\n{target} = temporary_{n}"
        if value.startswith(target + " - "):
            yield f"{target} -= {value[len(target) + 3:]}"
            yield f"{target} = np.subtract({target}, {value[len(target) + 3:]})"
        if value in ("x", "t"):
            yield f"{target} = {value}.copy()"
            yield f"{target} = np.asarray({value}, dtype=float)"
        yield f"{text}\nself.count_{n} = getattr(self, 'count_{n}', 0) + 1"
        yield f"if True:\n    {text}"
    if isinstance(node, ast.AugAssign):
        target, value = ast.unparse(node.target), ast.unparse(node.value)
        op = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}[type(node.op)]
        yield f"{target} = {target} {op} ({value})"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"unused_{n} = {text}"
        yield f"print('step')\n{text}"


class _Rename(ast.NodeTransformer):
    def __init__(self, names, attributes):
        self.names, self.attributes = names, attributes

    def visit_Name(self, node):
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            node.attr = self.attributes.get(node.attr, node.attr)
        return node


def renamed(klass, rng):
    """Other names of what a method keeps for itself, and of what the object keeps."""
    methods = {n.name for n in klass.body if isinstance(n, ast.FunctionDef)}
    held = {n.attr for n in ast.walk(klass) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
            and isinstance(n.value, ast.Name) and n.value.id == "self"} - KEPT - methods
    words = ["cache", "inputs", "stored", "memory", "last", "value", "tmp", "kept", "data_in", "a_prev"]
    rng.shuffle(words)
    attributes = {name: f"{word}_{name}" for name, word in zip(sorted(held), words)}
    for method in [n for n in klass.body if isinstance(n, ast.FunctionDef)]:
        local = {n.id for n in ast.walk(method) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        local -= {a.arg for a in method.args.args}
        _Rename({name: f"{name}_{rng.choice('abcdefg')}" for name in local}, attributes).visit(method)


def rewrite(tree, rng):
    """Change a class in one to four places, keeping its results; whether anything was changed."""
    klass = tree.body[-1]
    changed = rng.random() < 0.3
    if changed:
        renamed(klass, rng)
    for _ in range(rng.randint(1, 4)):
        sites = []
        for parent in ast.walk(klass):
            for field, value in ast.iter_fields(parent):
                for i, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                    if isinstance(node, ast.expr) and not isinstance(getattr(node, "ctx", None), ast.Store):
                        sites += [(parent, field, i, new, True) for new in expressions(node, rng)]
                    elif isinstance(node, ast.stmt) and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                        sites += [(parent, field, i, new, False) for new in statements(node, rng)]
        if not sites:
            return changed
        parent, field, i, new, is_expression = rng.choice(sites)
        try:
            made = [expression(new)] if is_expression else ast.parse(new).body
        except SyntaxError:
            continue
        if i is None:
            setattr(parent, field, made[0])
        else:
            getattr(parent, field)[i:i + 1] = made
        changed = True
    return changed


def run(n, seed=0):
    """Try n rewrites; returns how many were tried, and those that were blamed."""
    rng, own, tried, blamed, seen = random.Random(seed), mutants.own_classes(), 0, [], set()
    sources = list(mutants.classes())
    originals = {(style, stem): mutants.results(stem, mutants.made(tree, stem)[0], own[style]) for style, stem, tree in sources}
    while tried < n:
        style, stem, tree = rng.choice(sources)
        tree = copy.deepcopy(tree)
        if not rewrite(tree, rng):
            continue
        try:
            klass, text = mutants.made(tree, stem)
            with mutants.at_most(20):
                if text in seen or not mutants.equal(mutants.results(stem, klass, own[style]), originals[style, stem]):
                    continue
        except (SyntaxError, NameError, TypeError, mutants.Endless):
            continue
        seen.add(text)
        tried += 1
        with contextlib.redirect_stdout(io.StringIO()):
            found = diagnose(stem, klass, Source(text, f"{stem}.py", mutants.STEMS[stem]), own[style], images=True)
        if found.faults:
            blamed.append((style, stem, text, found.faults[0]))
    return tried, blamed


if __name__ == "__main__":
    import sys

    count, wrong = run(int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"{count} rewrites, {len(wrong)} blamed")
    for style, stem, _text, fault in wrong[:20]:
        print("----", style, stem, fault.method, fault.quantity, fault.message, fault.slip, fault.line, fault.source)
