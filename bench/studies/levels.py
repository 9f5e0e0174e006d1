"""Kernels for a level of CPUs, as a wheel carries them: are their bits those of a compilation here, and what do they cost?

    python -m bench.studies.levels [--turns 9]

First, for every level that this CPU satisfies: networks are trained and layers called in three processes, whose kernels are

- compiled for the level as `.github/scripts/compiled_wheel.py` does it;
- carried by an installation that has these files, none of which is compiled anew;
- compiled here by an installation that has no kernel but is told to use the level.

All parameters, losses and outputs must have the same bits. Then jobs with kernels for the highest level, and with kernels
for this very CPU, run in a process each, one after the other in each turn, on one thread. The ratio is the median over the
turns of the CPU seconds for the very CPU divided by those for the level: smaller is better for the very CPU.
"""
from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fastnet.kernels.codegen import cache
from fastnet.kernels.codegen.carried import LEVELS, MANIFEST, satisfied

import fastnet
from bench.studies.first_minute import SETTING

WORTH = 0.98  # of the level's time: above it, code for the very CPU is not worth a compilation

PROGRAM = SETTING + """
import hashlib, sys, time
from fastnet import ConvLayer, FlattenLayer, MaxPoolLayer
from fastnet.kernels.codegen import cache
from fastnet.kernels.codegen.carried import CARRIED

def images():
    rng = np.random.default_rng(0)
    layers = (ConvLayer(3, 16, 3, np.float32, rng), ReluLayer(), MaxPoolLayer(2), ConvLayer(16, 32, 3, np.float32, rng),
              ReluLayer(), MaxPoolLayer(2), FlattenLayer(), FullLayer(2048, 5, np.float32, rng), SoftMaxLayer())
    model = Sequential(layers, CrossEntropyLayer())
    t = one_hot(np.arange(64) % 5, 5, np.float32)
    model.losses = model.fit(rng.random((64, 3, 32, 32), np.float32), t, 2, 0.1, progress=False)
    return model

def fitted(n_i, hidden, dtype, n, epochs):
    rng = np.random.default_rng(0)
    model = network(n_i, hidden, dtype, rng)
    losses = model.fit(rng.random((n, n_i), dtype), one_hot(np.arange(n) % 5, 5, dtype), epochs, 0.1, progress=False)
    model.losses = losses
    return model

def by_hand(dtype=np.float32, steps=4):
    rng = np.random.default_rng(0)
    model, x = network(3072, 500, dtype, rng), rng.random((128, 3072), dtype)
    t = one_hot(np.arange(128) % 5, 5, dtype)
    for _ in range(steps):
        y = x
        for layer in model.layers:
            y = layer.forward(y)
        model.losses = np.array([model.loss.forward(y, t)])
        dy = model.loss.backward()
        for layer in reversed(model.layers):
            dy = layer.backward(dy)
        for layer in model.layers:
            if hasattr(layer, "update_param"):
                layer.update_param(0.1)
    return model

JOBS = {
    "course, float32": lambda: fitted(3072, 500, np.float32, 2500, 4),
    "course, float64": lambda: fitted(3072, 500, np.float64, 1000, 4),
    "small": lambda: fitted(20, 16, np.float64, 100, 200),
    "images": images,
    "layers by hand": by_hand,
}
digest = hashlib.sha256()
for name, job in JOBS.items():
    model = job()
    for layer in model.layers:
        for attribute in ("W", "b", "y"):
            if isinstance(getattr(layer, attribute, None), np.ndarray):
                digest.update(np.ascontiguousarray(getattr(layer, attribute)).tobytes())
    digest.update(np.asarray(getattr(model, "losses", 0.0)).tobytes())
print(CARRIED.level, cache.cache_info().kernels, cache.CACHE, digest.hexdigest(), sep="|", flush=True)
for line in sys.stdin:
    started, rounds = time.process_time(), 0
    while rounds < 2 or time.process_time() - started < 0.3:
        JOBS[line.strip()]()
        rounds += 1
    print((time.process_time() - started) / rounds, flush=True)
"""
NAMES = ["course, float32", "course, float64", "small", "images", "layers by hand"]


