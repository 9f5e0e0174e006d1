"""Virtual environments for the sides of a comparison, made from what the project declares.

There are two layers. The gate installs the packages that a project depends on once, into a permanent environment that all
revisions with the same declarations share. On top of it each side has its own small environment. In it the project is
installed in editable mode from that side's worktree, so that its entry points, metadata and compiled extensions are those
of that revision. The control's environment is a copy of the base's.
"""
from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from fastnet.gate import GateError, children
from fastnet.gate.children import run, tail
from fastnet.gate.declared import RUNNER, Step, Wanted, check_python, steps
from fastnet.gate.repository import git, tracked
from fastnet.gate.workspace import home

CACHE_VARIABLES = ("NUMBA_CACHE_DIR", "FASTNET_CACHE_DIR")
OWN, INHERIT, CURRENT = "own", "inherit", "current"
_WINDOWS = os.name == "nt"
_DECLARATIONS = ("pyproject.toml", "setup.py", "setup.cfg", "*requirements*.txt", "*requirements*.in", "constraints*.txt",
                 "requirements/*")
_VERSIONS = ("*version*", "*about*")  # files that a dynamic version is usually read from
_BY_PRODUCTS = ("*.egg-info/*", "*.egg-info", "build", "build/*", "*__pycache__/*", "*.pyc", "*.dist-info/*",
                "fastnet_gate_import.py")
# A line of a .pth file, run when Python starts. Where pip builds a package in isolation, which it does in folders of this
# name, what is declared for the build must not be hidden by another version of it below.
_BELOW = "import os, site; 'pip-build-env-' in os.environ.get('PYTHONPATH', '') or site.addsitedir({place!r})\n"
_PIP_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE",
                 "PIP_CONSTRAINT")
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
    wanted: Wanted = field(default_factory=Wanted)
    pip_args: str = ""
    setup: str = ""

    def key(self) -> str:
        return json.dumps([sys.version, sys.prefix, asdict(self)])


@dataclass(frozen=True)
class Order:
    """The content of a side's environment: the installations, and the files of head's tree that they depend on."""

    recipe: Recipe
    folders: tuple[str, ...]  # of the benchmarks
    tier: int = 0
    head: Path | None = None  # head's project

    def calls(self, project: Path) -> list[Step]:
        return steps(project, self.folders, self.recipe.wanted, self.tier, self.head)


def _fingerprint(tree: Path, patterns: Sequence[str]) -> list[tuple[str, str]]:
    """The tracked files whose name, or last two parts, match one of the patterns, and the hashes of their content."""
    def matches(path: str) -> bool:
        parts = path.split("/")
        return any(fnmatch(parts[-1], pattern) or fnmatch("/".join(parts[-2:]), pattern) for pattern in patterns)
    return sorted((path, digest) for path, digest in tracked(tree).items() if matches(path))


# --- making environments --------------------------------------------------------------------------------------------


def prepare(side: Side, order: Order, log: Log) -> Side:
    """Make, or find, the environment of a side whose worktree is checked out; return the side with its Python."""
    recipe = order.recipe
    if recipe.kind == CURRENT:
        side = replace(side, python=Path(sys.executable))
    else:
        if recipe.wanted.install:
            check_python(side.project, f"{side.name} ({side.revision})")
        calls = order.calls(side.project)
        below = Path(sys.prefix) if recipe.kind == INHERIT else _dependencies(side, calls, recipe, log)
        side = replace(side, python=_own_layer(side, calls, below, recipe, log))
    if recipe.setup:
        _set_up(side, recipe.setup)
    return replace(side, packages=_installed(side.python))


