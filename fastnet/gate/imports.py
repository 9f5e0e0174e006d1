"""``--import``: importing the package is the benchmark, made by the gate and laid into every worktree."""
from __future__ import annotations

import re
from pathlib import Path

from fastnet.gate import GateError
from fastnet.gate.declared import PACKAGING, project_name
from fastnet.gate.discover import Found

FILE = "fastnet_gate_import.py"
_NO_PACKAGE = re.compile(r"^(tests?|testing|docs?|examples?|bench\w*|build|dist|scripts?|tools?|setup|conftest|noxfile|"
                         r"tasks)$")
_SOURCE = '''\
"""Made by fastnet compare --import. The clock shows what the imports took, without the start of Python."""
import subprocess
import sys

import pytest

CODE = "import time; start = time.perf_counter(); import {package}; print(time.perf_counter() - start)"
_now = 0.0


def _clock():
    global _now
    _now += 1e-9
    return _now


def _import():
    global _now
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    _now += float(done.stdout.split()[-1])


@pytest.mark.benchmark(timer=_clock)
def test_import_{name}(benchmark):
    benchmark.pedantic(_import, rounds=5, warmup_rounds=1)
'''


def find_package(tree: Path, start: str, package: str | None) -> tuple[Found, str]:
    """The project that `start` is in, and the source of the benchmark that imports its package."""
    levels = [Path(start), *Path(start).parents]
    project = next((level for level in levels if any((tree / level / name).exists() for name in PACKAGING)), Path(start))
    package = package or _guess(tree / project)
    name = re.sub(r"\W", "_", package)
    return Found(project.as_posix(), (FILE,), (), False), _SOURCE.format(package=package, name=name)


def _guess(project: Path) -> str:
    found: dict[str, Path] = {}
    for folder in (project / "src", project / "lib", project):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (path / "__init__.py").exists() or (path.suffix == ".py" and path.stem.isidentifier()):
                found.setdefault(path.stem if path.suffix == ".py" else path.name, path)
    names = [name for name in found if not _NO_PACKAGE.match(name) and not name.startswith("_")]
    called = re.sub(r"[-.]+", "_", project_name(project) or "").lower()
    exact = [name for name in names if name.lower() == called]
    packages = [name for name in names if found[name].is_dir()]
    for choice in (exact, packages, names):
        if len(choice) == 1:
            return choice[0]
    raise GateError(f"Which package is to be imported? There are {', '.join(names) or 'none'}: --package NAME names it.")