def install(to: Path) -> Path:
    """Copy the package as a wheel has it; returns the folder for compiled kernels."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastnet.__file__).parent, to / "fastnet", ignore=ignored)
    shutil.copytree(Path(cache.__file__).parents[1], to / "fastnet" / "kernels", ignore=ignored, dirs_exist_ok=True)
    place = to / "fastnet" / "kernels" / "compiled"
    place.mkdir(mode=0o755)
    return place


def started(site: Path, folder: Path, program: str = PROGRAM, **settings: str) -> subprocess.Popen[str]:
    """Start a program with an installation, and a folder for its cache."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FASTNET_"))}
    return subprocess.Popen([sys.executable, "-c", program], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            cwd=folder.parent, env={**plain, "PYTHONPATH": str(site), "FASTNET_CACHE_DIR": str(folder),
                                                    "FASTNET_NUM_THREADS": "1", **settings})


def report(process: subprocess.Popen[str]) -> list[str]:
    """The level, the number of kernels compiled, their folder, and the digest of all results."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("levels: a process failed; it has said why on the error stream.")
    return line.strip().split("|")


def results(site: Path, folder: Path, **settings: str) -> list[str]:
    """What `report` returns, of a process that then ends."""
    process = started(site, folder, **settings)
    found = report(process)
    process.communicate()
    return found


def carry(site: Path, place: Path, level: str, kernels: Path) -> None:
    """Have an installation carry the kernels of a folder, for one level."""
    program = f"""
import json, pathlib
from fastnet.kernels.codegen import carried
digest = carried.pack(pathlib.Path({str(kernels)!r}), pathlib.Path({str(place / f"{level}.kernels")!r}))
print(json.dumps({{"made_for": carried.made_for(), "levels": {{{level!r}: digest}}}}))
"""
    process = started(site, place.parent / "nothing", program)
    (place / MANIFEST).write_text(process.communicate()[0])


def compare_bits(work: Path, level: str) -> bool:
    """Print whether the three processes of a level agree."""
    named = {"NUMBA_CPU_NAME": LEVELS[level].cpu, "NUMBA_CPU_FEATURES": LEVELS[level].features}
    site = work / f"site-{level}"
    place = install(site)
    made = results(site, work / f"made-{level}", **named)
    carry(site, place, level, Path(made[2]))
    used = results(site, work / f"used-{level}")
    (work / "none").mkdir(exist_ok=True)
    carry(site, place, level, work / "none")
    here = results(site, work / f"here-{level}")
    assert (used[:2], here[0], made[0]) == ([level, "0"], level, "None"), (made, used, here)
    same = made[3] == used[3] == here[3]
    verdict = "the same bits" if same else "OTHER BITS"
    print(f"{level}: {made[1]} kernels made, {here[1]} compiled here: {verdict}", flush=True)
    return same


def compare_speed(work: Path, level: str, turns: int) -> None:
    """Print a row for each job."""
    site = work / f"site-{level}"
    shutil.rmtree(site / "fastnet" / "kernels" / "compiled")
    named = {"NUMBA_CPU_NAME": LEVELS[level].cpu, "NUMBA_CPU_FEATURES": LEVELS[level].features}
    sides = [started(site, work / f"made-{level}", **named), started(site, work / "very-cpu")]
    for process in sides:
        report(process)
    print(f"{'CPU seconds of a job':30s}{'level':>10s}{'this CPU':>10s}{'ratio':>8s}{'worth it':>10s}")
    for name in NAMES:
        times: list[list[float]] = [[], []]
        for turn in range(turns):
            for number in (0, 1) if turn % 2 == 0 else (1, 0):
                process = sides[number]
                assert process.stdin is not None and process.stdout is not None
                print(name, file=process.stdin, flush=True)
                times[number].append(float(process.stdout.readline()))
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        print(f"{name:30s}{statistics.median(times[0]):9.4f}s{statistics.median(times[1]):9.4f}s{ratio:8.3f}"
              f"{'yes' if ratio < WORTH else 'no':>10s}", flush=True)
    for process in sides:
        process.communicate()


def main() -> None:
    """Print both tables; exit with 1 where bits differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        levels = satisfied()
        if not levels:
            raise SystemExit("levels: this CPU satisfies no level.")
        same = [compare_bits(work, level) for level in levels]
        compare_speed(work, levels[0], options.turns)
    if not all(same):
        raise SystemExit("levels: kernels of a level must give the same bits, carried or compiled here.")


if __name__ == "__main__":
    main()
