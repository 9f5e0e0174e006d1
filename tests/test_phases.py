"""Work shared out in pieces: who is late, who is put aside by the system, and that no bit depends on it."""
import subprocess
import sys

import numpy as np
import pytest
from fastnet.kernels.codegen.linking import thread_kernel
from fastnet.kernels.program import interpreter
from fastnet.kernels.program.interpreter import steps
from fastnet.kernels.records import GRAM_UPDATE, OP, SAMPLES, Data, job_at
from fastnet.kernels.runtime import phases, pool
from fastnet.kernels.runtime.wait import clock, nap
from fastnet.kernels.simd import load_int
from numpy_loop import clusters, network, parameters

from fastnet import ConvLayer, CrossEntropyLayer, FlattenLayer, FullLayer, MaxPoolLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.program import runner
from fastnet.program.builder import Builder
from fastnet.training.engine import Engine

FOR_EVER = 1 << 62


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    monkeypatch.setattr(runner, "SMALL_STEP", 0)  # even small steps on all threads
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)
    pool._board[phases.CROWDED] = 0


def trained(kind, dtype):
    """All bits of a training: the losses, then the parameters."""
    if kind == "images":
        x, t = clusters(30, 2 * 8 * 8, 3)
        x = x.reshape(30, 2, 8, 8)
        model = Sequential((ConvLayer(2, 3, 3, dtype=dtype, rng=0), ReluLayer(), MaxPoolLayer(2), FlattenLayer(),
                            FullLayer(48, 3, dtype=dtype, rng=1), SoftMaxLayer()), CrossEntropyLayer())
        trainer = Engine(model, x.astype(dtype), t.astype(dtype), 16)
    else:
        x, t = clusters(50, 33, 5)
        model = network([33, 70, 40, 5], dtype)
        trainer = Engine(model, x.astype(dtype), t.astype(dtype), 8, 0.9, 0.01, form=kind)
    losses = [trainer.epoch(0.1, order, len(x)) for order in (None, np.arange(len(x))[::-1].copy(), None)]
    predicted = trainer.probabilities(np.ascontiguousarray(x[:20], dtype))
    trainer.write()
    state = [layer.W for layer in model.layers if hasattr(layer, "W")] if kind == "images" else parameters(model)
    return [np.asarray(a).tobytes() for a in (*losses, predicted, *state)]


KINDS = ("fused", "gram", "images")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_same_bits_on_a_crowded_machine(kind, count, dtype):
    """Small pieces, and a rest after each of them."""
    pool.set_num_threads(1)
    expected = trained(kind, dtype)
    pool.set_num_threads(count)
    pool._board[phases.CROWDED] = FOR_EVER
    assert trained(kind, dtype) == expected
    pool._board[phases.CROWDED] = 0
    assert trained(kind, dtype) == expected


@thread_kernel
def late_steps(thread, threads, sync, scratch, job):
    """`steps`, which a thread enters up to 5 ms late: how much depends on the thread, the clock and the batch."""
    board = load_int(scratch - 8)
    for _ in range((7 * thread + clock(board, scratch + pool.PACE) // 1000 + job_at(job).start) % 5 * 20):
        nap(board)
    steps(thread, threads, sync, scratch, job)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_where_threads_come_late(kind, dtype, monkeypatch):
    """Some begin when others are halfway, or have done all there was to do; the caller itself is late, too."""
    pool.set_num_threads(1)
    expected = trained(kind, dtype)
    pool.set_num_threads(4)
    monkeypatch.setattr(interpreter, "steps", late_steps)
    for crowded in (0, FOR_EVER):
        for _ in range(3):
            pool._board[phases.CROWDED] = crowded
            assert trained(kind, dtype) == expected


def test_same_bits_beside_others_who_keep_the_cores_busy(dtype):
    pool.set_num_threads(1)
    expected = [trained(kind, dtype) for kind in KINDS]
    spinners = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(3)]
    try:
        pool.set_num_threads(3)
        for _ in range(3):
            assert [trained(kind, dtype) for kind in KINDS] == expected
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def a_sync(count):
    sync = np.zeros(phases.sync_size(count), np.int64)
    sync[16] = pool._board_address
    return sync, sync.ctypes.data


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("small", [0, 1])
def test_each_piece_is_claimed_once(count, small):
    sync, at = a_sync(count)
    phase = 2 * 7 + small
    sync[phases.PHASE] = phase
    total = phases.pieces_in(phase, count)
    assert total == count * (phases.SMALL if small else 1)
    taken = [phases.claim_any(at, i % count, count, phase) for i in range(total)]
    assert sorted(taken) == list(range(total))
    assert taken[0] == 0
    assert phases.claim_any(at, 0, count, phase) == -1
    assert phases.claim_any(at, 0, count, 2 * 6 + small) == -1, "a thread that is a phase behind"
    assert [phases.claim_own(at, i, 2 * 8) for i in range(count)] == [True] * count


def test_the_next_phase_begins_when_all_pieces_are_done():
    sync, at = a_sync(2)
    board = pool._board_address
    phases.finish(board, at, 2, 0)
    assert sync[phases.PHASE] == 0
    pool._board[phases.CROWDED] = FOR_EVER
    phases.finish(board, at, 2, 0)
    assert sync[phases.PHASE] == 3  # the second phase, in small pieces
    for _ in range(2 * phases.SMALL):
        assert sync[phases.PHASE] == 3
        pool._board[phases.CROWDED] = 0
        phases.finish(board, at, 2, 3)
    assert sync[phases.PHASE] == 4


def test_a_machine_is_not_crowded_for_ever():
    pace = np.zeros(16, np.int64)
    pool._board[phases.CROWDED] = 1  # long ago
    phases.give_way(pool._board_address, pace.ctypes.data)
    assert pool._board[phases.CROWDED] == 0


def test_skipping_a_phase_leads_where_running_it_does():
    """Phases end before ops that wait, and go on into the next mini-batch."""
    ops = np.zeros(5, OP)
    ops["split"], ops["wait"], ops["last"] = SAMPLES + 1, [0, 1, 0, 1, 0], 0
    ops["kind"][4] = GRAM_UPDATE
    hyper = runner.CompiledProgram(Builder(np.dtype(float), 1).lower([], (1,))).hyperparameters(0.5, weight_decay=0.5)
    job = runner.new_job(ops, np.dtype(float), Data(0, 0, np.empty((5, 1)), np.arange(5), False, 0, 0), hyper)
    job["batch_size"], job["stop"], job = 2, 5, job.reshape(1).view(np.recarray)[0]
    here, places = interpreter.Position(0, 0, (1.0, 0.0, 0.0, 0.0, 1.0)), []
    while here[0] < 5:
        here = interpreter.skip_ops(job, here)
        places.append((here[0], here[1], here[2][4]))
    assert places == [(0, 1, 1), (0, 3, 1), (2, 1, 0.75), (2, 3, 0.75), (4, 1, 0.75**2), (4, 3, 0.75**2), (6, 0, 0.75**3)]
