"""The pool of threads: who may call kernels when, from where, and what happens when something goes wrong."""
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import thread_kernel
from fastnet.kernels.gemm import matmul
from fastnet.kernels.runtime import cores, wait
from fastnet.kernels.runtime import pool as threads
from fastnet.kernels.runtime.pool import barrier, barrier_at, next_job, next_job_at, run
from fastnet.kernels.runtime.state import SHARED_RECORD
from fastnet.kernels.simd import atomic_add, load_int, store_int

ROOT = Path(__file__).resolve().parents[1]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
posix = pytest.mark.skipif(os.name == "nt", reason="there are no such signals, and no fork")

# What most programs below begin with: a product that is right, on as many threads as there are.
PRODUCT = """
    import os, signal, sys, threading, time
    import numpy as np
    from fastnet.kernels import gemm
    from fastnet.kernels.runtime import wait
    from fastnet.kernels.runtime import pool as threads
    threads._shared["least_work"] = 0

    a, b = (np.random.default_rng(seed).standard_normal((300, 300)).astype(np.float32) for seed in (1, 2))
    expected = a.astype(float) @ b

    def product():
        c = np.full((300, 300), np.nan, np.float32)
        gemm.matmul(c, a, b)
        assert np.allclose(c, expected, atol=1e-3)
        return c
"""


def program(text, timeout=120, **environment):
    """Run a program with two threads in a process of its own; it may neither fail nor hang."""
    settings = {"FASTNET_NUM_THREADS": "2", "PYTHONPATH": str(ROOT), **environment}
    text = textwrap.dedent(PRODUCT) + textwrap.dedent(text)
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=timeout, cwd=ROOT,
                            env={**os.environ, **settings})
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(autouse=True)
def threads_put_back():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


# --- a call ---------------------------------------------------------------------------------------------------------


@jit
def sum_of_neighbours(thread, threads, sync, scratch, out, values, rounds):
    """Each round, every thread adds what its neighbour wrote in the round before: wrong without barriers."""
    for _ in range(rounds):
        out[thread] = values[(thread + 1) % threads] + 1
        barrier(sync, threads)
        values[thread] = out[thread]
        barrier(sync, threads)


@jit
def take_jobs(thread, threads, sync, scratch, taken):
    job = next_job(sync)
    while job < taken.size:
        taken[job] += 1
        job = next_job(sync)


@jit
def who(thread, threads, sync, scratch, seen):
    seen[thread] = threads


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_barrier_and_shares(count):
    threads.set_num_threads(count)
    out, values = np.zeros(count, np.int64), np.zeros(count, np.int64)
    run(sum_of_neighbours, out, values, 500)
    assert values.tolist() == [500] * count


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_job_is_taken_once(count):
    threads.set_num_threads(count)
    taken = np.zeros(10_000, np.int64)
    run(take_jobs, taken)
    assert np.all(taken == 1)


def test_threads_of_a_call():
    threads.set_num_threads(3)
    for wanted, expected in ((None, 3), (1, 1), (2, 2), (9, 3)):
        seen = np.zeros(9, np.int64)
        run(who, seen, threads=wanted)
        assert seen.tolist() == [expected] * expected + [0] * (9 - expected)


def test_scratch_is_private_and_aligned():
    addresses = []

    def note(thread, threads, sync, scratch):
        addresses.append(scratch)

    threads.set_num_threads(4)
    run(note)
    run(note)
    assert len(addresses) == 8
    assert len(set(addresses)) == 4
    assert all(address % 128 == 0 for address in addresses)
    assert min(np.diff(sorted(set(addresses)))) >= threads.SCRATCH_BYTES


def test_arguments_are_let_go():
    """A worker that waits for its next call must not keep the arrays of the last one alive."""
    import gc
    import weakref

    threads.set_num_threads(4)
    array = np.zeros(100)
    run(who, np.zeros(9, np.int64))
    gone = weakref.ref(array)
    run(lambda thread, threads, sync, scratch, a: None, array)
    del array
    gc.collect()
    assert gone() is None


# --- calls of compiled code -----------------------------------------------------------------------------------------


