"""Git: revisions, the working tree as a commit, and rooms: folders that hold the worktrees of one comparison.

A room belongs to one process, which holds a lock on a file in it. The operating system releases the lock however that
process ends, so a room whose lock is free was left behind, and the next run clears it away.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastnet.gate import GateError

WORKING_TREE = "the working tree"
FOLDERS = ("bench", "benchmarks", "tests/bench", "tests/benchmarks")  # where benchmarks are looked for
_LOCK = "fastnet-gate.lock"
_PACKAGING = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")


def git(repository: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run git and return what it printed; raise `GateError` with its message if it failed."""
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


def find_project(start: Path, repository: Path, path: str | None) -> tuple[str, str]:
    """Where in the repository the project is, and its folder of benchmarks, relative to the project.

    The project is the closest folder, from `start` upwards to the repository's top, that holds the benchmarks: those
    of `path`, or the first of `FOLDERS`.
    """
    top, here = repository.resolve(), start.resolve()
    levels = [here, *(parent for parent in here.parents if parent.is_relative_to(top))]
    wanted = [path] if path else FOLDERS
    for level in levels:
        for folder in wanted:
            if (level / folder).is_dir():
                return level.relative_to(top).as_posix(), Path(folder).as_posix()
    if path:  # only the other revision may have it
        declared = [level for level in levels if any((level / name).exists() for name in _PACKAGING)]
        return (declared or [top])[0].relative_to(top).as_posix(), Path(path).as_posix()
    raise GateError(f"{start.resolve()} has no folder {', '.join(FOLDERS[:-1])} or {FOLDERS[-1]}: name the benchmarks' "
                    "with --path.")


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


def commits_between(repository: Path, old: str, new: str) -> list[str]:
    """Commits after `old` up to `new` along first parents, oldest first."""
    found = git(repository, "rev-list", "--first-parent", "--reverse", f"{old}..{new}").split()
    if not found:
        raise GateError(f"{old}..{new} holds no commit: expected an older and a newer revision of one branch.")
    return found


def subject(repository: Path, commit: str) -> str:
    """Date and first line of a commit's message."""
    return git(repository, "show", "--no-patch", "--format=%cs %s", commit)


# --- rooms ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def room(repository: Path, home: Path | None, recipe: str = "") -> Iterator[Path]:
    """A folder that no other process uses: a temporary one, or, in `home`, the one kept for this repository and recipe.

    What killed runs left of this repository's worktrees is removed first.
    """
    clear_abandoned(repository)
    with contextlib.ExitStack() as stack:
        if home is None:
            folder = Path(tempfile.mkdtemp(prefix="fastnet-gate-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_locked(folder))
        else:
            key = hashlib.sha256(f"{repository.resolve()}\n{recipe}".encode()).hexdigest()[:12]
            for number in range(1, 100):  # a second comparison at the same time gets a room of its own
                folder = home / "rooms" / f"{key}-{number}"
                _make(folder)
                try:
                    stack.enter_context(_locked(folder))
                    break
                except BlockingIOError:
                    continue
        try:
            yield folder
        finally:
            for tree in folder.glob("*/tree"):
                remove_worktree(repository, tree)
            git(repository, "worktree", "prune")


def add_worktree(repository: Path, folder: Path, commit: str) -> Path:
    """Check a commit out into `folder`/tree."""
    tree = folder / "tree"
    remove_worktree(repository, tree)
    folder.mkdir(parents=True, exist_ok=True)
    git(repository, "worktree", "add", "--quiet", "--force", "--detach", str(tree), commit)
    return tree


def remove_worktree(repository: Path, tree: Path) -> None:
    with contextlib.suppress(GateError):  # it may never have been made
        git(repository, "worktree", "remove", "--force", "--force", str(tree))
    shutil.rmtree(tree, ignore_errors=True)


def clear_abandoned(repository: Path) -> None:
    """Remove this repository's worktrees that a killed run left registered, and its temporary folders."""
    for line in git(repository, "worktree", "list", "--porcelain").splitlines():
        tree = Path(line.removeprefix("worktree "))
        folder = tree.parent.parent
        if not line.startswith("worktree ") or tree.name != "tree" or not (folder / _LOCK).exists():
            continue
        with contextlib.suppress(BlockingIOError), _locked(folder):  # if it is held, that run is alive
            remove_worktree(repository, tree)
            if folder.name.startswith("fastnet-gate-") and not any(folder.glob("*/tree")):
                shutil.rmtree(folder, ignore_errors=True)
    git(repository, "worktree", "prune")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GateError(f"{folder} cannot be made ({error}): set FASTNET_GATE_CACHE to a folder of yours.") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raise BlockingIOError if another process does."""
    with open(folder / _LOCK, "a+b") as file:
        _lock(file)
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def tracked(tree: Path) -> dict[str, str]:
    """Files of a checkout and the hashes of their content, by path relative to `tree`."""
    found = {}
    for entry in git(tree, "ls-tree", "-r", "-z", "HEAD").split("\0"):
        what, _, path = entry.partition("\t")
        if path:
            found[path] = what.split()[2]
    return found
