"""What `doctor` and the benchmarks say of a machine: its limits, and whether something else was running."""
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastnet
from fastnet import cli
from fastnet.cli import doctor, warmup
from fastnet.cli import peak as _peak
from fastnet.cli.peak import Rate

ROOT = Path(__file__).parents[1]


class Clocks:
    """Clocks that a function moves on: it takes so many seconds each time, of so many cores' time."""

    def __init__(self, monkeypatch, cores, seconds=lambda call: 1.0):
        self.wall = self.cpu = 0.0
        self.calls, self.cores, self.seconds = 0, cores, seconds
        monkeypatch.setattr(time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(time, "process_time", lambda: self.cpu)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def __call__(self, repeats):
        took = 1e-4 * repeats * self.seconds(self.calls)
        self.calls += 1
        self.wall += took
        self.cpu += took * self.cores


@pytest.mark.parametrize(("cores", "threads", "said"), [
    (2.0, 2, ""), (1.95, 2, ""), (1.0, 1, ""), (7.6, 8, ""),
    (1.2, 2, "the machine is busy: other programs left 1.2 of 2 cores to this one"),
    (0.5, 1, "the machine is busy: other programs left 0.5 of 1 core to this one"),
])
def test_the_time_that_others_take(cores, threads, said, monkeypatch):
    rate = _peak.measure(30.0, Clocks(monkeypatch, cores), threads)
    assert rate.best == pytest.approx(30 / 1e-4)
    assert rate.busy == said


def test_a_neighbour_outside_of_this_system(monkeypatch):
    """Of a virtual machine: its own CPU time tells nothing, but timings differ."""
    rate = _peak.measure(30.0, Clocks(monkeypatch, 2.0, lambda call: 1.0 if call == 9 else 2.0), 2)
    assert rate.spread == pytest.approx(2)
    assert "the median timing of the same work was 2.0 times the best" in rate.busy
    assert rate.best == pytest.approx(30 / 1e-4, rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", np.float64])
def test_limits_of_this_machine(dtype, monkeypatch):
    monkeypatch.setattr(_peak, "_SECONDS", 0.002)
    monkeypatch.setattr(_peak, "_REST", 0)
    for rate in (_peak.fma_peak(dtype), _peak.copy_rate(1 << 16)):
        assert 1e7 < rate.best < 1e14
        assert rate.threads == fastnet.get_num_threads() and rate.spread >= 1


QUIET, BUSY = Rate(2e11, 2.0, 2, 1.0), Rate(1e11, 1.0, 2, 1.0)


def product(share, spread=1.0):
    return doctor.Product("a product", Rate(share * QUIET.best, 1.5, 2, spread))


@pytest.mark.parametrize(("peak", "measured", "said"), [
    (QUIET, [product(0.9), product(0.7)], ""),
    (BUSY, [product(0.8)], "the machine is busy: other programs left 1.0 of 2 cores to this one"),
    (QUIET, [product(0.9), product(0.5, spread=1.9)], "1.9 times the best"),
    (QUIET, [product(1.77)], "a product was faster than the peak measured before it"),
])
def test_doctor_prints_no_shares_of_a_peak_that_is_none(peak, measured, said, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "fma_peak", lambda dtype: peak)
    monkeypatch.setattr(doctor, "products", lambda dtype: measured)
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    if said:
        assert said in printed.lower() and "% of peak" not in printed and "machine busy" in printed
        assert printed.count("The rates above are too low") == 1
    else:
        assert "90% of peak" in printed and "busy" not in printed


def test_one_piece_of_advice_for_both_dtypes():
    """They are busy by different figures, and the advice is the same."""
    lines = doctor.advice([(BUSY, [product(0.8)]), (QUIET._replace(cores=1.2), [product(0.4)])])
    assert sum("Try again when no other programs run" in line for line in lines) == 1
    lines = doctor.advice([(QUIET, [product(0.9)]), (QUIET, [product(0.4)])])
    assert sum("less than half" in line for line in lines) == 1


def test_half_of_the_peak_on_a_quiet_machine_is_odd():
    assert any("less than half" in line for line in doctor.advice([(QUIET, [product(0.4)])]))
    assert not any("less than half" in line for line in doctor.advice([(BUSY, [product(0.4)])]))


def test_products_are_measured(monkeypatch):
    monkeypatch.setattr(_peak, "_SECONDS", 1e-6)
    monkeypatch.setattr(_peak, "_REST", 0)
    measured = doctor.products(np.float32)
    assert len(measured) == 5 and all(1e7 < entry.rate.best < 1e14 for entry in measured)


@pytest.mark.parametrize("cores", [1, 4])
def test_the_bar_of_warmup_ends_where_it_says(cores, monkeypatch, capsys):
    """On several cores processes share out the kernels, and then the fits."""
    monkeypatch.setattr(warmup, "available_cores", lambda: cores)
    monkeypatch.setattr(warmup, "compile_all", lambda jobs, **options: iter(jobs))
    monkeypatch.setattr(warmup.Sequential, "fit", lambda *args, **options: None)
    assert cli.main(["warmup"]) == 0
    parts = list(warmup.warm_up())
    assert len(parts) == 2 * (1 + len(warmup.COMPILED)) + (len(warmup.kernels()) if cores > 1 else 0)
    assert {part.partition(" ")[0].strip(",") for part in parts} - {"none"} == {"float32", "float64"}
    assert f"{len(parts)}/{len(parts)}" in capsys.readouterr().err


def test_a_warmup_that_fails_says_so(monkeypatch, capsys):
    monkeypatch.setattr(warmup, "available_cores", lambda: 2)
    monkeypatch.setattr(warmup, "kernels", lambda: [("fastnet.kernels.no_such_module:kernel", "none")])
    assert cli.main(["warmup"]) == 1
    assert "fastnet: the kernels could not be compiled." in capsys.readouterr().err


def test_every_dtype_is_trained_in_every_engine(monkeypatch):
    engines = []
    monkeypatch.setattr(warmup.Sequential, "fit", lambda *args, engine, **options: engines.append((args[1].dtype, engine)))
    for job in warmup.fits():
        warmup.fit(*job)
    assert sorted(map(str, engines)) == sorted(
        str((np.dtype(dtype), engine)) for dtype in (np.float32, np.float64) for engine in warmup.ENGINES)


# --- what Numba compiles for ------------------------------------------------------------------------------------------

X86 = pytest.mark.skipif(doctor.platform.machine().lower() not in ("x86_64", "amd64"), reason="CPUs of x86-64")
ASK = """
from fastnet.cli import doctor
from fastnet.kernels import simd
from numba.core.registry import cpu_target
assert simd.TARGET == cpu_target.target_context.codegen().magic_tuple()
print(simd.VECTOR_BITS, *simd.TARGET[1:2], doctor.facts()["cpu"], *doctor.settings_of_compiler(), sep="|")
"""


def ask(tmp_path, **settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    result = subprocess.run([sys.executable, "-c", ASK], text=True, capture_output=True, timeout=120,
                            env={**environment, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": str(tmp_path), **settings})
    assert result.returncode == 0, result.stderr
    bits, *others = result.stdout.strip().split("|")
    return int(bits), *others


@X86
@pytest.mark.parametrize(("settings", "bits", "cpu"), [
    ({"NUMBA_CPU_NAME": "generic"}, 128, "generic"),
    ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, 256, "haswell"),
    ({"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": ""}, 128, "nehalem"),
    ({"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+avx2,+fma"}, 256, "nehalem"),
    ({"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": "-avx512f"}, 256, "skylake-avx512"),
])
def test_registers_are_those_that_numba_compiles_for(settings, bits, cpu, tmp_path):
    found_bits, found_cpu, fact, *said = ask(tmp_path, **settings)
    assert (found_bits, found_cpu) == (bits, cpu)
    assert fact.startswith(f"{cpu} (")
    assert f"NUMBA_CPU_NAME={cpu}" in said


@X86
def test_a_name_alone_leaves_the_features_of_the_host(tmp_path):
    """Numba keeps the host's features beside another CPU's name, and so do we."""
    own, named = ask(tmp_path), ask(tmp_path, NUMBA_CPU_NAME="haswell")
    assert own[0] == named[0] or own[0] == 128
    features = own[2].partition(" (")[2]
    assert named[2] == f"haswell ({features}" and own[3:] == ()


@X86
def test_avx_switched_off(tmp_path):
    _, _, fact, *said = ask(tmp_path, NUMBA_ENABLE_AVX="0")
    assert "avx" not in fact and said == ["NUMBA_ENABLE_AVX=0"]
