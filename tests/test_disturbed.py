"""The same bits on several numbers of threads, beside processes that take the cores, when stopped, interrupted, forked and moved about."""
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
posix = pytest.mark.skipif(os.name == "nt", reason="there are no such signals, and no fork")

# Works until a line comes in, at least twice; then says whether all results were the same.
WORK = """
    import os, sys, threading, time
    import numpy as np
    from fastnet.kernels.runtime import pool
    from workload import of_kernels, of_networks, results

    pool.set_num_threads(1)
    right = results()
    pool.set_num_threads(3)

    def check():
        found = results()
        wrong = [key for key in right if found[key] != right[key]]
        assert not wrong, wrong
"""
UNTIL_A_LINE = """
    told = threading.Event()

    def listen():
        sys.stdin.readline()
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    print("go", flush=True)
    rounds = 0
    while rounds < 2 or not told.is_set():
        check()
        rounds += 1
    print("done", flush=True)
"""


def started(*parts):
    """A process of such a program."""
    text = "".join(map(textwrap.dedent, parts))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent)))}
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=environment)


def finished(process, line="\n"):
    """Its output; it has neither failed nor hung."""
    try:
        out, error = process.communicate(line, timeout=1200)
    finally:
        process.kill()
    assert process.returncode == 0, error
    return out


@contextlib.contextmanager
def spinners(count):
    """Processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_same_bits_on_any_number_of_threads_beside_spinners():
    with spinners(2):
        finished(started(WORK, """
            for count in (2, 3, 5, 8):
                pool.set_num_threads(count)
                check()
        """))


@posix
def test_stopped_and_continued():
    process = started(WORK, UNTIL_A_LINE)
    assert process.stdout.readline() == "go\n", process.stderr.read()
    for pause in (0.001, 0.01, 0.03, 0.001, 0.1, 0.02, 0.002, 0.05):
        process.send_signal(signal.SIGSTOP)
        time.sleep(pause)
        process.send_signal(signal.SIGCONT)
        time.sleep(pause)
    assert finished(process).endswith("done\n")


@linux
def test_threads_that_are_moved_from_core_to_core():
    """All threads of the process to one core, to another, and back to all; each at its own time."""
    finished(started(WORK, """
        cores = sorted(os.sched_getaffinity(0))
        stop = threading.Event()

        def place(allowed):
            # A thread may end between its listing and its move, even one that was joined.
            for task in os.listdir("/proc/self/task"):
                try:
                    os.sched_setaffinity(int(task), allowed())
                except ProcessLookupError:
                    pass

        def move():
            rng = np.random.default_rng(1)
            while not stop.wait(0.001):
                place(lambda: {int(core) for core in rng.choice(cores, rng.integers(1, len(cores) + 1), replace=False)})

        mover = threading.Thread(target=move)
        mover.start()
        try:
            check()
            check()
        finally:
            stop.set()
            mover.join()
        place(lambda: cores)
        check()
    """))


@posix
def test_children_made_by_fork_compute_the_same():
    finished(started(WORK, """
        check()
        for again in range(2):
            child = os.fork()
            if child == 0:
                try:
                    check()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            check()
    """))


@posix
def test_interrupted_by_ctrl_c_at_any_moment():
    """Whatever was interrupted is done again, and is right."""
    finished(started(WORK, """
        import signal

        signal.signal(signal.SIGINT, signal.default_int_handler)
        go, stop, caught = threading.Event(), threading.Event(), 0

        def press():
            go.wait()  # else the first one could meet the thread's own start, outside of all that catches it
            rng = np.random.default_rng(1)
            while not stop.wait(rng.uniform(0.001, 0.02)):
                os.kill(os.getpid(), signal.SIGINT)

        presser = threading.Thread(target=press)
        presser.start()
        while True:
            try:
                go.set()
                while caught < 60:
                    try:
                        while True:
                            of_networks()
                            of_kernels()
                    except KeyboardInterrupt:
                        caught += 1
                stop.set()
                presser.join()
                break
            except KeyboardInterrupt:
                pass
        check()
    """))
