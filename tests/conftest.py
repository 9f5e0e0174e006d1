"""Settings of all tests: the same examples in every run, and no float type that changes on its way."""
import importlib
import os
import signal
import sys

# Threads of a BLAS that wait for each other take the cores from the tests. Before NumPy is imported, and for all processes.
os.environ.update({name: os.environ.get(name, "1") for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")})

import hypothesis
import numpy as np
import pytest
from fastnet.kernels.codegen.cache import CACHE
from fastnet.kernels.runtime import pool
from numba import types
from numba.core.dispatcher import Dispatcher

import fastnet

collect_ignore = ["dropin_scripts"]  # run by test_dropin_scripts.py, in folders of their own

for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):  # in its presence pytest-benchmark times nothing
    os.environ.pop(name, None)

if CACHE is not None:  # processes that tests start compile nothing anew, whatever home or cache folder they are given
    os.environ.setdefault("FASTNET_CACHE_DIR", str(CACHE.parent))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with Ctrl-C ignored

hypothesis.settings.register_profile("fastnet", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("fastnet")


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def divided():
    """Even the smallest products are divided among the threads."""
    before = pool.least_work()
    pool._shared["least_work"] = pool._shared["alone_until"] = 0  # nor because another test's call was late
    yield
    pool._shared["least_work"] = before


@pytest.fixture(autouse=True)
def default_dtype_put_back():
    yield
    fastnet.set_default_dtype(np.float64)


def of_the_process():
    """What a test may change for the tests behind it in the same process."""
    return {
        "numpy.geterr()": np.geterr(),
        "finders of fastnet": [finder for finder in sys.meta_path if type(finder).__module__.startswith("fastnet.")],
        "sys.path": [*sys.path],
        "os.environ": {name: value for name, value in os.environ.items() if name.startswith(("FASTNET", "NUMBA", "PYTHON"))},
        "os.getcwd()": os.getcwd(),
    }


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """A test that leaves the process as it did not find it is the one that fails, not whichever comes next."""
    before = of_the_process()
    yield
    after = of_the_process()
    if after != before:
        np.seterr(**before["numpy.geterr()"])
        sys.meta_path[:] = [f for f in sys.meta_path if f not in after["finders of fastnet"] or f in before["finders of fastnet"]]
        sys.path[:] = before["sys.path"]
        for name in after["os.environ"]:
            del os.environ[name]
        os.environ.update(before["os.environ"])
        os.chdir(before["os.getcwd()"])
        changed = [f"{name}: {before[name]!r} -> {after[name]!r}" for name in before if before[name] != after[name]]
        pytest.fail("left behind: " + "; ".join(changed))


@pytest.fixture(autouse=True, scope="session")
def no_silent_promotion():
    """Numba compiles a kernel for whatever it is called with: after all tests, none may mix float32 and float64."""
    yield
    for stem in ("relu", "softmax", "cross_entropy", "sgd"):
        for kernel in vars(importlib.import_module(f"fastnet.kernels.{stem}")).values():
            if isinstance(kernel, Dispatcher):
                for signature in kernel.signatures:
                    floats = {t for t in (getattr(a, "dtype", a) for a in signature) if isinstance(t, types.Float)}
                    assert len(floats) == 1, f"{kernel.py_func.__name__} was called with {signature}"
