"""The sides of a comparison: for each, a worktree of its own, an environment, and caches of its own.

There are three: `base`, `head`, and `same`, a second copy of base that shows what the machine alone can do to a ratio.
Their names are of one length, so that the paths and the environment of their processes are too: even that shifts
timings.
"""
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.gate import GateError
from bench.gate.limits import tomllib

SIDES = ("base", "head", "same")
WORKING_TREE = "the working tree"
CACHE_VARIABLES = ("NUMBA_CACHE_DIR", "FASTNET_CACHE_DIR")
_WINDOWS = os.name == "nt"


@dataclass(frozen=True)
class Side:
    """Where one revision's processes run, and what in."""

    name: str
    revision: str  # as the user gave it
    commit: str
    tree: Path
    python: Path
    caches: Path
    packages: dict[str, str] = field(default_factory=dict)


def git(repository: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    except FileNotFoundError as error:
        raise GateError("git was not found: comparing revisions needs it; two JSON files do not.") from error
    except subprocess.CalledProcessError as error:
        raise GateError(f"git {' '.join(arguments)} failed: {error.stderr.strip()}") from error
    return done.stdout.strip()


def find_repository(start: Path) -> Path:
    return Path(git(start, "rev-parse", "--show-toplevel"))


def find_commit(repository: Path, revision: str) -> str:
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except GateError as error:
        raise GateError(f"{revision!r} is no revision of {repository}, and no JSON file. Expected a branch, a tag or a "
                        "commit (in a shallow clone: git fetch it first).") from error


def snapshot(repository: Path) -> tuple[str, str]:
    """A commit of the working tree as it is, untracked files included, and what to call it.

    An index of its own leaves the user's alone, and no branch comes to point at the commit.
    """
    if not git(repository, "status", "--porcelain"):
        return find_commit(repository, "HEAD"), "HEAD, to which the working tree is equal"
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        for who in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{who}_NAME": "bench", f"GIT_{who}_EMAIL": "bench@localhost"}
        git(repository, "read-tree", "HEAD", env=env)
        git(repository, "add", "--all", env=env)
        tree = git(repository, "write-tree", env=env)
        commit = git(repository, "commit-tree", tree, "-p", "HEAD", "-m", "working tree, to compare", env=env)
    return commit, f"{WORKING_TREE}, uncommitted changes included"


@contextlib.contextmanager
def worktrees(repository: Path, base: str, head: str, path: str) -> Iterator[dict[str, Path]]:
    """Check out the three sides, and give all of them head's benchmarks: both must be asked the same question."""
    folder = Path(tempfile.mkdtemp(prefix="bench-compare-"))
    trees = {name: folder / name / "tree" for name in SIDES}
    try:
        for name, tree in trees.items():
            git(repository, "worktree", "add", "--quiet", "--detach", str(tree), head if name == "head" else base)
        if not (trees["head"] / path).is_dir():
            raise GateError(f"{path!r} is no folder of the revision under test. Name the benchmarks' with --path.")
        for name in ("base", "same"):
            shutil.rmtree(trees[name] / path, ignore_errors=True)
            shutil.copytree(trees["head"] / path, trees[name] / path, symlinks=True)
        yield trees
    finally:
        for tree in trees.values():
            with contextlib.suppress(GateError):  # it may never have been made
                git(repository, "worktree", "remove", "--force", "--force", str(tree))
        shutil.rmtree(folder, ignore_errors=True)
        git(repository, "worktree", "prune")


# --- environments ---------------------------------------------------------------------------------------------------


def requirements(tree: Path, path: str, extras: Sequence[str]) -> list[str]:
    """What the benchmarks of this tree need: the project's dependencies and extras, or its requirements.txt."""
    wanted = ["pytest", "pytest-benchmark"]
    project = tree / "pyproject.toml"
    if project.exists():
        try:
            table = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise GateError(f"{project} cannot be read as TOML: {error}") from error
        wanted += table.get("dependencies", [])
        for extra in extras:
            wanted += _extra(table, extra)
    for file in (tree / "requirements.txt", tree / path / "requirements.txt"):
        if file.exists():
            lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
            wanted += [line for line in lines if line]
    return sorted(set(wanted))


def _extra(project: dict, extra: str) -> list[str]:
    """The requirements of an extra; one that names the project itself ("fastnet[test]") stands for that extra."""
    found = []
    for requirement in project.get("optional-dependencies", {}).get(extra, []):
        itself = re.fullmatch(rf"{re.escape(project.get('name', ''))}\s*\[(.+)\]", requirement)
        if itself:
            for other in itself[1].split(","):
                found += _extra(project, other.strip())
        else:
            found.append(requirement)
    return found


def environment(wanted: Sequence[str], log: Callable[[str], None]) -> Path:
    """A virtual environment with these packages and no others, made once and kept; returns its Python.

    The compared project is not installed in it but found in its worktree, so sides that need the same packages share
    one, and with it the very same versions.
    """
    recipe = json.dumps([sys.version, list(wanted)])
    home = Path(os.environ.get("BENCH_COMPARE_CACHE") or Path.home() / ".cache" / "bench-compare")
    final = home / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not final.exists():
        log(f"making an environment with {', '.join(wanted)}")
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GateError(f"{home} cannot be made ({error}): set BENCH_COMPARE_CACHE to one of yours.") from error
        part = Path(tempfile.mkdtemp(dir=home, prefix="part-"))
        try:
            _run([sys.executable, "-m", "venv", str(part)], "making an environment")
            _run([str(_python(part)), "-m", "pip", "install", "--quiet", *wanted], "installing the requirements")
            part.rename(final)  # whole or not at all; where another gate was faster, its one serves as well
        except OSError:
            if not final.exists():
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return _python(final)


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if _WINDOWS else "bin/python")


