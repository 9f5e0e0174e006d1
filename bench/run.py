"""Run all benchmarks: ``python -m bench.run``

Prints a table, stores the run in pytest-benchmark's format under .benchmarks/, and writes bench/report.html from all
stored runs. Arguments that it does not know go to pytest: ``python -m bench.run -k softmax``.
"""
import argparse
import datetime
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.harness import report

FOLDER = Path(__file__).parent
STORE = FOLDER.parent / ".benchmarks"

# Idle threads of other libraries would spin on the core that whoever is timed next needs.
QUIET_THREADS = {"OPENBLAS_THREAD_TIMEOUT": "4", "KMP_BLOCKTIME": "0"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="only see that every benchmark works; nothing is stored")
    args, for_pytest = parser.parse_known_args(argv)
    command = [sys.executable, "-m", "pytest", str(FOLDER), "--rootdir", str(FOLDER.parent), "-q", "-p",
               "no:cacheprovider", "-o", "addopts=", "-o", "python_files=bench_*.py", "--benchmark-quiet", *for_pytest]
    places = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    env = {**QUIET_THREADS, **os.environ, "FASTNET_BENCH": "tiny" if args.tiny else "full",
           "PYTHONPATH": os.pathsep.join(filter(None, places))}
    if args.tiny:
        return subprocess.run(command, env=env, check=False).returncode
    now = datetime.datetime.now(datetime.timezone.utc)
    stored = STORE / f"{now:%Y%m%d-%H%M%S}.json"
    STORE.mkdir(exist_ok=True)
    code = subprocess.run([*command, f"--benchmark-json={stored}"], env=env, check=False).returncode
    if stored.exists() and not stored.stat().st_size:
        stored.unlink()  # nothing was timed
    if stored.exists():
        print(f"\nstored in {stored}\nsee {report.write(STORE, FOLDER / 'report.html')}")
    return code


if __name__ == "__main__":
    sys.exit(main())
