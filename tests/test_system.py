"""Questions to the operating system: answers as Linux, macOS and Windows give them, and none."""
import ast
import ctypes
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from fastnet.kernels import system as kernel_system

from fastnet.base import system

ROOT = Path(__file__).parents[1]


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


# --- cores ------------------------------------------------------------------------------------------------------------


def siblings(*cores):
    """Files of Linux, for CPUs that share cores."""
    return {f"system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{','.join(map(str, core))}\n"
            for core in cores for cpu in core}


@pytest.mark.parametrize(("files", "allowed", "expected"), [
    (siblings((0, 4), (1, 5), (2, 6), (3, 7)), range(8), 4),
    (siblings((0, 4), (1, 5), (2, 6), (3, 7)), {0, 4, 5}, 2),
    ({}, range(8), 8),  # a system that does not tell
    ({**siblings((0, 1), (2, 3), (4,), (5,), (6,), (7,)), "cpu_core/cpus": "0-3\n", "cpu_atom/cpus": "4-7\n"}, range(8), 2),
    ({**siblings((0, 1), (2, 3), (4,), (5,)), "cpu_core/cpus": "0-3\n"}, {4, 5}, 2),  # slow ones alone are allowed
])
def test_cores_of_linux(files, allowed, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_system, "_allowed_cpus", lambda: set(allowed))
    assert kernel_system._linux_cores(write(tmp_path, files)) == expected


def test_lists_of_cpus():
    assert kernel_system._cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}


def refuse(*_, **__):
    raise PermissionError(1, "Operation not permitted")


def test_a_sandbox_that_forbids_to_ask_for_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    assert set(kernel_system._allowed_cpus()) == set(range(os.cpu_count()))
    assert kernel_system.available_cores() >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="of Linux")
@pytest.mark.parametrize("name", ["sched_getaffinity", "sched_setaffinity"])
def test_a_sandbox_that_forbids_to_choose_cpus(name):
    program = f"""
import os
import numba  # which asks itself, and is not ours to mend
def refuse(*_, **__): raise PermissionError(1, "Operation not permitted")
os.{name} = refuse
import numpy as np, fastnet
fastnet.set_num_threads(2)
layer = fastnet.FullLayer(900, 900, rng=0)
assert np.allclose(layer.forward(np.ones((900, 900))), layer.W.sum(axis=1))
"""
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
                            capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("numbers", "expected"), [
    ({"hw.perflevel0.physicalcpu": 8, "hw.physicalcpu": 10}, 8),  # two slow cores beside
    ({"hw.physicalcpu": 6}, 6),
    ({}, os.cpu_count()),
])
def test_cores_of_macos(numbers, expected, monkeypatch):
    monkeypatch.setattr(kernel_system, "mac_number", lambda name: numbers.get(name, 0))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert kernel_system._mac_cores() == expected
    assert kernel_system.available_cores() <= expected


def test_sysctl_where_there_is_none():
    if sys.platform == "darwin":
        assert kernel_system.mac_number("hw.memsize") > 1e8
    assert kernel_system.mac_number("hw.nonsense") == 0


def windows_core(efficiency, mask):
    """A record as Windows writes it: PROCESSOR_RELATIONSHIP with one GROUP_AFFINITY."""
    return struct.pack("<IIBB20xHQH6x", 0, 48, 0, efficiency, 1, mask, 0)


@pytest.mark.parametrize(("allowed", "expected"), [
    (~0, 2), (0b0011, 1), (0b110000, 2), (0b010001, 1), (0, 0),
])
def test_cores_of_windows(allowed, expected):
    answer = b"".join([windows_core(1, 0b0011), windows_core(1, 0b1100), windows_core(0, 0b010000), windows_core(0, 0b100000)])
    assert len(answer) == 4 * 48
    assert kernel_system._fast_cores(answer, allowed) == expected


def test_windows_cores_elsewhere_are_all_cpus():
    if sys.platform == "win32":
        assert 1 <= kernel_system._windows_cores() <= os.cpu_count()
    else:
        assert kernel_system._windows_cores() == os.cpu_count()


