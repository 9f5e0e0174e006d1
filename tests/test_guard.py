"""No kernel and no network reads or writes outside its arrays: each array lies between pages that nobody may touch."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import guard_pages
import pytest
import stacks

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard")
    missing = guard_pages.build(folder)
    if missing:
        pytest.skip(missing)
    return folder


def child(*arguments, seconds=1200):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent))), "PYTHONFAULTHANDLER": "1"}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment,
                          timeout=max(seconds, stacks.CASES))


MISTAKES = {
    "reads beyond the end": ("True", "ctypes.string_at(at + 24, 1)", -signal.SIGSEGV),
    "reads before the beginning": ("False", "ctypes.string_at(at - 1, 1)", -signal.SIGSEGV),
    "writes beyond the end": ("True", "ctypes.memset(at + 24, 0, 1)", -signal.SIGSEGV),
    "writes beyond the end, by a page": ("False", "ctypes.memset(at + 24, 0, 1 << 16)", -signal.SIGSEGV),
    "writes into the slack": ("True", "ctypes.memset(at - 1, 0, 1); del a", -signal.SIGABRT),
    "writes into the slack behind": ("False", "ctypes.memset(at + 24, 0, 1); del a", -signal.SIGABRT),
    "reads what was freed": ("True", "del a; ctypes.string_at(at, 1)", -signal.SIGSEGV),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(folder, mistake):
    where, code, expected = MISTAKES[mistake]
    program = (f"import ctypes, sys, numpy as np; sys.path.insert(0, {str(folder)!r}); import guard_pages_c as guard\n"
               f"guard.on({where}); a = np.empty(3); at = a.ctypes.data; assert np.isnan(a).all()\n{code}\nprint('alive')")
    result = child("-c", program)
    assert result.stdout == ""
    if sys.platform == "darwin" and expected == -signal.SIGSEGV:
        assert result.returncode in (-signal.SIGSEGV, -signal.SIGBUS)
    else:
        assert result.returncode == expected, result.stderr
    assert ("canary: byte" in result.stderr) == (expected == -signal.SIGABRT)


@pytest.mark.parametrize(("where", "index"), [(True, 3), (False, -1)])
def test_mistakes_of_compiled_code_are_caught(folder, where, index):
    program = (f"import sys, numpy as np, numba; sys.path.insert(0, {str(folder)!r}); import guard_pages, guard_pages_c as guard\n"
               f"guard.on({where}); guard.off(); guard_pages.guard_numba(guard)\n"
               "from fastnet.kernels.simd import load_int\n"
               "@numba.njit\ndef read(i):\n    a = np.zeros(3, np.int64)\n    return load_int(a.ctypes.data + 8 * i)\n"
               f"print(read(0), read(2), guard.count_of_numba(), flush=True)\nread({index})\nprint('alive')")
    result = child("-c", program)
    assert result.stdout == "0 0 2\n", result.stderr
    assert result.returncode in (-signal.SIGSEGV, -signal.SIGBUS)


def test_what_is_right_goes_through(folder):
    program = (f"import sys, numpy as np; sys.path.insert(0, {str(folder)!r}); import guard_pages_c as guard\n"
               "for where in (True, False):\n"
               "    guard.on(where); a = np.arange(1000.0); a.resize(2000, refcheck=False); assert a.sum() == 499500\n"
               "    assert not np.zeros(99).any() and np.empty((0, 3)).size == 0; b = np.ones(70000, np.int8) + 1\n"
               "guard.off(); del a, b; print(guard.count() > 8)")
    result = child("-c", program)
    assert result.stdout == "True\n", result.stderr


@pytest.mark.parametrize(("what", "cases"), [("kernels", max(300, stacks.CASES // 4)), ("networks", max(40, stacks.CASES // 25)),
                                             ("products", max(60, stacks.CASES // 10))])
def test_guarded(folder, what, cases):
    """FASTNET_CASES makes it a night's."""
    result = child(TESTS / "guard_pages.py", folder, what, 0, cases)
    if result.returncode:
        case = (folder / f"{what}.case").read_text().strip()
        pytest.fail(f"{case} ended with {result.returncode}:\n{result.stderr}")
    assert f"{cases} cases, " in result.stdout
    assert what == "products" or " 0 of them" not in result.stdout
