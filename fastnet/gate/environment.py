"""Virtual environments for the sides of a comparison, made by pip from what the project declares.

There are two layers. The packages that a project depends on are installed once into an environment that is kept, and
shared by all revisions that declare the same. On top of it each side has a small environment of its own, in which the
project itself is installed in editable mode from that side's worktree, so its entry points, metadata and compiled
extensions are that revision's.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fastnet.gate import GateError
from fastnet.gate.limits import tomllib
from fastnet.gate.repository import git, tracked

CACHE_VARIABLES = ("NUMBA_CACHE_DIR", "FASTNET_CACHE_DIR")
OWN, INHERIT, CURRENT = "own", "inherit", "current"
_WINDOWS = os.name == "nt"
_DECLARATIONS = ("pyproject.toml", "setup.py", "setup.cfg", "*requirements*.txt", "*requirements*.in", "constraints*.txt",
                 "requirements/*")
_VERSIONS = ("*version*", "*about*")  # files that a dynamic version is usually read from
_BY_PRODUCTS = ("*.egg-info/*", "*.egg-info", "build", "build/*", "*__pycache__/*", "*.pyc", "*.dist-info/*")
# A line of a .pth file, run when Python starts. Where pip builds a package in isolation, which it does in folders of this
# name, what is declared for the build must not be hidden by another version of it below.
_BELOW = "import os, site; 'pip-build-env-' in os.environ.get('PYTHONPATH', '') or site.addsitedir({place!r})\n"
Log = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """Where one revision's processes run, and what in."""

    name: str
    revision: str  # as the user gave it
    commit: str
    tree: Path  # the worktree
    project: Path  # the project's folder in it
    python: Path
    caches: Path
    packages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What to install, and how."""

    kind: str = OWN
    extras: tuple[str, ...] = ("bench",)
    groups: tuple[str, ...] | None = None  # None: `bench`, if it is declared
    requirements: tuple[str, ...] | None = None  # None: requirements.txt of the project and of its benchmarks
    pip_args: str = ""
    install: bool = True
    setup: str = ""

    def key(self) -> str:
        return json.dumps([sys.version, sys.prefix, self.kind, self.extras, self.groups, self.requirements, self.pip_args,
                           self.install, self.setup])


@dataclass(frozen=True)
class Step:
    """One call of pip: what it is for, its arguments, and what to try if it fails."""

    what: str
    arguments: tuple[str, ...]
    hint: str


_RUNNER = Step("installing pytest-benchmark", ("pytest", "pytest-benchmark"),
               "--env inherit takes the packages that you have")


def home() -> Path:
    """The folder in which environments are kept."""
    import platformdirs

    return Path(os.environ.get("FASTNET_GATE_CACHE") or platformdirs.user_cache_path("fastnet-gate")).absolute()


# --- what a project declares ----------------------------------------------------------------------------------------


def steps(project: Path, path: str, recipe: Recipe) -> list[Step]:
    """The calls of pip that set this project up, each with the project's folder as its working directory.

    Requirement files come first and one by one, since a file with hashes allows nothing else in its call.
    """
    found = []
    for file in recipe.requirements if recipe.requirements is not None else _requirement_files(project, path):
        found.append(Step(f"installing {file}", ("-r", file), "-r FILE names other requirement files"))
    pyproject = _read_toml(project / "pyproject.toml")
    groups = recipe.groups
    if groups is None:
        groups = ("bench",) if "bench" in pyproject.get("dependency-groups", {}) else ()
    for group in groups:
        found.append(Step(f"installing the dependency group {group}", _expand(pyproject, group, ()),
                          "--group NAME names other groups, and -r FILE a requirement file instead"))
    if recipe.install and _is_package(project, pyproject):
        target = f".[{','.join(recipe.extras)}]" if recipe.extras else "."
        found.append(Step(f"installing the project with pip install -e {target}", ("-e", target),
                          "--extra NAME names other extras, --no-install leaves the project where it is and imports it "
                          "from its folder or src/, and --setup COMMAND builds it in your own way"))
    found.append(_RUNNER)
    return found


def _requirement_files(project: Path, path: str) -> list[str]:
    return [file for file in ("requirements.txt", f"{path}/requirements.txt") if (project / file).exists()]


def _expand(pyproject: dict[str, Any], group: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """The requirements of a dependency group (:pep:`735`); pip itself knows groups only since 25.1."""
    groups = {_normal(name): entries for name, entries in pyproject.get("dependency-groups", {}).items()}
    if _normal(group) not in groups or _normal(group) in path:
        why = "includes itself" if _normal(group) in path else f"is not declared; expected one of {', '.join(groups)}"
        raise GateError(f"The dependency group {group!r} {why}: --group NAME names another one.")
    found: list[str] = []
    for entry in groups[_normal(group)]:
        if isinstance(entry, str):
            found.append(entry)
        else:
            found += _expand(pyproject, entry["include-group"], (*path, _normal(group)))
    return tuple(found)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_package(project: Path, pyproject: dict[str, Any]) -> bool:
    return "project" in pyproject or "build-system" in pyproject or (project / "setup.py").exists()


def _read_toml(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GateError(f"{file} cannot be read as TOML: {error}") from error


def _fingerprint(tree: Path, patterns: Sequence[str]) -> list[tuple[str, str]]:
    """The tracked files whose name, or last two parts, match one of the patterns, and the hashes of their content."""
    def matches(path: str) -> bool:
        parts = path.split("/")
        return any(fnmatch(parts[-1], pattern) or fnmatch("/".join(parts[-2:]), pattern) for pattern in patterns)
    return sorted((path, digest) for path, digest in tracked(tree).items() if matches(path))


# --- making environments --------------------------------------------------------------------------------------------


def prepare(side: Side, path: str, recipe: Recipe, log: Log) -> Side:
    """Make, or find, the environment of a side whose worktree is checked out; return the side with its Python."""
    if recipe.kind == CURRENT:
        side = replace(side, python=Path(sys.executable))
    else:
        calls = steps(side.project, path, recipe)
        below = Path(sys.prefix) if recipe.kind == INHERIT else _dependencies(side, calls, recipe, log)
        side = replace(side, python=_own_layer(side, calls, below, recipe, log))
    if recipe.setup:
        _set_up(side, recipe.setup)
    return replace(side, packages=_installed(side.python))


def keep_caches(side: Side, benchmarks: str) -> None:
    """Clear what compilers kept of the last comparison, unless the side's files and packages are those of then.

    Compilers such as Numba's trust a file's time. So each file gets one that follows from its content: it is the same in
    every checkout, and another where the content differs.

    Parameters
    ----------
    side : Side
        Installed.
    benchmarks : str
        What the benchmarks that it will be given are, as git's hash of their folder.
    """
    for path, digest in tracked(side.tree).items():
        if not (side.tree / path).is_symlink() and (side.tree / path).is_file():
            moment = 10**9 + int(digest[:7], 16)  # seconds: between 2001 and 2010
            os.utime(side.tree / path, (moment, moment))
    marker = side.caches / "of.json"
    content = json.dumps([git(side.tree, "rev-parse", "HEAD^{tree}"), benchmarks, str(side.python),
                          sorted(side.packages.items())])
    if not marker.exists() or marker.read_text(encoding="utf-8") != content:
        shutil.rmtree(side.caches, ignore_errors=True)
        side.caches.mkdir(parents=True, exist_ok=True)
        marker.write_text(content, encoding="utf-8")


def _dependencies(side: Side, calls: Sequence[Step], recipe: Recipe, log: Log) -> Path:
    """The kept environment that holds all packages but those of the repository itself."""
    given = [[file, (side.project / file).read_text(encoding="utf-8")]
             for file in recipe.requirements or () if (side.project / file).is_file()]
    key = json.dumps([recipe.key(), _fingerprint(side.tree, _DECLARATIONS), given, side.project.name])
    final = home() / "environments" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if final.exists():
        return final
    log("making an environment: " + ", ".join(call.what for call in calls))
    final.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=final.parent, prefix="part-"))
    try:
        run([sys.executable, "-m", "venv", str(part)], "making an environment", hint="--env inherit makes none")
        python = python_of(part)
        for call in calls:
            _pip(python, side, call, recipe)
        local = _local_packages(python)
        if local:  # what belongs to the repository is installed for each side
            run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *local], "removing the project again", hint="")
        part.rename(final)  # whole or not at all; where another gate was faster, its one serves as well
    except OSError:
        if not final.exists():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final


def _own_layer(side: Side, calls: Sequence[Step], below: Path, recipe: Recipe, log: Log) -> Path:
    """The small environment of one side, on top of `below`: kept with its room, and made anew when it has to be.

    An editable installation stays right while the files that describe the project are the same and it left nothing in
    the worktree, such as a compiled extension or a generated version file, which a fresh checkout lacks.
    """
    folder, marker = side.tree.parent / "env", side.tree.parent / "env.json"
    names = sorted(path for path in tracked(side.tree) if path.endswith("__init__.py") or path.count("/") < 2)
    want = {"below": str(below), "files": [list(entry) for entry in _fingerprint(side.tree, _DECLARATIONS + _VERSIONS)],
            "names": names, "calls": [list(call.arguments) for call in calls]}
    if marker.exists():
        had = json.loads(marker.read_text(encoding="utf-8"))
        if had.pop("left") == [] and had == want:
            return python_of(folder)
    marker.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], "making an environment",
        hint="--env current makes none")
    python = python_of(folder)
    site_packages = _purelib(folder)
    lines = [_BELOW.format(place=place) for place in _site_packages(below)]
    (site_packages / "_fastnet_gate.pth").write_text("".join(lines), encoding="utf-8")
    log(f"installing {side.name}")
    for call in calls:
        if call != _RUNNER or "pytest-benchmark" not in _list(python):
            _pip(python, side, call, recipe)
    left = git(side.tree, "status", "--porcelain", "--ignored", "--untracked-files=all").splitlines()
    left = [line[3:] for line in left if not any(fnmatch(line[3:].rstrip("/"), pattern) for pattern in _BY_PRODUCTS)]
    left += [str(link) for link in site_packages.glob("*.egg-link")]  # its metadata stand in the worktree
    marker.write_text(json.dumps(want | {"left": left}), encoding="utf-8")
    return python


def _pip(python: Path, side: Side, call: Step, recipe: Recipe) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               *shlex.split(recipe.pip_args), *call.arguments]
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    run(command, f"{call.what} on {side.name} ({side.revision})", hint=call.hint, cwd=side.project, env=env)


def _set_up(side: Side, command: str) -> None:
    """Run the user's own command in a side's project, in its environment: build an extension, make data."""
    done = subprocess.run(command, shell=True, cwd=side.project, env=process_environment(side), capture_output=True,
                          text=True)
    if done.returncode:
        raise GateError(f"--setup {command!r} failed on {side.name}:\n{tail(done.stdout + done.stderr)}")


_LIST = """
import importlib.metadata, json
found = {}
for dist in importlib.metadata.distributions():
    if dist.name and dist.name.lower() not in found:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
        found[dist.name.lower()] = [dist.version, str(origin.get("url", ""))]
