"""The processes of a round share their addresses; each round draws others."""
import json
import os
import subprocess
import sys

import pytest

from fastnet.gate import addresses

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can place processes")
WHERE = "import ctypes, json, os; print(json.dumps([id(object()), ctypes.addressof(ctypes.c_int(0)), os.getpid()]))"


def places(env=None):
    with addresses.shared() as works:
        found = subprocess.run([sys.executable, "-c", WHERE], capture_output=True, text=True, check=True, env=env)
    return works, json.loads(found.stdout)[:2]


@pytest.fixture
def works():
    with addresses.shared() as works:
        pass
    if not works:
        pytest.skip("this system does not let a process have the addresses of another")


def test_processes_share_their_addresses_within_the_context_alone(works):
    env = {"PYTHONHASHSEED": "1", "PATH": ""}
    assert places(env) == places(env)
    others = {subprocess.run([sys.executable, "-c", WHERE.replace(", os.getpid()", "")], capture_output=True, text=True, check=True,
                             env=env).stdout for _ in range(8)}
    assert len(others) > 1  # what is started later has random addresses again


def test_a_system_that_forbids_it_is_left_alone(monkeypatch):
    class Forbidden:
        def personality(self, wanted):
            return 0 if wanted.value == 0xFFFFFFFF else -1

    monkeypatch.setattr(addresses.ctypes, "CDLL", lambda name: Forbidden())
    monkeypatch.setattr(addresses.sys, "platform", "linux")
    with addresses.shared() as works:
        assert not works
    assert "the intervals are wider" in addresses.remarks()[0]
    monkeypatch.setattr(addresses.sys, "platform", "darwin")
    assert not addresses.remarks() and not addresses.padding(["python"], {}, 1)
    with addresses.shared() as works:
        assert not works


def size(command, env):
    return sum(len(os.fsencode(part)) + 1 for part in command) + sum(len(os.fsencode(f"{name}={value}")) + 1 for name, value in env.items())


@on_linux
@pytest.mark.parametrize("number", [0, 1, 2**32 - 1])
def test_stacks_of_a_round_start_at_the_same_place(number):
    sides = [(["python", "-m", "pytest", name], {"PATH": "/a", "TREE": f"/work/{name}"}) for name in ("base", "é", "\udcff", "a" * 9000)]
    sizes = {size(command, env | addresses.padding(command, env, number)) for command, env in sides}
    assert len({found % (1 << 15) for found in sizes}) == 1


@on_linux
def test_rounds_differ():
    assert len({len(addresses.padding([], {}, number)[addresses.PADDING]) for number in range(50)}) > 40
