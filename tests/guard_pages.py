"""Runs kernels and networks with every array between guard pages; a program of its own, since a fault ends it.

    python tests/guard_pages.py FOLDER {kernels,networks,products} SEED CASES

FOLDER holds the module that `build` makes of guard_pages.c, and gets a file with the case that is running. Arrays
that compiled code makes are guarded as NumPy's are.
"""
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_suffix(".c")
SIDES = {"n": (0, 1, 2, 3, 5, 8, 17, 33), "i": (0, 1, 2, 3, 5, 8, 16, 17, 33, 64, 100, 257), "c": (0, 1, 2, 3, 5, 8, 16, 17, 33),
         "r": (0, 1, 2, 3, 5, 8, 9, 13), "h": (1, 3, 3, 5)}
ALIKE = {"o": "i", "t": "c", "k": "r"}
READ = ("C", "F", "gaps", "reversed", "repeated", "unaligned", "read-only", "permuted")
WRITTEN = ("C", "F", "gaps", "reversed", "permuted")


def build(folder: Path) -> str | None:
    """Compile guard_pages.c into a folder; what is missing for that, or None."""
    if os.name == "nt":
        return "mmap is missing"
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return "there is no C compiler"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    includes = [f"-I{sysconfig.get_path('include')}", f"-I{np.get_include()}"]
    special = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    result = subprocess.run([compiler, "-O2", "-shared", "-fPIC", *includes, str(SOURCE), "-o",
                             str(folder / f"guard_pages_c{suffix}"), *special], capture_output=True, text=True)
    if result.returncode and not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing"
    assert result.returncode == 0, result.stderr
    return None


def laid_out(rng, values, layout):
    """The same numbers in memory that ends where the last element ends, and begins where the first begins."""
    ndim, size = values.ndim, values.itemsize
    axes = {"F": range(ndim), "permuted": rng.permutation(ndim)}.get(layout, range(ndim)[::-1])  # the innermost first
    step, strides = size * (3 if layout == "gaps" else 1), [0] * ndim
    for axis in axes:
        if layout == "repeated" and rng.random() < 0.6:
            continue
        strides[axis] = step
        step *= max(1, values.shape[axis])
    if values.size == 0:
        return np.empty(values.shape, values.dtype)
    span = sum((side - 1) * stride for side, stride in zip(values.shape, strides, strict=True)) + size
    odd = int(layout == "unaligned")
    array = np.ndarray(values.shape, values.dtype, np.empty(span + odd, np.uint8), odd, strides)
    if layout == "reversed":
        array = array[(slice(None, None, -1),) * ndim]
    array[...] = values
    array.flags.writeable = layout != "read-only"
    return array


def run_kernel(rng, name, sizes, dtype, guard):
    """Call a kernel with arrays in random layouts, and compare with its naive twin."""
    from fastnet.kernels import naive
    from kernel_calls import KERNELS, SIGNATURES, operands

    signature = SIGNATURES[name]
    contiguous = signature.contiguous or name == "syrk"
    outputs, inputs = operands(rng, name, sizes, dtype)
    guard.on(rng.random() < 0.5)
    inputs = [laid_out(rng, a, READ[rng.integers(len(READ))]) for a in inputs]
    outputs = [laid_out(rng, a, "C" if contiguous else WRITTEN[rng.integers(len(WRITTEN))]) for a in outputs]
    got = KERNELS[name](*outputs, *inputs, *signature.numbers)
    if name == "pack":
        got, outputs = None, [np.empty(0)]
        KERNELS["matmul"](np.empty((3, sizes["o"]), dtype), np.ones((3, sizes["i"]), dtype), KERNELS["pack"](*inputs))
    guard.off()
    results, given = [np.array(a) for a in outputs], [np.array(a) for a in inputs]
    del outputs, inputs
    if name == "pack":
        return
    expected = [np.full(a.shape, np.nan) for a in results]
    right = getattr(naive, name)(*expected, *given, *signature.numbers)
    terms = 1 + max(sizes["i"], sizes["o"], sizes["n"], (sizes["c"] + sizes["t"]) * sizes["h"] ** 2,
                    sizes["n"] * sizes["r"] * sizes["k"])
    tolerance = 100 * terms * np.finfo(dtype).eps
    assert (got is None and right is None) or np.isclose(got, right, rtol=1e-4, atol=1e-4, equal_nan=True), (got, right)
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def kernels(seed, cases, guard, note):
    """Random calls of every public kernel in turn."""
    from kernel_calls import SIGNATURES, SIZES

    names = list(SIGNATURES)
    for number in range(seed, seed + cases):
        rng = np.random.default_rng(number)
        name, dtype = names[number % len(names)], (np.float32, np.float64)[rng.integers(2)]
        sizes = {letter: int(rng.choice(SIDES[ALIKE.get(letter, letter)])) for letter in SIZES}
        note(f"case {number}: {name} of {np.dtype(dtype)}, {sizes}")
        run_kernel(rng, name, sizes, dtype, guard)


def networks(seed, cases, guard, note):
    """The random stacks of test_stacks.py, in every engine."""
    import test_stacks

    for number in range(seed, seed + cases):
        note(f"stacks.case({number})")
        guard.on(number % 2)
        found = list(test_stacks.faults(number))
        guard.off()
        assert not found, found


def products(seed, cases, guard, note):
    """Products that are large enough for zeros to be left out."""
    from fastnet.kernels.gemm import matmul, pack

    for number in range(seed, seed + cases):
        rng = np.random.default_rng(number)
        m, n, k = (int(rng.integers(*bounds)) for bounds in ((60, 200), (70, 300), (64, 400)))
        dtype = (np.float32, np.float64)[rng.integers(2)]
        a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (1, n)))
        a[rng.random(a.shape) < rng.choice([0.3, 0.6, 0.99])] = 0
        note(f"case {number}: {m}, {n}, {k}, {dtype}")
        guard.on(rng.random() < 0.5)
        here = [laid_out(rng, x, ("C", "F", "read-only", "unaligned")[rng.integers(4)]) for x in (a, b)]
        c = laid_out(rng, np.zeros((m, n), dtype), ("C", "gaps")[rng.integers(2)])
        matmul(c, here[0], pack(here[1]) if rng.random() < 0.3 else here[1], bias=bias)
        guard.off()
        np.testing.assert_allclose(c, a.astype(float) @ b + bias, rtol=0, atol=1e-4)


def guard_numba(guard):
    """Guard the arrays that compiled code makes, in code that is compiled or loaded from now on."""
    from llvmlite import binding
    from numba.core.registry import cpu_target
    from numba.core.runtime import _nrt_python, rtsys

    rtsys.initialize(cpu_target.target_context)
    for name in ("alloc_aligned", "alloc_safe_aligned"):
        binding.add_symbol(f"NRT_MemInfo_{name}", guard.numba(_nrt_python.c_helpers["get_api"]))


def main(folder, what, seed, cases):
    """Run so many cases, and say how many arrays were guarded."""
    sys.path.insert(0, folder)
    import guard_pages_c as guard

    guard_numba(guard)
    log = os.open(os.path.join(folder, f"{what}.case"), os.O_RDWR | os.O_CREAT)

    def note(text):
        os.pwrite(log, text.encode().ljust(1000), 0)

    with np.errstate(all="ignore"):
        {"kernels": kernels, "networks": networks, "products": products}[what](int(seed), int(cases), guard, note)
    print(f"{cases} cases, {guard.count()} arrays, {guard.count_of_numba()} of them made by compiled code")


if __name__ == "__main__":
    main(*sys.argv[1:])
