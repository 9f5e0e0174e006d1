"""Everything that a release must pass and that needs no network beyond packages.

    make release-check                              # whole: both distributions run the whole suite, some 10 minutes
    python .github/scripts/release_check.py -- -k packaging # what stands behind -- is given to pytest
    python .github/scripts/release_check.py --tag v0.1.0    # also: is that the tag of the version, with changes listed?

It builds the source distribution and, from it, the wheel; checks their metadata; makes of it the wheel that carries compiled
kernels for this system and Python, and trains with that in a new environment; installs the wheel beside Hugging
Face's `kernels`, which has the import name that the folder of kernels has in a checkout, in both orders, with either
uninstalled; and runs the tests of each in an environment of its own outside the checkout, both at once, since most of a
test keeps one core busy. With --jobs 1, one after the other. With --work FOLDER the environments and the tests' output stay
there, to follow a suite, or to run a test that failed once more:

    cd FOLDER/tests-alone && ../of-wheel/bin/python -m pytest tests/test_cache.py
"""
from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
TESTED_WITH = ("tests", "bench", "docs", "examples", "scripts")  # what a wheel's tests need beside what is installed

OURS = """
import numpy as np, fastnet, fastnet.kernels.relu as relu
layer = fastnet.FullLayer(3, 2)
layer.forward(np.ones((4, 3)))
assert "site-packages" in relu.__file__, relu.__file__
"""
THEIRS = "import kernels; assert hasattr(kernels, 'get_kernel') and not hasattr(kernels, 'gemm'), kernels.__file__"


def run(*command: object, cwd: Path, log: IO[str] | None = None, settings: Mapping[str, str] | None = None) -> None:
    """Run a command that must succeed, without the settings of a checkout; what it prints goes to `log`, if given."""
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    subprocess.run([str(part) for part in command], cwd=cwd, env={**environment, **(settings or {})}, check=True, stdout=log,
                   stderr=log)


# The first fit of a new environment: all kernels are carried, whatever the dtype, the engine and the layers
CARRIED = """
import time
started = time.process_time()
import numpy as np, fastnet as f
from fastnet.cli.doctor import facts
from fastnet.cli.warmup import ENGINES, fit
from fastnet.kernels.codegen import cache, carried
rng = np.random.default_rng(0)
model = f.Sequential((f.FullLayer(20, 16, rng=rng), f.ReluLayer(), f.FullLayer(16, 5, rng=rng), f.SoftMaxLayer()),
                     f.CrossEntropyLayer())
model.fit(rng.random((100, 20)), f.one_hot(np.arange(100) % 5, 5), 2, 0.1, progress=False)
print(f"import and first fit: {time.process_time() - started:.2f} CPU seconds; compiled {facts()['compiled']}", flush=True)
for dtype in (np.float32, np.float64):
    for engine in ENGINES:
        fit(np.dtype(dtype).name, engine)
    layers = (f.ConvLayer(3, 16, 3, dtype, rng), f.ReluLayer(), f.MaxPoolLayer(2), f.FlattenLayer(),
              f.FullLayer(256, 4, dtype, rng), f.SoftMaxLayer())
    x, t = rng.random((8, 3, 8, 8), dtype), f.one_hot(np.arange(8) % 4, 4, dtype)
    f.Sequential(layers, f.CrossEntropyLayer()).fit(x, t, 1, 0.1, progress=False)
assert carried.CARRIED.level is not None, carried.CARRIED.reason
assert cache.cache_info().kernels == 0, f"compiled all the same: {[file.name for file in cache.CACHE.iterdir()]}"
"""


class Environment:
    """A clean virtual environment; with `behind`, one that sees another's packages behind its own."""

    def __init__(self, folder: Path, behind: Environment | None = None) -> None:
        venv.create(folder, with_pip=True)
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if behind is None:
            self.pip("install", "pip>=25.1")  # the first with dependency groups
        if behind is not None:
            (self.site / "behind.pth").write_text(f"{behind.site}\n", encoding="utf-8")

    @property
    def site(self) -> Path:
        """Its folder of packages."""
        scheme = "venv" if sys.version_info >= (3, 11) else sysconfig.get_default_scheme()
        paths = {"base": str(self.folder), "platbase": str(self.folder)}
        return Path(sysconfig.get_path("purelib", scheme, vars=paths))

    def pip(self, *arguments: object) -> None:
        """Run pip in it."""
        run(self.python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments, cwd=self.folder)

    def python_runs(self, program: str, **settings: str) -> None:
        """Run a program that must succeed."""
        run(self.python, "-c", program, cwd=self.folder, settings=settings)


def build(work: Path) -> tuple[Path, Path]:
    """The source distribution, and the wheel built from it."""
    run(sys.executable, "-m", "build", "--outdir", work / "dist", ROOT, cwd=work)
    sdist, = (work / "dist").glob("*.tar.gz")
    wheel, = (work / "dist").glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=work)
    return sdist, wheel