def own_copy(python: Path, folder: Path) -> Path:
    """A copy of an environment for one side alone, for a project that has to be installed; returns its Python."""
    copy = folder / "environment"
    shutil.copytree(python.parent.parent, copy, symlinks=True)
    return _python(copy)


def set_up(side: Side, command: str) -> None:
    """Run the user's own command in a side's worktree, in its environment: build an extension, make data."""
    done = subprocess.run(command, shell=True, cwd=side.tree, env=process_environment(side), capture_output=True,
                          text=True)
    if done.returncode:
        raise GateError(f"--setup {command!r} failed on {side.name}:\n{_tail(done.stdout + done.stderr)}")


def installed(python: Path) -> dict[str, str]:
    """Package versions; raises when the one that everything needs is missing."""
    code = ("import importlib.metadata as m, json; "
            "print(json.dumps({d.name.lower(): d.version for d in m.distributions() if d.name}))")
    packages = json.loads(_run([str(python), "-c", code], "listing the packages"))
    if "pytest-benchmark" not in packages:
        raise GateError(f"pytest-benchmark is not installed for {python}: pip install pytest-benchmark there, or leave "
                        "out `--env current` and let the gate make an environment.")
    return packages


def process_environment(side: Side) -> dict[str, str]:
    """The variables of one side's processes: its own tree and caches, no plugins, nothing else changed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COVERAGE_", "COV_"))}
    places = [side.tree, side.tree / "src", Path(__file__).parent / "probe"]
    env["PYTHONPATH"] = os.pathsep.join([*map(str, places), *filter(None, [env.get("PYTHONPATH")])])
    env["PATH"] = os.pathsep.join([str(side.python.parent), env.get("PATH", "")])
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # each plugin is a second of start-up and a source of noise
    env["FASTNET_BENCH"] = "gate"  # fastnet's own benchmarks then leave out their rivals
    for variable in CACHE_VARIABLES:
        env[variable] = str(side.caches / variable.lower())
    return env


def _run(command: Sequence[str], what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise GateError(f"{what} failed:\n{_tail(done.stdout + done.stderr)}\n"
                        "With no network, `--env current` compares in the running environment.")
    return done.stdout


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
