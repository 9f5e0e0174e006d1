"""Makes a wheel that carries compiled kernels from the pure wheel, for this system, CPU architecture and Python.

    python .github/scripts/compiled_wheel.py dist/fastnet_kernels-0.1.0-py3-none-any.whl --to dist

The wheel is installed in an environment of its own, where one process runs every kernel for the highest level of CPU that
this machine satisfies, and one process a level compiles the same kernels without running them. So the machine need not have
the instructions of each level. `fastnet.kernels.codegen.carried` has the levels, and says how the files are used.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

MOST_BYTES = 20_000_000  # of the wheel

# All kernels by name: those that compiled code calls by address, and those that Python calls
KNOWN = """
import gc, importlib, pickle, pkgutil, sys
from fastnet import kernels
from fastnet.kernels.codegen.jit import Kernel
from fastnet.kernels.codegen.linking import separate_kernels
for found in pkgutil.walk_packages(kernels.__path__, "fastnet.kernels."):
    importlib.import_module(found.name)

def called_from_python():
    return {f"{k.py_func.__module__}:{k.py_func.__qualname__}": k for k in gc.get_objects() if type(k) is Kernel}
"""
# Prints what the wheel shall carry, as a pickle in hexadecimal digits: a kernel's name, and types of arguments or of
# elements. Most kernels say which these are; the others are called.
CALL_ALL = KNOWN + """
import numpy as np
import fastnet as f
from fastnet.cli.warmup import ENGINES, fit
from fastnet.kernels.gemm import matmul, pack, syrk
from fastnet.kernels.sgd import sgd_update
from numba import from_dtype

def train(layers, x, t, engine="fused"):
    model = f.Sequential(tuple(layers), f.CrossEntropyLayer())
    for engine in ("layers", engine):
        model.fit(x, t, 1, 0.01, 4, engine=engine, progress=False)
    model.predict(x)
    x.setflags(write=False)
    model.train_on_batch(x, t, 0.01)