@thread_kernel
def neighbours_by_address(thread, threads, sync, scratch, job):
    """As `sum_of_neighbours`, for what lies at `job`: rounds, then the numbers; and 100 jobs taken once each."""
    values = job + 8
    out = values + 8 * threads
    for _ in range(load_int(job)):
        store_int(out + 8 * thread, load_int(values + 8 * ((thread + 1) % threads)) + 1)
        barrier_at(sync, threads)
        store_int(values + 8 * thread, load_int(out + 8 * thread))
        barrier_at(sync, threads)
    number = next_job_at(sync)
    while number < 100:
        atomic_add(out + 8 * threads, number)
        number = next_job_at(sync)


@jit
def call_it(caller, function, job, most):
    return threads.run_compiled(caller, function, job, most, threads.UNLIMITED)


def neighbours(count, rounds=500):
    numbers = np.zeros(2 + 2 * count, np.int64)
    numbers[0] = rounds
    function = neighbours_by_address.address()
    arguments = threads.thread_context(), function, numbers.ctypes.data, threads.MOST_THREADS
    if not call_it(*arguments):
        threads.start_workers()
        assert call_it(*arguments)
    assert numbers[1:].tolist() == [rounds] * (2 * count) + [4950]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_compiled_code_calls_all_threads(count):
    threads.set_num_threads(count)
    for _ in range(3):
        neighbours(count)
    assert not threads._pool.busy()


def test_compiled_code_calls_while_the_threads_are_at_work():
    """The inner call runs on its caller's thread alone."""
    threads.set_num_threads(2)
    run(lambda thread, count, sync, scratch: neighbours(1, 10))
    neighbours(2)


def test_compiled_calls_of_several_python_threads_at_once():
    threads.set_num_threads(1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [neighbours(1, 50) for _ in range(20)], range(4)))


def test_a_late_worker_has_short_jobs_run_alone_for_a_while():
    shared, address = threads._shared, threads._shared_address
    before = shared[["penalty", "alone_until"]].copy()
    milli, now = 1_000_000, 10**15
    try:
        shared["penalty"] = shared["alone_until"] = 0
        seen = []
        for waited in (11 * milli, 11 * milli, 10 * milli, 0, 11 * milli):  # 10 ms is what was gained by dividing
            threads._judge(address, 2, 10 * milli, waited, now)
            seen.append((int(shared["penalty"]), int(shared["alone_until"]) - now - 11 * milli))
        assert seen == [(200_000, 200_000), (400_000, 400_000), (200_000, 400_000), (100_000, 400_000), (200_000, 200_000)]
        shared["penalty"], shared["alone_until"] = 40 * milli, now - milli
        threads._judge(address, 2, milli, 2 * milli, now)
        assert shared["alone_until"] == now + 2 * milli + 50 * milli  # never longer
        shared["penalty"], shared["alone_until"] = 50 * milli, now - 60 * milli
        threads._judge(address, 2, milli, 2 * milli, now)
        assert shared["alone_until"] == now + 2 * milli + 200_000  # long ago: that is forgotten
        shared["penalty"] = shared["alone_until"] = 0
        threads._judge(address, 8, milli, 5 * milli, now)  # eight threads gain more
        assert shared["alone_until"] == 0
    finally:
        for name in ("penalty", "alone_until"):
            shared[name] = before[name]


def test_threads_that_nap_where_the_system_cannot_wake_them():
    program("""
        import ctypes
        from fastnet.kernels.runtime import wait
        threads.set_num_threads(3)
        shared = threads._shared
        shared["wait"] = ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value
        shared["wait_kind"] = wait.NAP  # before there are workers
        for _ in range(20):
            time.sleep(0.002)
            product()
    """ if os.name != "nt" else "product()")


@linux
def test_an_idle_worker_sleeps():
    program("""
        product()
        worker, = threads._pool.workers
        for _ in range(1000):
            time.sleep(0.01)
            state = open(f"/proc/self/task/{worker.native_id}/stat").read().rsplit(")", 1)[1].split()[0]
            if state == "S":
                break
        assert state == "S", state
    """)


def test_every_system_has_a_way_to_wait():
    shared = np.zeros((), SHARED_RECORD)
    wait.set_up(shared)
    assert shared["wait"] != 0
    assert shared["wait_kind"] != wait.NAP or sys.platform not in ("linux", "darwin", "win32")
    assert shared["spins"] > 0