def check_version(tag: str | None) -> None:
    """The tag, if there is one, is that of the version in the one place that has it, and the changelog has an entry."""
    text = (ROOT / "fastnet" / "_version.py").read_text(encoding="utf-8")
    version = text.split('"')[-2]
    if tag is not None and tag != f"v{version}":
        raise SystemExit(f"release-check: the tag is {tag}, and fastnet/_version.py says {version}: expected v{version}.")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    if tag is not None and not any(line.startswith(f"## {version}") for line in changes):
        raise SystemExit(f"release-check: CHANGELOG.md has no entry '## {version}': give Unreleased that name and a date.")


def prepare_sdist(sdist: Path, work: Path) -> tuple[Path, Path]:
    """Unpack the source distribution and install it editable, as developers do: the interpreter, and the folder.

    Tests of what is installed make environments that see the packages of this one, but must not find the
    package there. That it can be installed as it is, the wheel shows, which is built from it.
    """
    environment = Environment(work / "of-sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    folder, = (work / "unpacked").iterdir()
    environment.pip("install", "-e", folder, "--group", f"{folder / 'pyproject.toml'}:test")
    return environment.python, folder


def prepare_wheel(wheel: Path, work: Path) -> tuple[Path, Path]:
    """Install the wheel, and put the tests in a folder without the package: the interpreter, and that folder."""
    environment = Environment(work / "of-wheel")
    environment.pip("install", wheel, "--group", f"{ROOT / 'pyproject.toml'}:test")
    folder = work / "tests-alone"
    folder.mkdir()
    for name in TESTED_WITH:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results", "_build"))
    for file in [*ROOT.glob("*.md"), *(path for path in ROOT.glob("*.py") if path.name != "setup.py")]:
        shutil.copy(file, folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return environment.python, folder


def test(prepared: dict[str, tuple[Path, Path]], work: Path, arguments: list[str], jobs: int) -> None:
    """Run the suite in each of the folders prepared, `jobs` at once, and print what each printed when it ends."""

    def run_one(name: str) -> bool:
        python, folder = prepared[name]
        print(f"release-check: the tests of the {name}; what they print: {work / f'{name}.log'}", flush=True)
        with open(work / f"{name}.log", "w", encoding="utf-8") as log:
            try:
                run(python, "-m", "pytest", "-q", "-rs", *arguments, cwd=folder, log=log)
            except subprocess.CalledProcessError:
                return False
        return True

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_one, name): name for name in prepared}
        failed = []
        for done in concurrent.futures.as_completed(running):
            name = running[done]
            print((work / f"{name}.log").read_text(encoding="utf-8"), flush=True)
            print(f"release-check: the tests of the {name} {'passed' if done.result() else 'FAILED'}.", flush=True)
            failed += [] if done.result() else [name]
    if failed:
        raise SystemExit(f"release-check: the tests of the {' and the '.join(failed)} failed.")


def test_compiled(wheel: Path, work: Path) -> Path:
    """Make the wheel that carries compiled kernels, and train with it in a new environment without a cache."""
    run(sys.executable, Path(__file__).with_name("compiled_wheel.py"), wheel, "--to", work / "compiled", cwd=work)
    made, = (work / "compiled").glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", made, cwd=work)
    environment = Environment(work / "of-compiled")
    environment.pip("install", made)
    environment.python_runs(CARRIED, FASTNET_CACHE_DIR=str(work / "no-cache"))
    return made


def test_beside(wheel: Path, work: Path) -> None:
    """Beside Hugging Face's `kernels`, installed in both orders and either uninstalled, both are whole."""
    needed = Environment(work / "needed")  # what both need, once
    needed.pip("install", wheel, "kernels")
    needed.pip("uninstall", "--yes", "fastnet-kernels", "kernels")
    for order in ([wheel, "kernels"], ["kernels", wheel]):
        for gone, left in (("kernels", OURS), ("fastnet-kernels", THEIRS)):
            environment = Environment(Path(tempfile.mkdtemp(dir=work)), behind=needed)
            for what in order:
                environment.pip("install", "--no-deps", what)
            environment.python_runs(OURS)
            environment.python_runs(THEIRS)
            environment.pip("uninstall", "--yes", gone)
            environment.python_runs(left)


def main() -> None:
    """Run all checks, or exit with the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", help="the tag that is being released")
    parser.add_argument("--dist", type=Path, metavar="FOLDER", help="leave the distributions here")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="work in this new folder, and leave it there")
    parser.add_argument("--jobs", type=int, default=2, help="how many suites run at once (default: %(default)s)")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, behind --")
    options = parser.parse_args()
    check_version(options.tag)
    if options.work is not None:
        options.work.mkdir(parents=True)
    with contextlib.nullcontext(options.work) if options.work is not None else tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        work.chmod(0o755)  # run by root, some tests become another user, who must find what is installed
        sdist, wheel = build(work)
        compiled = test_compiled(wheel, work)
        test_beside(wheel, work)
        prepared = {"wheel": prepare_wheel(wheel, work), "source distribution": prepare_sdist(sdist, work)}
        test(prepared, work, options.pytest, options.jobs)
        if options.dist is not None:
            shutil.copytree(work / "dist", options.dist, dirs_exist_ok=True)
            shutil.copy(compiled, options.dist)
    print("release-check: passed.")


if __name__ == "__main__":
    main()