def copy(side: Side, source: Side, recipe: Recipe) -> Side:
    """Give a side a copy of the environment of another one of the same commit, and of what was built in its worktree."""
    if recipe.kind == CURRENT:
        return replace(side, python=source.python, packages=source.packages)
    here, there = side.tree.parent, source.tree.parent
    for path in _generated(source.tree):
        if (source.tree / path).is_file():
            (side.tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source.tree / path, side.tree / path)
    shutil.rmtree(here / "env", ignore_errors=True)
    shutil.copytree(there / "env", here / "env", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    old, new = (json.dumps(str(place))[1:-1].encode() for place in (there, here))
    for file in (here / "env").rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 1 << 20:
            content = file.read_bytes()
            if b"\0" not in content and (old in content or bytes(there) in content):
                file.write_bytes(content.replace(old, new).replace(bytes(there), bytes(here)))
    side = replace(side, python=python_of(here / "env"), packages=source.packages)
    if recipe.setup:
        _set_up(side, recipe.setup)
    return side


def keep_caches(side: Side, benchmarks: str) -> None:
    """Clear the compilers' caches of the last comparison, unless the side's files and packages are the same.

    Compilers such as Numba's rely on a file's time. So each file gets a time that depends on its content: it is the same in
    every checkout, and differs if the content differs.

    Parameters
    ----------
    side : Side
        A side with an environment.
    benchmarks : str
        Git's hash of the folder of the benchmarks that the side will run.
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
    given = [(side.project / call.arguments[1]).read_text(encoding="utf-8", errors="replace")
             for call in calls if call.arguments[0] == "-r" and (side.project / call.arguments[1]).is_file()]
    key = json.dumps([recipe.key(), _fingerprint(side.tree, _DECLARATIONS), given, side.project.name,
                      [call.what for call in calls]])
    final = home() / "environments" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if final.exists():
        return final
    log("making an environment: " + ", ".join(call.what for call in calls))
    final.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=final.parent, prefix="part-"))
    try:
        uv = _uv(recipe)
        run([sys.executable, "-m", "venv", *(["--without-pip"] if uv else []), str(part)], "making an environment",
            hint="--env inherit makes none; on Debian, apt-get install python3-venv")
        python = python_of(part)
        for call in [Step("installing pip", ("pip",), "")] * bool(uv) + list(calls):
            _install(python, side, call, recipe, uv)
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
    """The small environment of one side, on top of `below`: kept with its workspace, and made anew when it has to be.

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
        if call != RUNNER or "pytest-benchmark" not in _list(python):
            _install(python, side, call, recipe, "")
    left = _generated(side.tree)
    left += [str(link) for link in site_packages.glob("*.egg-link")]  # its metadata are in the worktree
    marker.write_text(json.dumps(want | {"left": left}), encoding="utf-8")
    return python


def _generated(tree: Path) -> list[str]:
    """What an installation left in a worktree, but for what every one leaves."""
    lines = git(tree, "status", "--porcelain", "-z", "--ignored", "--untracked-files=all").split("\0")
    paths = [line[3:] for line in lines if line[:2] in ("??", "!!")]
    found = []
    for path in paths:
        inside = [one.relative_to(tree).as_posix() for one in (tree / path).rglob("*")] if path.endswith("/") else [path]
        found += [one for one in inside if not any(fnmatch(one, pattern) for pattern in _BY_PRODUCTS)]
    return found


def _uv(recipe: Recipe) -> str:
    """uv, which installs like pip and faster; not where the user told pip something that uv does not know."""
    told = recipe.pip_args or any(name in os.environ for name in _PIP_SETTINGS)
    return "" if told else shutil.which("uv") or ""


def _install(python: Path, side: Side, call: Step, recipe: Recipe, uv: str) -> None:
    """Install with uv, or with pip, where there is no uv or it fails."""
    what = f"{call.what} on {side.name} ({side.revision})"
    if uv:
        try:
            run([uv, "pip", "install", "--quiet", "--python", str(python), *call.arguments], what, cwd=side.project)
            return
        except GateError:
            run([uv, "pip", "install", "--quiet", "--python", str(python), "pip"], "installing pip", cwd=side.project)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
               *shlex.split(recipe.pip_args), *call.arguments]
    run(command, what, hint=call.hint, cwd=side.project)


def _set_up(side: Side, command: str) -> None:
    """Run the user's own command in a side's project, in its environment: build an extension, make data."""
    done = subprocess.run(command, shell=True, cwd=side.project, env=process_environment(side), capture_output=True,
                          text=True, errors="replace", stdin=subprocess.DEVNULL)
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


def process_environment(side: Side, autoload: bool = False) -> dict[str, str]:
    """The variables of one side's processes: its own tree and caches, and no plugins unless `autoload`."""
    env = children.environment()
    places = [side.project, side.project / "src", Path(__file__).parent / "probe"]
    own = os.environ.get("PYTHONPATH", "") if side.python == Path(sys.executable) else ""  # part of that environment
    env["PYTHONPATH"] = os.pathsep.join([*map(str, places), *filter(None, [own])])
    env["PATH"] = os.pathsep.join([str(side.python.parent), env.get("PATH", "")])
    if not autoload:
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
