"""Whatever disturbs a first call while its kernels are compiled: it is raised, and nothing else happens.

Every program here has a cache of its own, so that everything is compiled in it.
"""
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fastnet.kernels.codegen import linking
from fastnet.kernels.gemm.commands import product

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name == "nt", reason="there are no timers that send signals")

# Layers, of which one calls kernels that are compiled separately, and what they should compute; `disturb(action)` has something
# done in the middle of each of the next functions that Numba compiles.
SETTING = """
    import signal, sys
    import numpy as np
    from numba.core.typed_passes import BaseNativeLowering
    from fastnet import SoftMaxLayer, TanhLayer

    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 30, 40))
    tanh, softmax = np.tanh(x), np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)

    def backward():
        layer = TanhLayer()
        assert np.allclose(layer.forward(x), tanh) and np.allclose(layer.backward(dy), dy * (1 - tanh ** 2))
        layer = SoftMaxLayer()
        assert np.allclose(layer.forward(x), softmax)
        assert np.allclose(layer.backward(dy), softmax * (dy - (dy * softmax).sum(axis=1, keepdims=True)))

    lower, count = BaseNativeLowering.run_pass, 0

    def disturb(action):
        def run_pass(self, state):
            global count
            count += 1
            action(count)
            return lower(self, state)
        BaseNativeLowering.run_pass = run_pass
"""


def program(text, tmp_path, **environment):
    """Run a program with an empty cache; it must end well, and print nothing on the error stream."""
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "FASTNET_CACHE_DIR": str(tmp_path / "cache"),
                "FASTNET_NUM_THREADS": "2", **environment}
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(SETTING) + textwrap.dedent(text)], capture_output=True,
                            text=True, timeout=300, cwd=tmp_path, env={**os.environ, **settings})
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


@posix
def test_a_handler_that_raises_while_a_first_call_compiles(tmp_path):
    """As pytest-timeout does it: its exception leaves the call, and the next call goes on."""
    raised = program("""
        class Timeout(Exception):
            pass

        def handler(number, frame):
            raise Timeout

        signal.signal(signal.SIGALRM, handler)
        raised = 0
        while True:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                backward()
                break
            except Timeout:
                raised += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        assert signal.getsignal(signal.SIGALRM) is handler
        print(raised)
    """, tmp_path)
    assert int(raised) > 0


@posix
def test_a_handler_that_uses_fastnet_while_a_first_call_compiles(tmp_path):
    program("""
        def handler(number, frame):
            backward()

        signal.signal(signal.SIGUSR1, handler)
        disturb(lambda count: signal.raise_signal(signal.SIGUSR1))
        backward()
        assert count > 10, count
    """, tmp_path)


def test_an_exception_out_of_numba_is_raised_as_it_is(tmp_path):
    """No memory, too deep a recursion, Ctrl-C, or one of another library: in any function that is being compiled."""
    program("""
        class Foreign(BaseException):
            pass

        class Other(Exception):
            pass

        raised = []

        def action(count):
            if count % 2 == 0 and len(raised) < 10:
                kind = [MemoryError, RecursionError, Foreign, Other, OSError][len(raised) % 5]
                raised.append(kind)
                raise kind("while a kernel is compiled")

        disturb(action)
        for attempt in range(11):
            try:
                backward()
            except BaseException as error:
                assert type(error) is raised[attempt], error
                continue
            break
        assert attempt == len(raised) == 10
    """, tmp_path)


def test_ctrl_c_while_a_first_call_compiles(tmp_path):
    program("""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        disturb(lambda count: signal.raise_signal(signal.SIGINT))
        stopped = 0
        while True:
            try:
                backward()
                break
            except KeyboardInterrupt:
                stopped += 1
        assert stopped > 0
    """, tmp_path)


def test_a_finalizer_that_uses_fastnet_while_a_first_call_compiles(tmp_path):
    """It needs the very kernels that are being compiled."""
    program("""
        class Last:
            def __del__(self):
                backward()

        def action(count):
            if count in (2, 5):
                Last()

        disturb(action)
        backward()
    """, tmp_path)


USER = """
import numpy as np
from numba import njit
from fastnet.kernels.relu import relu_forward
from fastnet.kernels.softmax import softmax_forward

@njit(cache=True)
def outputs(x):
    y = np.empty_like(x)
    softmax_forward(y, x)
    relu_forward(y, y)
    return y
"""


def test_compiled_code_of_a_user_is_kept_by_numba(tmp_path):
    """Loaded in a new process, it has the kernels that it calls; of another version of fastnet, it is compiled anew."""
    (tmp_path / "user.py").write_text(USER)

    def run(setting="", cache=None):
        return program(f"""
            {setting}
            import user
            assert np.allclose(user.outputs(x), softmax)
            print(sum(user.outputs.stats.cache_hits.values()))
        """, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "numba"),
                       FASTNET_CACHE_DIR=os.environ["FASTNET_CACHE_DIR"] if cache is None else str(tmp_path / cache)).strip()

    assert run() == "0"
    assert run() == "1"
    assert run(cache="empty") == "1"  # the kernels are compiled while the user's function is loaded
    other = "import fastnet.kernels.codegen.linking; fastnet.kernels.codegen.linking.VERSION = 'other'"
    assert run(other, cache="other") == "0"


def test_what_code_of_another_version_needs_counts_as_missing():
    with pytest.raises(FileNotFoundError):
        linking._need(product.name, "float64", "another version")


def test_helpers_of_a_kernel_have_names_that_no_other_code_asks_for():
    """MCJIT finds internal functions by name, too, and LLVM may have changed their arguments."""
    from fastnet.kernels.codegen.jit import jit
    from fastnet.kernels.simd import noinline

    @jit
    def helper(x, unused):
        noinline()
        return 3 * x

    @jit
    def kernel(x):
        return helper(x, 1) + 1

    assert kernel(2.0) == 7
    library = next(iter(kernel.overloads.values())).library
    defined = [f.name for f in library._final_module.functions if not f.is_declaration]
    assert any("helper" in name for name in defined)
    assert all(name.endswith(".internal") or name.startswith(("cfunc.", "_ZN7cpython")) for name in defined)
