"""Time until the first result: cold (everything is compiled), from the cache, a call's own cost, and the import."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastnet.kernels.relu import relu_forward

from bench.harness.peers import PACKAGES, is_installed
from bench.harness.race import mode

JOB = """
import sys
import fastnet
modules = len(sys.modules)
import json
import numpy as np
from numba.core.dispatcher import Dispatcher
rng = np.random.default_rng(0)
model = fastnet.Sequential((fastnet.FullLayer({inputs}, 500, rng=rng), fastnet.ReluLayer(),
                            fastnet.FullLayer(500, 5, rng=rng), fastnet.SoftMaxLayer()),
                           loss=fastnet.CrossEntropyLayer())
x, labels = rng.random((256, {inputs})), rng.integers(0, 5, 256)
model.fit(x, fastnet.one_hot(labels, 5), 2, 0.1, progress=False)
model.predict(x)
kernels = {{id(value): value for name, module in sys.modules.items() if name.startswith("fastnet.kernels.")
           for value in vars(module).values() if isinstance(value, Dispatcher)}}
print(json.dumps({{"modules": modules, "signatures": sum(len(kernel.signatures) for kernel in kernels.values())}}))
""".format(inputs=64 if mode() == "tiny" else 3072)


def python(code: str, cache: Path | None = None) -> str:
    """Run code in a fresh process that finds this fastnet."""
    places = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    if cache is not None:
        env |= {"FASTNET_CACHE_DIR": str(cache), "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory):
    if mode() != "full":
        return None  # the gate has given this side a cache of its own, and fills it once
    cache = tmp_path_factory.mktemp("cache")
    python(JOB, cache)
    return cache


@pytest.mark.skipif(mode() != "full", reason="compiles everything anew: some ten seconds")
def test_cold(benchmark, tmp_path):
    benchmark.extra_info.update(kernel="first fit, cold cache", shape="256 samples", dtype="float64")
    benchmark.pedantic(python, args=(JOB, tmp_path), rounds=1)


def test_cached(benchmark, filled_cache):
    """The process that says how many versions of kernels the job needs, and how many modules an import loads."""
    counts = json.loads(python(JOB, filled_cache))
    benchmark.extra_info.update(kernel="first fit, cached", shape="256 samples", dtype="float64", counts=counts)
    benchmark.pedantic(python, args=(JOB, filled_cache), rounds=5 if mode() == "full" else 1)


def test_dispatch(race):
    """A kernel on one number: what a call costs before anything is computed."""
    x, y, z = np.ones((3, 1, 1))
    race({"fastnet": lambda: relu_forward(y, x), "numpy": lambda: np.maximum(x, 0, out=z)}, kernel="dispatch",
         shape="1x1", dtype=np.float64)


def test_import(race):
    rivals = {name: (lambda module=module: python(f"import {module}"))
              for name, module in {"numpy": "numpy", "numba": "numba", **PACKAGES}.items() if is_installed(module)}
    race({"fastnet": lambda: python("import fastnet"), **rivals}, kernel="import", shape="fresh process", rounds=3)