def test_spinning_is_calibrated_with_the_clock():
    shared, room = np.zeros((), SHARED_RECORD), np.zeros(2, np.int64)
    wait.set_up(shared)
    before = shared["spins"]
    wait.calibrate(shared.ctypes.data, room.ctypes.data)
    assert shared["spins"] > 0
    shared["clock"], shared["spins"] = 0, before
    wait.calibrate(shared.ctypes.data, room.ctypes.data)
    assert shared["spins"] == before, "a system without a clock"


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "error"), [
    (0, ValueError), (-1, ValueError), (1.5, ValueError), (True, ValueError), ("two", ValueError), (2.0, ValueError),
    (1_000_000, ValueError),
])
def test_set_num_threads_mistakes(given, error):
    before = threads.get_num_threads()
    with pytest.raises(error, match=r"set_num_threads got .*expected a whole number between 1 and 1024, or None"):
        threads.set_num_threads(given)
    assert threads.get_num_threads() == before


def test_set_num_threads():
    threads.set_num_threads(5)
    assert threads.get_num_threads() == 5
    threads.set_num_threads(np.int64(2))
    assert threads.get_num_threads() == 2
    threads.set_num_threads(None)
    assert threads.get_num_threads() == threads.available_cores()


def test_no_more_threads_to_be_had():
    """Calls run on those there are, and on more when the number is set again and the system has more."""
    program("""
        start, allowed = threading.Thread.start, 0

        def refuse(thread):
            global allowed
            if not allowed:
                raise RuntimeError("can't start new thread")
            allowed -= 1
            start(thread)

        def who(thread, threads, sync, scratch, seen):
            seen[thread] = threads

        threading.Thread.start = refuse
        for more, count in ((0, 1), (2, 3), (0, 3), (1, 4)):
            allowed = more
            threads.set_num_threads(4)
            for _ in range(2):
                seen = np.zeros(9, np.int64)
                threads.run(who, seen)
                assert seen.tolist() == [count] * count + [0] * (9 - count), seen
            threads.start_workers()
            assert threads._shared["share"] == count  # so that run_compiled asks for no more
            assert threads.get_num_threads() == 4
            product()
    """)


def test_callers_of_a_region_share_the_threads():
    threads.set_num_threads(6)
    with threads.region():
        assert threads._pool.share() == 6
        with threads.region(), threads.region():
            assert threads._pool.share() == 2
        with pytest.raises(KeyError), threads.region():
            raise KeyError
        assert threads._pool.share() == 6


@pytest.mark.parametrize(("text", "expected"), [("3", 3), (" 1 ", 1), ("", None)])
def test_environment_sets_the_threads(text, expected, monkeypatch):
    monkeypatch.setenv("FASTNET_NUM_THREADS", text)
    assert cores.threads_at_start() == (expected or threads.available_cores())


def test_the_environment_is_read_at_the_start():
    assert program("print(threads.get_num_threads()); product()", FASTNET_NUM_THREADS="3") == "3\n"


@pytest.mark.parametrize("text", ["0", "-2", "many", "1.5"])
def test_environment_mistakes(text, monkeypatch):
    monkeypatch.setenv("FASTNET_NUM_THREADS", text)
    with pytest.raises(ValueError, match=rf"FASTNET_NUM_THREADS is '{text}': expected a whole number between 1 and 1024"):
        cores.threads_at_start()


@linux
def test_affinity_sets_the_threads():
    out = program("""
        cpu = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpu})
        threads.set_num_threads(None)
        print(threads.get_num_threads(), threads.available_cores())
        threads.set_num_threads(3)  # more than there are is slow, not wrong
        product()
    """)
    assert out.split() == ["1", "1"]


@linux
def test_affinity_before_the_start():
    cpu = min(os.sched_getaffinity(0))
    text = f"import os; os.sched_setaffinity(0, {{{cpu}}}); import fastnet; print(fastnet.get_num_threads())"
    environment = {key: value for key, value in os.environ.items() if key != "FASTNET_NUM_THREADS"}
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT, timeout=60,
                            env={**environment, "PYTHONPATH": str(ROOT)})
    assert result.stdout == "1\n", result.stderr


# --- many callers ---------------------------------------------------------------------------------------------------


