"""Kernels of arrays on all threads: which threads execute them, what they are given, and what happens without memory."""
import threading

import numpy as np
import pytest
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.runtime import pool
from fastnet.kernels.runtime.team import run
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


@pytest.fixture(autouse=True)
def threads_put_back():
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


@jit
def who(thread, threads, sync, scratch, seen):
    seen[thread] = threads


@jit
def given(thread, threads, sync, scratch, out, number, whole, pair, image):
    out[thread] = number + whole + pair[0] * pair[1] + image[1, 2]


@jit
def greedy(thread, threads, sync, scratch, out, elements, late):
    if thread == late:
        out[0] = np.empty(elements, np.float64).size


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_thread_executes_its_part(count):
    pool.set_num_threads(count)
    for work, expected in ((pool.UNLIMITED, count), (pool.least_work() - 1, 1)):
        seen = np.zeros(9, np.int64)
        run(who, seen, work=work)
        assert seen.tolist() == [expected] * expected + [0] * (9 - expected)


@pytest.mark.parametrize("count", [1, 3])
def test_arguments_of_every_type(count, dtype):
    pool.set_num_threads(count)
    out, image = np.zeros(count), np.arange(6, dtype=dtype).reshape(2, 3)
    run(given, out, 0.5, 1 << 40, (3, 7), image)
    assert out.tolist() == [0.5 + (1 << 40) + 21 + 5] * count


@intrinsic
def owner_of(typingctx, array):
    """The address of what owns an array's memory, or 0."""
    def codegen(context, builder, signature, values):
        owner = make_array(array)(context, builder, values[0]).meminfo
        return builder.ptrtoint(owner, context.get_value_type(types.int64))

    return types.int64(array), codegen


@jit
def owners(thread, threads, sync, scratch, out, pair):
    out[thread] = owner_of(out) + owner_of(pair[0])


def test_threads_count_no_references():
    """Views that threads make of an array would all count references to its one owner."""
    pool.set_num_threads(2)
    out = np.ones(2, np.int64)
    run(owners, out, (np.zeros((2, 3)), 1))
    assert not out.any()


@pytest.mark.parametrize("late", [0, 1, 2])
def test_no_memory_in_any_thread(late):
    pool.set_num_threads(3)
    for _ in range(3):
        with pytest.raises(MemoryError, match="greedy"):
            run(greedy, np.zeros(1), 1 << 60, late)
    seen = np.zeros(9, np.int64)
    run(who, seen)
    assert seen.tolist() == [3] * 3 + [0] * 6


def test_several_python_threads_at_once():
    pool.set_num_threads(2)
    wrong = []

    def call():
        for _ in range(300):
            seen = np.zeros(9, np.int64)
            run(who, seen)
            if seen.tolist() not in ([2, 2] + [0] * 7, [1] + [0] * 8):
                wrong.append(seen)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
