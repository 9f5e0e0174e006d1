"""Kernels compiled in several processes at once, for one cache."""
import os
import subprocess
import sys

import pytest
from fastnet.kernels.codegen import beside
from fastnet.kernels.program import ops


def test_processes_share_kernels_out_and_keep_them(tmp_path):
    program = """
from fastnet.kernels.codegen import beside, cache, linking
from fastnet.kernels.program import ops
jobs = [(kernel.name, str(element)) for kernel in (ops.mean_loss, ops.mask) for element in kernel.elements()]
assert sorted(beside.compile_all(jobs, 2)) == sorted(jobs)
kept = {file.name for file in cache.CACHE.iterdir()}
assert sum(name.endswith(".nbc") for name in kept) == len(jobs), kept
for job in jobs:
    linking.ensure(*job)
assert kept == {file.name for file in cache.CACHE.iterdir()}
"""
    result = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, timeout=300,
                            env={**os.environ, "FASTNET_CACHE_DIR": str(tmp_path)})
    assert result.returncode == 0, result.stderr


def test_nothing_to_do_starts_nothing():
    assert list(beside.compile_all([])) == []


def test_a_process_that_fails_ends_the_rest(capfd):
    with pytest.raises(beside.CompilationError, match="could not be compiled"):
        list(beside.compile_all([("fastnet.kernels.program.ops:no_such_kernel", "float64")], 1))
    assert "no_such_kernel" in capfd.readouterr().err


def test_whoever_stops_early_leaves_no_process():
    jobs = beside.compile_all([(ops.mean_loss.name, "float64")] * 50, 2)
    next(jobs)
    jobs.close()


ENSURE = """
from fastnet.kernels.codegen import beside, cache, linking
from fastnet.kernels.program import interpreter, ops
beside._busy, beside._LEAST = lambda: {busy}, 1
jobs = [(kernel.name, str(element)) for kernel in (ops.mask, ops.mean_loss) for element in kernel.elements()]
started, popen = [], beside.subprocess.Popen
def watched(*arguments, **options):
    started.append(popen(*arguments, **options))
    return started[-1]
beside.subprocess.Popen = watched
beside.ensure_all([("a.users:kernel", "float64"), *jobs], {cores})
print(len(started), [process.poll() for process in started], all(linking.is_at_hand(*job) for job in jobs))
beside.ensure_all(jobs, {cores})
print(len(started))
"""


@pytest.mark.parametrize(("busy", "cores", "processes"), [(False, 2, 1), (True, 2, 0), (False, 1, 0)])
def test_a_first_use_shares_out_what_is_missing_where_cores_are_free(busy, cores, processes, tmp_path):
    """And never a kernel of the user's, whose module may be a program."""
    result = subprocess.run([sys.executable, "-c", ENSURE.format(busy=busy, cores=cores)], text=True, capture_output=True,
                            timeout=300, env={**os.environ, "FASTNET_CACHE_DIR": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{processes} {[0] * processes} {processes > 0}", str(processes)]