def test_several_python_threads_at_once(divided):
    threads.set_num_threads(3)
    rng = np.random.default_rng(1)
    jobs = [(rng.standard_normal((50 + i, 70)), rng.standard_normal((70, 90))) for i in range(6)]
    right = [np.empty((len(a), 90)) for a, _ in jobs]
    for c, (a, b) in zip(right, jobs, strict=True):
        matmul(c, a, b)

    def work(number):
        a, b = jobs[number]
        for _ in range(100):
            c = np.full((len(a), 90), np.nan)
            matmul(c, a, b)
            assert c.tobytes() == right[number].tobytes()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_threads_that_end_take_their_memory_along():
    before = threading.active_count()
    for _ in range(5):
        thread = threading.Thread(target=run, args=(who, np.zeros(9, np.int64)))
        thread.start()
        thread.join()
    assert threading.active_count() <= before + threads.get_num_threads()


# --- many processes -------------------------------------------------------------------------------------------------


@posix
def test_a_child_made_by_fork_after_use():
    program("""
        product()
        for _ in range(3):
            child = os.fork()
            if child == 0:
                try:
                    product()
                    assert len(threads._pool.workers) == 1
                    product()
                finally:
                    os._exit(0 if np.allclose(product(), expected, atol=1e-3) else 1)
            assert os.waitpid(child, 0)[1] == 0
            product()
    """)


@posix
def test_a_child_made_by_fork_while_other_threads_call():
    program("""
        product()
        stop = False

        def work():
            while not stop:
                product()

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for _ in range(5):
            child = os.fork()
            if child == 0:
                try:
                    product()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        stop = True
        for worker in workers:
            worker.join()
    """)


@pytest.mark.parametrize("method", [pytest.param("fork", marks=posix), "spawn"])
def test_pools_of_processes(method, tmp_path):
    """With a pool in every worker of a pool."""
    script = tmp_path / "pools.py"
    script.write_text(textwrap.dedent(PRODUCT) + textwrap.dedent("""
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing

        def inner(_):
            return float(product().sum())

        def outer(method):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
                return [inner(0), *pool.map(inner, range(2))]

        if __name__ == "__main__":
            product()
            method = sys.argv[1]
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
                sums = [value for values in pool.map(outer, [method] * 2) for value in values]
            assert len(set(sums)) == 1, sums
            product()
    """))
    result = subprocess.run([sys.executable, script, method], capture_output=True, text=True, timeout=180, cwd=ROOT,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_NUM_THREADS": "2"})
    assert result.returncode == 0, result.stderr


def test_calls_while_the_interpreter_ends():
    program("""
        import atexit
        atexit.register(product)
        product()
    """)


# --- errors and interruptions ---------------------------------------------------------------------------------------


def failing(which):
    def kernel(thread, threads, sync, scratch):
        if thread in which:
            raise ArithmeticError(f"thread {thread}")
        barrier(sync, threads)  # nobody may wait for ever for the one that failed

    return kernel


@pytest.mark.parametrize("which", [{0}, {1}, {2}, {0, 2}, {1, 2}, {0, 1, 2}])
def test_an_error_in_any_thread_is_raised(which):
    threads.set_num_threads(3)
    for _ in range(3):
        with pytest.raises(ArithmeticError):
            run(failing(which))
    seen = np.zeros(9, np.int64)
    run(who, seen)
    assert seen.tolist() == [3] * 3 + [0] * 6


def test_arguments_that_do_not_compile():
    """Every thread fails to compile; the next call finds them all at work."""
    threads.set_num_threads(2)
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)typing|type"):
            run(who, object())
    seen = np.zeros(9, np.int64)
    run(who, seen)
    assert seen.tolist() == [2, 2] + [0] * 7


@posix
def test_ctrl_c_while_kernels_run():
    """Interrupted hundreds of times at any moment: no hang, and the product after each is right and on all threads."""
    program("""
        import random
        product()
        me, go, stop = os.getpid(), threading.Event(), threading.Event()

        def press():
            go.wait()  # for somebody who catches it
            while not stop.wait(random.uniform(0.0005, 0.003)):
                os.kill(me, signal.SIGINT)

        caught = 0
        presser = threading.Thread(target=press)

        def interrupted():
            global caught
            while caught < 300:
                try:
                    while True:
                        gemm.matmul(np.empty((60, 60), np.float32), a[:60], b[:, :60])
                except KeyboardInterrupt:
                    caught += 1

        presser.start()
        while True:
            try:
                go.set()
                interrupted()
                stop.set()
                presser.join()
                break
            except KeyboardInterrupt:
                pass
        product()
        assert not threads._pool.busy()
    """)
