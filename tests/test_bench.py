"""Every benchmark collects, verifies its results and runs once, on tiny sizes; the timing itself is right."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")

from bench.harness import race, report, table
from bench.studies import gemm_ladder, layer_sizes, loop_floors
from fastnet.gate import statistics

ROOT = Path(__file__).parent.parent
STEMS = ("full", "relu", "softmax", "cross_entropy", "sgd", "gemm", "step", "gram", "sweep", "dataset", "compile", "fit",
         "leaky_relu", "tanh", "sigmoid", "dropout", "batch_norm", "average_pool", "mean_squared_error", "estimator", "conv", "maxpool", "flatten", "images", "on_batch")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """All benchmarks, each run once in one process: what it printed, and what it stored."""
    folder = tmp_path_factory.mktemp("bench")
    env = os.environ | {"FASTNET_BENCH": "tiny", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *(str(ROOT / "bench" / f"bench_{stem}.py") for stem in STEMS), "-q", "-rfE",
               "-p", "no:cacheprovider", "-o", "addopts=", "--benchmark-quiet", f"--benchmark-json={folder / 'run.json'}"]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, cwd=folder)
    assert (folder / "run.json").is_file(), done.stdout + done.stderr
    return done, json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("stem", STEMS)
def test_a_benchmark_runs_once(stem, tiny_run):
    done, run = tiny_run
    assert not re.search(rf"^(FAILED|ERROR) .*bench_{stem}\.py", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert any(f"bench_{stem}.py" in benchmark["fullname"] for benchmark in run["benchmarks"]), "nothing was timed"


def test_a_run_says_what_its_figures_depend_on(tiny_run):
    done, run = tiny_run
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"cpu", "threads", "numpy", "numba", "blas"} <= run["machine_info"]["fingerprint"].keys()
    assert len(table.rows(run["benchmarks"])) == len(run["benchmarks"])


def test_every_benchmark_is_among_these():
    assert {file.stem.removeprefix("bench_") for file in (ROOT / "bench").glob("bench_*.py")} == set(STEMS)


def test_who_computes_something_else_is_not_timed(benchmark):
    contest = race.Race(benchmark, 0.01)
    with pytest.raises(AssertionError, match=r"numpy is wrong by 0\.5 of the largest number"):
        contest({"fastnet": lambda: np.ones(3), "numpy": lambda: np.array([1, 0.5, 1])}, expected=np.ones(3),
                tolerance=1e-6)
    benchmark.pedantic(int)  # the fixture must be used


def test_a_race_records_both_sides_and_the_ratio(benchmark, monkeypatch):
    monkeypatch.setenv("FASTNET_BENCH", "full")

    def work(count):
        return lambda: sum(range(count))

    race.Race(benchmark, 0.01)({"fastnet": work(2000), "slow": work(20_000)}, rounds=7, kernel="sum")
    if benchmark.disabled:
        pytest.skip("benchmarks are disabled")
    against = benchmark.extra_info["against"]["slow"]
    assert len(benchmark.stats.stats.data) == 7
    assert against["low"] <= against["ratio"] <= against["high"]
    assert against["ratio"] > 1  # ten times the work; how much more it takes is for a quiet machine


def test_an_unknown_mode_is_refused(monkeypatch):
    monkeypatch.setenv("FASTNET_BENCH", "quick")
    with pytest.raises(ValueError, match="expected one of full, gate, tiny"):
        race.mode()


def test_a_ratio_and_its_interval():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    drift = np.exp(rng.normal(0, 0.5, 15))  # the machine's, shared by both sides of a round
    a = drift * np.exp(rng.normal(0, 0.01, 15))
    estimate = statistics.paired_ratio(a, 1.15 * drift)
    assert estimate.low <= estimate.ratio <= estimate.high
    assert 1.13 < estimate.low < 1.15 < estimate.high < 1.17
    assert statistics.paired_ratio([1.0], [2.0]) == (pytest.approx(2), 0, np.inf, 1)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1, 2], [1]), ([1], [0]), ([np.nan], [1])])
def test_timings_that_make_no_sense_are_refused(a, b):
    with pytest.raises(ValueError):
        statistics.log_ratios(a, b)


def stored_run(day, seconds):
    """A run as pytest-benchmark stores it."""
    info = {"kernel": "gemm", "shape": "3x4x5 <b>", "dtype": "float32", "layout": "forward", "flops": 1e6, "bytes": 1e4,
            "gflops": 1e-3 / seconds, "gbs": 1e-5 / seconds, "share": 0.5, "limit": "fma", "error": 1e-7,
            "against": {"numpy": {"seconds": 2 * seconds, "ratio": 2.0, "low": 1.9, "high": 2.2, "error": 1e-7}}}
    limits = {"fma_peak": {"float32": 2e11, "float64": 1e11}, "copy_bandwidth": {"cache": 2e11, "memory": 3e10},
              "reference_seconds": 1e-3, "busy": "the machine is busy" if day == 2 else ""}
    fingerprint = {"cpu": "a CPU", "threads": 2, "numpy": "2.4"}
    return {"datetime": f"2026-01-{day:02}T00:00:00", "commit_info": {"id": "0123456789ab", "dirty": True},
            "machine_info": {"limits": limits, "fingerprint": fingerprint},
            "benchmarks": [{"name": "test_forward", "fullname": "bench/bench_gemm.py::test_forward",
                            "extra_info": info, "stats": {"median": seconds}},
                           {"name": "test_sweep", "fullname": "bench/bench_sweep.py::test_rates",
                            "extra_info": {**info, "kernel": "sweep", "rates": day}, "stats": {"median": seconds}}]}


def test_the_report_stands_alone(tmp_path):
    for day in (1, 2):
        (tmp_path / f"{day}.json").write_text(json.dumps(stored_run(day, 0.1 * day)))
    html = report.write(tmp_path, tmp_path / "report.html").read_text()
    assert "http" not in html and "<script" not in html, "the page must need no network"
    assert html.count("<svg") == html.count("</svg>") >= 4
    assert "3x4x5 &lt;b&gt;" in html and "<b>" not in html
    assert "numpy: 2x, 95 % interval 1.9 to 2.2" in html
    assert "the machine is busy: limits and speeds are lower" in html
    assert "a CPU" in html and "with changes" in html and "prefers-color-scheme: dark" in html


def test_no_share_is_above_what_is_possible(tmp_path):
    info = {"kernel": "gemm", "layout": "forward", "share": 0.934}
    assert table.share_of_peak(info) == "93%"
    assert table.share_of_peak({**info, "share": 1.07}) == "100%, limit measured while busy"
    assert table.share_of_peak({**info, "share": 1.6, "layout": "symmetric"}) == "1.6 x: work saved"
    run = stored_run(1, 0.1)
    run["benchmarks"][0]["extra_info"]["share"] = 1.7
    (tmp_path / "1.json").write_text(json.dumps(run))
    html = report.write(tmp_path, tmp_path / "report.html").read_text()
    assert "Busy machine</strong>: a kernel was faster than the limit" in html and "170%" not in html and "<strong>100%" in html


def test_the_figures_on_top_say_what_was_trained(tmp_path):
    for day in (1, 2):
        run = stored_run(day, 0.1)
        for kernel, seconds in (("MLPClassifier.fit", 0.3), ("fit", 0.4)):
            info = {**run["benchmarks"][0]["extra_info"], "kernel": kernel, "shape": "course: 9x3-2, 7 epochs"}
            run["benchmarks"].append({"name": kernel, "extra_info": info, "stats": {"median": seconds}})
        run["benchmarks"] = run["benchmarks"][2:2 + day]  # the older run lacks the newer one's: no curve of either
        (tmp_path / f"{day}.json").write_text(json.dumps(run))
    html = report.write(tmp_path, tmp_path / "report.html").read_text()
    tiles = html.partition('class="tiles">')[2].partition("</header>")[0]
    assert "400 ms" in tiles and "to train course: 9x3-2, 7 epochs, float32" in tiles and "300 ms" not in tiles
    assert "<h2>History</h2>" not in html


def test_a_sweep_has_a_chart_per_job_and_a_rival_a_line(tmp_path):
    run = stored_run(1, 0.1)
    sweep = run["benchmarks"][1]
    sweep["extra_info"]["against"]["torch"] = sweep["extra_info"]["against"]["numpy"]
    for job in ("2 rates, small", "4 rates, small", "4 rates, large"):
        run["benchmarks"].append({**sweep, "extra_info": {**sweep["extra_info"], "shape": job, "rates": int(job[0])}})
    (tmp_path / "1.json").write_text(json.dumps(run))
    html = report.write(tmp_path, tmp_path / "report.html").read_text()
    assert html.count('aria-label="Sweeps of small, float32"') == html.count('aria-label="Sweeps of large, float32"') == 1
    assert "<span>numpy 2.00 [1.90, 2.20]</span><br><span>torch 2.00 [1.90, 2.20]</span>" in html


def test_a_report_of_nothing_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Make one with python -m bench\.run"):
        report.write(tmp_path, tmp_path / "report.html")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ladder_climbs_and_draws(tmp_path, capsys, monkeypatch, dtype):
    monkeypatch.setattr(gemm_ladder, "ROUNDS", 1)
    gemm_ladder.main(["--shape", "9x32x7", "--dtype", dtype, "--picture", str(tmp_path / "ladder.png")])
    assert (tmp_path / "ladder.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert all(step in printed for step in gemm_ladder.IDEAS)


@pytest.mark.parametrize("shape", ["9x32", "0x16x4", "4x15x4", "axbxc"])
def test_the_ladder_refuses_other_shapes(shape):
    with pytest.raises(SystemExit):
        gemm_ladder.main(["--shape", shape])


def test_layer_sizes_in_parts(tmp_path, capsys, monkeypatch):
    parts = [tmp_path / "small.csv", tmp_path / "large.csv"]
    monkeypatch.setattr(layer_sizes, "TURN", 1e-6)
    for part, sizes in zip(parts, ("1,2", "2,3"), strict=True):
        monkeypatch.setattr(sys, "argv", ["", "--sizes", sizes, "--turns", "1", "--layouts", "C", "--save", str(part)])
        layer_sizes.main()
    rows = layer_sizes.merge(map(str, parts))
    assert {row.size for row in rows} == {1, 2, 3}
    assert len(rows) == len({row[:4] for row in rows}) == (7 + 9 + 9) * 2  # a loss needs two classes
    for row in rows:  # the best times of each side, whichever part they are from
        alone = [one for part in parts for one in layer_sizes.merge([str(part)]) if one[:4] == row[:4]]
        assert row.seconds == min(one.seconds for one in alone)
        assert row.ratio * row.seconds == pytest.approx(min(one.ratio * one.seconds for one in alone))
    picture = tmp_path / "sizes.svg"
    monkeypatch.setattr(sys, "argv", ["", "--merge", *map(str, parts), "--picture", str(picture)])
    capsys.readouterr()
    layer_sizes.main()
    assert "50 comparisons" in capsys.readouterr().out
    assert "full backward" in picture.read_text()


def test_floors_of_a_loop(capsys, monkeypatch):
    monkeypatch.setattr(loop_floors, "ROWS", {"small": ((6, 5, 3), 4)})
    monkeypatch.setattr(loop_floors, "TURN", 1e-6)
    monkeypatch.setattr(loop_floors, "REST", 0)
    monkeypatch.setattr(sys, "argv", ["", "--rounds", "1", "--dtype", "float64"])
    loop_floors.main()
    printed = capsys.readouterr().out
    assert all(call in printed for call in ("6-5 forward", "5-3 backward", "5-3 update", "CrossEntropyLayer"))
    assert "at the floor in every call, NumPy / fastnet would be" in printed