print(json.dumps(found))
"""


def _list(python: Path) -> dict[str, list[str]]:
    return json.loads(run([str(python), "-c", _LIST], "listing the packages", hint=""))


def _local_packages(python: Path) -> list[str]:
    links = [link.stem for link in _purelib(python.parent.parent).glob("*.egg-link")]
    return links + [name for name, (_, url) in _list(python).items() if url.startswith("file:")]


def _installed(python: Path) -> dict[str, str]:
    """Package versions; raises when the one that everything needs is missing."""
    packages = {name: version for name, (version, _) in _list(python).items()}
    if "pytest-benchmark" not in packages:
        raise GateError(f"pytest-benchmark is not installed for {python}: pip install pytest-benchmark there, or leave "
                        "out `--env` and let the gate make an environment.")
    return packages


def process_environment(side: Side) -> dict[str, str]:
    """The variables of one side's processes: its own tree and caches, no plugins, nothing else changed."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("PYTEST_", "COVERAGE_", "COV_")) and key not in ("PYTHONWARNINGS", "VIRTUAL_ENV")}
    places = [side.project, side.project / "src", Path(__file__).parent / "probe"]
    env["PYTHONPATH"] = os.pathsep.join([*map(str, places), *filter(None, [env.get("PYTHONPATH")])])
    env["PATH"] = os.pathsep.join([str(side.python.parent), env.get("PATH", "")])
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # each plugin is a second of start-up and a source of noise
    env["FASTNET_BENCH"] = "gate"  # fastnet's own benchmarks then leave out their rivals
    for variable in CACHE_VARIABLES:
        env[variable] = str(side.caches / variable.lower())
    return env


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if _WINDOWS else "bin/python")


def _purelib(environment: Path) -> Path:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return environment / ("Lib/site-packages" if _WINDOWS else f"lib/{version}/site-packages")


def _site_packages(below: Path) -> list[str]:
    """The folders of packages of an environment; of the running one, all that it sees."""
    if below != Path(sys.prefix):
        return [str(_purelib(below))]
    return [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]


def run(command: Sequence[str], what: str, *, hint: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed; a failure names the step, its last lines and what to try."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
    if done.returncode:
        raise GateError(f"{what} failed:\n{tail(done.stdout + done.stderr)}" + (f"\nOptions: {hint}." if hint else ""))
    return done.stdout


def tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