@pytest.mark.parametrize(("files", "expected"), [
    ({"cpu.max": "150000 100000\n"}, 1.5),
    ({"cpu.max": "max 100000\n"}, math.inf),
    ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
    ({}, math.inf),
])
def test_cores_that_the_control_group_allows(files, expected, tmp_path, monkeypatch):
    assert kernel_system._cgroup_cpus(write(tmp_path, files)) == expected
    monkeypatch.setattr(kernel_system, "_cgroup_cpus", lambda: expected)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(kernel_system, "_linux_cores", lambda: 8)
    assert kernel_system.available_cores() == {1.5: 2, 0.5: 1, math.inf: 8}[expected]


# --- memory -----------------------------------------------------------------------------------------------------------

MEMINFO = {"meminfo": "MemTotal:       16000 kB\nMemFree:         100 kB\nMemAvailable:    9000 kB\n"}


@pytest.mark.parametrize(("files", "expected"), [
    (MEMINFO, [9000 * 1024]),
    ({**MEMINFO, "memory.max": "5000\n", "memory.current": "4000\n", "memory.stat": "anon 7\ninactive_file 300\n"},
     [9000 * 1024, 1300]),
    ({**MEMINFO, "memory.max": "max\n", "memory.current": "4000\n"}, [9000 * 1024]),
    ({**MEMINFO, "memory/memory.limit_in_bytes": "5000", "memory/memory.usage_in_bytes": "4000",
      "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n"}, [9000 * 1024, 1200]),
    ({}, []),
])
def test_free_memory_of_linux(files, expected, tmp_path):
    write(tmp_path, files)
    assert system._linux_memory(str(tmp_path / "meminfo"), str(tmp_path)) == expected


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10.
Pages active:                           5000.
Pages inactive:                          200.
Pages speculative:                      3000.
Pages wired down:                        777.
"Translation faults":                 123456.
"""


def test_free_memory_of_macos(monkeypatch):
    assert system._mac_pages(VM_STAT) == 3210 * 16384
    monkeypatch.setattr(system.subprocess, "run", refuse)
    monkeypatch.setattr(system, "mac_number", {"hw.memsize": 1000}.get)
    assert system._mac_memory() == [500]


def test_windows_writes_into_records_of_this_size():
    assert ctypes.sizeof(system._MemoryStatus) == 64
    assert system._MemoryStatus.available.offset == 16


def test_memory_of_this_machine(monkeypatch):
    assert 1e6 < system.available_memory() < 1e15
    assert 1e6 < system.peak_memory() < 1e13
    monkeypatch.setattr(sys, "platform", "win32" if sys.platform != "win32" else "linux")
    assert system.available_memory() == 4e9  # nothing to ask


# --- files and terminals ----------------------------------------------------------------------------------------------


def test_a_file_is_locked_until_it_is_unlocked(tmp_path):
    first, second = (os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        system.lock_file(first)
        with pytest.raises(OSError):
            system.lock_file(second)
        system.unlock_file(first)
        system.lock_file(second)
    finally:
        os.close(first)
        os.close(second)


@pytest.mark.parametrize(("terminal", "shown"), [
    ({"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}, r"M\xfcller \u5b66"),
    ({"PYTHONIOENCODING": "", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, "ller"),  # file names, too
])
def test_a_terminal_of_plain_ascii(terminal, shown, tmp_path):
    folder = tmp_path / "M\xfcller \u5b66"
    folder.mkdir()
    result = subprocess.run([sys.executable, "-m", "fastnet", "cache"], text=True, capture_output=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": str(folder), **terminal})
    assert result.returncode == 0, result.stderr
    assert shown in result.stdout and result.stdout.isascii()


def printed(tree):
    """All strings of a module but its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented)
                  and node.body and isinstance(node.body[0], ast.Expr)}
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings]


NOT_PRINTED = ("plots.py", "render.py")  # text of pictures, and of a page in UTF-8


def test_nothing_that_may_be_printed_needs_more_than_ascii():
    folders = Path(system.__file__).parent, Path(kernel_system.__file__).parent
    files = [file for file in [*(file for folder in folders for file in folder.rglob("*.py")), *ROOT.glob("*.py")]
             if file.name not in NOT_PRINTED]
    assert len(files) > 40
    for file in files:
        for text in printed(ast.parse(file.read_text(encoding="utf-8"))):
            assert text.isascii(), (file, text)