for name in ("float32", "float64"):
    for engine in ENGINES:
        fit(name, engine)
    dtype, rng = np.dtype(name).type, np.random.default_rng(0)
    t, images = f.one_hot(np.arange(8) % 4, 4, dtype), rng.normal(size=(8, 3, 12, 12)).astype(dtype)
    for h, pool in ((3, f.MaxPoolLayer(2)), (1, f.MaxPoolLayer(3)), (3, f.AveragePoolLayer(2))):
        layers = [f.ConvLayer(3, 16, h, dtype, rng), f.ReluLayer(), pool, f.ConvLayer(16, 32, 3, dtype, rng),
                  f.LeakyReluLayer(), f.DropoutLayer(0.5, 0), f.FlattenLayer(),
                  f.FullLayer(32 * (12 // pool.size) ** 2, 4, dtype, rng), f.SoftMaxLayer()]
        train(layers, images, t)
        layers.insert(1, f.BatchNormLayer(16, dtype=dtype))
        train(layers, images, t, "auto")
    rows = rng.normal(size=(8, 20)).astype(dtype)
    train([f.FullLayer(20, 16, dtype, rng), f.BatchNormLayer(16, dtype=dtype), f.TanhLayer(), f.DropoutLayer(0.5, 0),
           f.FullLayer(16, 4, dtype, rng), f.SigmoidLayer(), f.SoftMaxLayer()], rows, t)
    c = np.empty((8, 8), dtype)
    matmul(c, rows, rows.T)
    matmul(c, rows, pack(rows.T))
    syrk(c, rows)
    sgd_update(c, c, c, 0.01)
made = [(name, element) for name, kernel in separate_kernels().items() for element in kernel.elements()]
for name, kernel in called_from_python().items():
    own = getattr(kernel, "signature_for", None)
    made += [(name, types) for types in (kernel.overloads if own is None else [own(from_dtype(np.dtype(d))) for d in "fd"])]
print(pickle.dumps([(name, types) for name, types in made if name.startswith("fastnet.kernels.")]).hex())
"""
COMPILE = KNOWN + """
from fastnet.kernels.runtime import team

def from_python(name):  # what `team.run` calls for a kernel is made when it is first asked for
    return python.get(name) or team._entry(python[name.removesuffix("_on_threads")])

python, separate = called_from_python(), separate_kernels()
for name, types in pickle.loads(bytes.fromhex(sys.stdin.read())):
    if getattr(sys.modules[name.partition(":")[0]], "AVAILABLE", True):  # not every level has the instructions for it
        from_python(name).prepare(types) if isinstance(types, tuple) else separate[name].ensure(types)
"""
PACK = """
import json, pathlib, sys
from fastnet.kernels.codegen.carried import pack
print(pack(*map(pathlib.Path, json.load(sys.stdin))), end="")
"""
LEVELS = """
import json
from fastnet.kernels.codegen import carried
print(json.dumps([carried.satisfied(), carried.made_for(), carried.LEVELS]))
"""


class Compiler:
    """An environment with the pure wheel, in which processes compile for one level each."""

    def __init__(self, wheel: Path, work: Path) -> None:
        self.work = work
        venv.create(work / "environment", with_pip=True)
        self.python = work / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        subprocess.run([self.python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", wheel], check=True)
        (self.highest, *_), self.made_for, self.levels = json.loads(self.run(LEVELS))

    def run(self, program: str, level: str | None = None, given: str = "") -> str:
        """What a program prints, whose kernels are compiled for a level and kept in a folder of its own."""
        settings = {name: value for name, value in os.environ.items()
                    if not name.startswith(("NUMBA_", "FASTNET_", "PYTHONPATH"))}
        settings["FASTNET_CACHE_DIR"] = str(self.work / f"cache-{level}")
        if level is not None:
            settings["NUMBA_CPU_NAME"], settings["NUMBA_CPU_FEATURES"], _ = self.levels[level]
        return subprocess.run([self.python, "-c", program], input=given, text=True, stdout=subprocess.PIPE, check=True,
                              env=settings, cwd=self.work).stdout

    def kernels(self, level: str) -> Path:
        """The folder with those of a level."""
        folder, = (self.work / f"cache-{level}").glob("kernels-*")
        return folder


def platform_tag() -> str:
    """The wheel's last tag. On Linux that of llvmlite's wheels, since the code needs what that needs."""
    if sys.platform == "linux":
        return f"manylinux_2_17_{platform.machine()}"
    if sys.platform == "darwin":  # where Python itself may be for both architectures
        return f"macosx_11_0_{platform.machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def make(wheel: Path, to: Path, work: Path) -> Path:
    """Make the wheel that carries kernels out of the pure one; returns its path."""
    compiler = Compiler(wheel, work)
    print(f"compiled_wheel: running every kernel, compiled for {compiler.highest} ...", flush=True)
    made = compiler.run(CALL_ALL, compiler.highest)
    subprocess.run([sys.executable, "-m", "wheel", "unpack", "--dest", work / "unpacked", wheel], check=True)
    folder, = (work / "unpacked").iterdir()
    carried = folder / "fastnet" / "kernels" / "compiled"
    carried.mkdir()

    def compile_for(level: str) -> str:
        print(f"compiled_wheel: compiling for {level} ...", flush=True)
        compiler.run(COMPILE, level, made)
        return compiler.run(PACK, None, json.dumps([str(compiler.kernels(level)), str(carried / f"{level}.kernels")]))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = dict(zip(compiler.levels, pool.map(compile_for, compiler.levels), strict=True))
    (carried / "manifest.json").write_text(json.dumps({"made_for": compiler.made_for, "levels": digests}, indent=1))
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    abi = tag + getattr(sys, "abiflags", "")  # of a free-threaded build, "t"
    file, = folder.glob("*.dist-info/WHEEL")
    text = file.read_text().replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    file.write_text(text.replace("Tag: py3-none-any", f"Tag: {tag}-{abi}-{platform_tag()}"))
    to.mkdir(parents=True, exist_ok=True)
    before = set(to.iterdir())
    subprocess.run([sys.executable, "-m", "wheel", "pack", "--dest-dir", to, folder], check=True)
    new, = set(to.iterdir()) - before
    print(f"compiled_wheel: {new.name}, {new.stat().st_size / 1e6:.1f} MB")
    if new.stat().st_size > MOST_BYTES:
        raise SystemExit(f"compiled_wheel: expected at most {MOST_BYTES / 1e6:.0f} MB. Look for kernels that are compiled "
                         "for many types of arguments.")
    return new


def main() -> None:
    """Make the wheel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the pure wheel")
    parser.add_argument("--to", type=Path, metavar="FOLDER", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        make(options.wheel.resolve(), options.to.resolve(), Path(work).resolve())


if __name__ == "__main__":
    main()
