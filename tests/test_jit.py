"""How kernels are compiled, and what is said where they cannot be."""
import gc
import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastnet.kernels.codegen import jit
from fastnet.kernels.codegen.jit import Kernel
from fastnet.kernels.layout import for_dtypes, make_ready, matrices
from numba.core.compiler_lock import global_compiler_lock

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["full", "kernels.gemm"])
def test_without_the_compiler_there_is_a_clear_error(name, tmp_path):
    result = subprocess.run([sys.executable, "-c", f"import fastnet.{name}"], text=True, capture_output=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1",
                                 "FASTNET_CACHE_DIR": str(tmp_path)})
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("ImportError: fastnet's kernels are compiled by Numba, which "
                                                     "NUMBA_DISABLE_JIT has turned off here: unset it")


@for_dtypes(matrices(1, 1))
def twice(y, x):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = 2 * x[i, j]


def test_while_one_thread_compiles_others_get_the_versions_there_are():
    y, x = np.empty((2, 3)), np.ones((2, 3))
    with global_compiler_lock:  # the thread gets as far as to compile
        thread = threading.Thread(target=make_ready, args=(twice, x.dtype))
        thread.start()
        time.sleep(0.2)
        for odd in (x, x.astype(np.float32), x.T):
            with pytest.raises(TypeError, match="No matching definition"):
                twice(y, odd)
    thread.join()
    twice(y, x)
    assert (y == 2).all()
    with pytest.raises(TypeError, match="No matching definition"):
        twice(y, x.astype(np.float32))
    assert len(twice.signatures) == 1


def test_a_line_says_what_is_compiled_and_goes(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(jit, "CACHE", None)
    Kernel(lambda x: x + 1, targetoptions={"nopython": True})(3.5)
    shown, gone, end = stream.getvalue().split("\r")[1:]
    assert shown.startswith("fastnet: compiling kernels, once for this version: ") and shown.endswith(" ...")
    assert gone == " " * len(shown) and end == ""


def test_no_line_is_written_into_a_file(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(jit, "CACHE", None)
    for where in (stream, None):
        monkeypatch.setattr(sys, "stderr", where)
        Kernel(lambda x: x + 2, targetoptions={"nopython": True})(3.5)
    assert stream.getvalue() == ""


def test_garbage_is_collected_again_after_compilations_of_several_threads(monkeypatch):
    monkeypatch.setattr(jit, "CACHE", None)
    kernels = [Kernel(lambda x, n=n: x + n, targetoptions={"nopython": True}) for n in range(4)]
    assert gc.isenabled()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda kernel: kernel(1.5, 2), kernels)) == [3.5] * 4
    assert gc.isenabled()
    gc.disable()
    try:
        kernels[0](1, 2)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_kernels_are_compiled_without_numbas_rarer_registries_unless_one_needs_them(tmp_path):
    program = """
import sys
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.sgd import sgd_update
from numba import njit

w = np.ones((3, 4))
sgd_update(w, w, np.ones((3, 4)), 0.25)
assert (w == 0.75).all()
assert "numba.np.arraymath" not in sys.modules

@jit
def middle(x):
    return np.median(x)

@jit
def twice_middle(x):
    return 2 * middle(x)

assert twice_middle(np.array([1.0, 3.0, 2.0])) == 4
assert "numba.np.arraymath" in sys.modules

@njit
def of_a_user(x):
    return middle(x) + np.median(x)

assert of_a_user(np.array([1.0, 3.0, 2.0])) == 4
try:
    jit(lambda x: x.no_such_thing)(1.0)
except Exception as error:
    assert "no_such_thing" in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120,
                   env={**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": str(tmp_path)})
