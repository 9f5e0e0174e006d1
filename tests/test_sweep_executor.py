"""Sweeps on executors: threads, processes, a Dask cluster; workers that die."""
import concurrent.futures as cf
import multiprocessing
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from fastnet.kernels.runtime.pool import set_num_threads

from fastnet import CrossEntropyLayer, FullLayer, Sequential, SoftMaxLayer
from fastnet.sweep import SweepError, lr_sweep, sweep
from fastnet.sweep.run import cluster as cluster_module
from fastnet.sweep.run.cluster import Cluster, LostError
from fastnet.sweep.run.executors import read_mapped, write_mapped
from fastnet.sweep.run.shared import Shared
from tests.sweeps import assert_same, data, small
from tests.test_sweep_function import quadratic


def pool(workers=2):
    return cf.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


ROUNDS = int(os.environ.get("FASTNET_KILLS", 2))
ENGINES = ("gram", "windows", "fused", "layers")


def test_threads_give_the_same_bits():
    with cf.ThreadPoolExecutor(3) as threads:
        for engine in ENGINES:
            assert_same(lr_sweep(**small(engine=engine, executor=threads)), lr_sweep(**small(engine=engine)))
        threads.submit(int).result()  # it is the user's, and still open


def test_processes_give_the_same_bits():
    with pool() as processes:
        for engine in ENGINES:
            assert_same(lr_sweep(**small(engine=engine, executor=processes)), lr_sweep(**small(engine=engine)))


class StudentsDropout:
    """It draws from the global state, as many do, and leaves time to other threads meanwhile."""

    training = True

    def forward(self, x):
        time.sleep(0.0002)
        self.mask = np.random.rand(*x.shape) > 0.3 if self.training else 1
        return x * self.mask

    def backward(self, y_grad):
        return y_grad * self.mask


def with_global_draws(rng):
    return Sequential((StudentsDropout(), FullLayer(12, 3, np.float32, rng), SoftMaxLayer()), CrossEntropyLayer())


def noisy(trial):
    for _ in range(trial.epochs):
        draws = []
        for _ in range(5):
            time.sleep(0.0002)
            draws.append(np.random.rand() + random.random())
        yield {"loss": trial.lr + sum(draws)}


def nested(trial):
    yield {"loss": sweep(noisy, lrs=[trial.lr], epochs=1, seeds=[trial.seed], progress=False).curve("loss").mean()}
    yield {"loss": lr_sweep(**small(build=with_global_draws, lrs=[0.1], seeds=[trial.seed])).losses.mean()}


def test_what_trials_draw_from_global_states_is_decided_by_their_seeds(tmp_path):
    many = dict(lrs="0.001:0.1:log5", epochs=10, seeds=3)
    expected = lr_sweep(**small(build=with_global_draws, **many))
    model = expected.best_model(lr=expected.lrs[0], seed=0)
    np.testing.assert_array_equal(model.history.losses, expected.losses[0, 0])
    halved = lr_sweep(**small(build=with_global_draws, **many, search="halving")).losses
    assert np.array_equal(halved[np.isfinite(halved)], expected.losses[np.isfinite(halved)])
    extended = dict(resume=tmp_path / "sweep.jsonl", keep_states=True)
    lr_sweep(**small(build=with_global_draws, **many | {"epochs": 4, "lrs": expected.lrs[:2]}, **extended))
    assert_same(lr_sweep(**small(build=with_global_draws, **many, **extended)), expected)
    function = {name: sweep(train, [0.1, 0.2], 2, 3, progress=False) for name, train in (("noisy", noisy), ("nested", nested))}
    with cf.ThreadPoolExecutor(3) as threads, pool() as processes:
        for executor in (threads, processes):
            assert_same(lr_sweep(**small(build=with_global_draws, **many, executor=executor)), expected)
            for name, train in (("noisy", noisy), ("nested", nested)):
                assert_same(sweep(train, [0.1, 0.2], 2, 3, progress=False, executor=executor), function[name])


def test_no_files_are_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pool(1) as processes:
        lr_sweep(**small(executor=processes))
    assert not list(tmp_path.iterdir())


def kill_after_two(workers, journal):
    """Kill processes, given by a function, once two trials are finished."""
    def kill():
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            time.sleep(0.001)
        for worker in workers():
            os.kill(worker, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_broken_pool_keeps_what_is_finished(tmp_path):
    many = dict(lrs="0.001:0.1:log20", epochs=300, seeds=1, resume=tmp_path / "sweep.jsonl")
    with pool() as processes:
        processes.submit(int).result()
        killer = kill_after_two(lambda: list(processes._processes)[:1], many["resume"])
        with pytest.raises(SweepError, match="failed: BrokenProcessPool") as caught:
            lr_sweep(**small(executor=processes, **many))
        killer.join()
    assert caught.value.result.finished < 20
    result = lr_sweep(**small(**many))
    assert result.finished == 20


@pytest.mark.parametrize("n", [50, 256])  # the Gram matrix of 256 rows of float32 has padded rows
def test_arrays_are_mapped_as_they_were(tmp_path, n):
    x, y, _ = data(n)
    shared = Shared(x, y, (x[:5], y[:5]), None, gram=True)
    write_mapped(tmp_path / "thing", shared)
    found = read_mapped(tmp_path / "thing")
    assert found.g.strides == shared.g.strides and not found.g.flags.writeable
    for one, other in [(found.x, x), (found.t, y), (found.g, shared.g), (found.products[0], shared.products[0])]:
        np.testing.assert_array_equal(one, other)


# --- Dask --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="needs the extra fastnet-kernels[dask]")
    import dask

    # LocalCluster closes the nanny of a worker that has not come back after so long; these come back, and die again
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local, \
            distributed.Client(local) as client:
        yield local, client


def test_a_cluster_gives_the_same_bits(cluster):
    _, client = cluster
    for engine in ENGINES:
        expected = lr_sweep(**small(engine=engine))
        assert_same(lr_sweep(**small(engine=engine, executor=client.get_executor())), expected)


def test_a_client_is_as_good_as_its_executor(cluster):
    _, client = cluster
    assert_same(lr_sweep(**small(executor=client)), lr_sweep(**small()))
    found = sweep(quadratic, [0.1, 0.3], 6, 3, executor=client, search="halving")
    np.testing.assert_array_equal(found.curve("loss"), sweep(quadratic, [0.1, 0.3], 6, 3).curve("loss"))


def test_workers_take_the_threads_that_dask_gives_them(cluster):
    _, client = cluster
    client.run(set_num_threads, 8)
    lr_sweep(**small(executor=client.get_executor(), lrs="0.01:0.1:log6"))

    def threads():
        from fastnet.kernels.runtime.pool import get_num_threads
        return get_num_threads()

    assert 1 in client.run(threads).values()


def test_data_are_placed_once(cluster, monkeypatch):
    _, client = cluster
    scattered, scatter = [], client.scatter
    monkeypatch.setattr(client, "scatter", lambda thing, **how: scattered.append(thing) or scatter(thing, **how))
    lr_sweep(**small(executor=client.get_executor(), lrs="0.01:0.1:log8"))
    assert [type(thing).__name__ for thing in scattered] == ["Trials", "Start", "Start"]  # two seeds
    until = time.monotonic() + 10
    while any(client.has_what().values()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(client.has_what().values())  # the cluster forgets them


def kill_at(workers, journal, trials, delay):
    """Kill processes, given by a function, some time after so many trials are finished."""
    def kill():
        while not journal.exists() or journal.read_bytes().count(b'{"trial"') < trials:
            time.sleep(0.0005)
        time.sleep(delay)
        for worker in workers():
            os.kill(worker, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", range(ROUNDS))
def test_all_workers_killed_at_a_random_moment(cluster, tmp_path, number):
    """Late, results that are finished die with their worker before they are fetched; this must never hang."""
    local, client = cluster
    many = dict(lrs="0.001:0.1:log20", epochs=500, seeds=1, validation=None)
    expected = lr_sweep(**small(**many))
    while len(client.nthreads()) < 2:
        time.sleep(0.05)
    draw = random.Random(number)
    journal = tmp_path / "sweep.jsonl"
    killer = kill_at(lambda: [nanny.pid for nanny in list(local.workers.values())], journal, draw.randrange(20),
                     draw.uniform(0, 0.05))
    assert_same(lr_sweep(**small(executor=client.get_executor(), resume=journal, **many)), expected)
    killer.join(10)


def test_a_task_that_dask_cancels_ends_its_future(cluster):
    _, client = cluster
    runner = Cluster(client.get_executor(), "lr_sweep")
    with runner.holding(None):
        future = runner.submit(None, None, None, 1, None, False)
        for task in list(runner.tasks.values()):
            task.cancel()
        with pytest.raises((LostError, AttributeError)):  # or it failed before
            future.result(timeout=20)
        assert runner.recovered(LostError()) and not runner.recovered(ValueError())


def test_the_patience_promised_is_given(cluster, monkeypatch):
    _, client = cluster
    runner = Cluster(client.get_executor(), "lr_sweep")
    asked = []
    monkeypatch.setattr(cluster_module, "PATIENCE", 0.5)
    monkeypatch.setattr(client, "nthreads", lambda: asked.append(1) or {})
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"has had no worker for 0\.5 s"):
        runner.put(3)
    assert len(asked) > 2 and time.monotonic() - started >= 0.5  # it asks the scheduler until the time is over
    monkeypatch.setattr(client, "nthreads", lambda: {"a worker": 1})
    failures = iter([OSError("a worker died"), KeyError("tcp://a")])
    given = []

    def scatter(thing, timeout, **how):
        given.append(timeout)
        error = next(failures, None)
        if error:
            raise error
        return "there"

    monkeypatch.setattr(cluster_module, "PATIENCE", 60)
    monkeypatch.setattr(client, "scatter", scatter)
    assert runner.put(3) == "there" and len(given) == 3 and min(given) > 55


def test_a_killed_worker_costs_nothing_but_time(cluster, tmp_path):
    local, client = cluster
    many = dict(lrs="0.001:0.1:log20", epochs=300, seeds=1, validation=None)
    expected = lr_sweep(**small(**many))
    client.wait_for_workers(2)

    journal = tmp_path / "sweep.jsonl"
    killer = kill_after_two(lambda: [nanny.pid for nanny in list(local.workers.values())[:1]], journal)
    result = lr_sweep(**small(executor=client.get_executor(), resume=journal, **many))
    assert not killer.is_alive()  # it came while the sweep ran
    assert_same(result, expected)
