"""Git: the user's repository, which the gate only reads, and the gate's store, from which it checks out revisions.

The store is a bare repository in the gate's folder that borrows the user's objects (git's *alternates*). The snapshot of the
working tree and the worktrees belong to it. So a comparison writes nothing into the user's repository: no object, no index,
no worktree, no lock. This also holds if it is killed, and if git runs the comparison from a hook.
"""
from __future__ import annotations

import contextlib
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastnet.gate import GateError, children

WORKING_TREE = "the working tree"
_COPIED = ("remote", "lfs", "filter", "extensions", "url", "http", "credential", "submodule")  # sections
_COPIED_KEYS = ("core.autocrlf", "core.eol", "core.safecrlf", "core.symlinks", "core.filemode", "core.ignorecase",
                "core.longpaths", "core.precomposeunicode", "core.attributesfile", "core.excludesfile")
_POINTER = "version https://git-lfs.github.com/spec/"


def git(repository: Path, *arguments: str, **variables: str) -> str:
    """Run git and return what it printed; raise `GateError` with its message if it failed.

    git sees none of the variables that a hook sets, takes no optional lock and asks for no password.
    """
    bare = (repository / "HEAD").is_file() and (repository / "objects").is_dir()  # the gate's own; named, it needs no search
    command = ["git", "--git-dir" if bare else "-C", str(repository), *arguments]
    env = children.environment(GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0", LC_ALL="C", **variables)
    shown = " ".join(one for one in arguments if "=" not in one and one != "-c")
    return children.run(command, f"git {shown}", env=env).strip("\n")


def find_repository(start: Path) -> Path:
    """The top of the working tree that `start` is in."""
    if not start.is_dir():
        raise GateError(f"{start} is not a folder: --repo must name the project's folder.")
    try:
        return Path(git(start, "rev-parse", "--show-toplevel"))
    except GateError as error:
        if "was not found" in str(error):
            raise GateError("git was not found. The comparison of revisions needs it; that of two JSON files does not.") \
                from error
        if "dubious ownership" in str(error):
            raise GateError(f"{start.resolve()} belongs to another user, so git refuses to read it: git config --global "
                            f"--add safe.directory {start.resolve()}") from error
        raise GateError(f"{start.resolve()} is not in a git repository (or has no working tree): git init, and commit what "
                        "to compare with.") from error


def find_commit(repository: Path, revision: str) -> str:
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except GateError as error:
        branches = git(repository, "for-each-ref", "--format=%(refname:short)", "--sort=-committerdate", "--count=5",
                       "refs/heads", "refs/remotes", "refs/tags").split()
        have = f" This repository has {', '.join(branches)}." if branches else " This repository has no commit yet."
        raise GateError(f"{revision!r} is no revision of {repository}, and no JSON file. Expected a branch, a tag or a "
                        f"commit (in a shallow clone: git fetch it first).{have}") from error


def commits_between(repository: Path, old: str, new: str) -> list[str]:
    """Commits after `old` up to `new` along first parents, oldest first."""
    found = git(repository, "rev-list", "--first-parent", "--reverse", f"{old}..{new}").split()
    if not found:
        raise GateError(f"{old}..{new} holds no commit: expected an older and a newer revision of one branch.")
    return found


def subject(repository: Path, commit: str) -> str:
    """Date and first line of a commit's message."""
    return git(repository, "show", "--no-patch", "--format=%cs %s", commit)


# --- the store ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """The gate's own repository, and the user's, whose objects it borrows."""

    user: Path  # the top of the user's working tree
    folder: Path  # the bare repository
    remarks: list[str]  # what the user should know of the checkouts

    def snapshot(self) -> tuple[str, str]:
        """Make a commit of the user's current working tree, untracked files included, and return it with a description.

        The index is a copy of the user's, so that git need not read files again whose times have not changed.
        """
        head = find_commit(self.user, "HEAD")
        index = self.folder / "snapshot.index"
        variables = {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": str(self.user), "GIT_INDEX_FILE": str(index)}
        own = Path(git(self.user, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        try:
            shutil.copy2(own, index)
            git(self.user, "ls-files", "--cached", "-z", **variables)
        except (OSError, GateError):  # no index, or one in several files
            index.unlink(missing_ok=True)
            git(self.user, "read-tree", head, **variables)
        try:
            git(self.user, "add", "--all", "--ignore-errors", **variables)
        except GateError as error:
            self._remark(f"Some files of the working tree are left out: {str(error).splitlines()[-1]}")
        tree = git(self.user, "write-tree", **variables)
        index.unlink()
        if tree == git(self.user, "rev-parse", f"{head}^{{tree}}"):
            return head, "HEAD, to which the working tree is equal"
        who = {f"GIT_{role}_{what}": f"gate{'@localhost' * (what == 'EMAIL')}"
               for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        commit = git(self.folder, "commit-tree", tree, "-p", head, "-m", "working tree, to compare", **who)
        return commit, f"{WORKING_TREE}, uncommitted changes included"

    def check_out(self, folder: Path, commit: str) -> Path:
        """Check a commit out into `folder`/tree, with its submodules; hooks do not run."""
        tree = folder / "tree"
        remove(tree)
        folder.mkdir(parents=True, exist_ok=True)
        git(self.folder, "worktree", "prune")
        try:
            git(self.folder, "worktree", "add", "--quiet", "--force", "--detach", str(tree), commit)
        except GateError as error:
            if "lfs" not in str(error).lower():
                raise
            remove(tree)
            git(self.folder, "worktree", "prune")
            with open(self.folder / "info" / "attributes", "a", encoding="utf-8") as file:
                file.write("\n* -filter\n")  # LFS is not installed, or lacks the content: check out its pointers
            git(self.folder, "worktree", "add", "--quiet", "--force", "--detach", str(tree), commit)
        self._add_submodules(tree, self.user)
        self._look_for_pointers(tree)
        return tree

    def files(self, commit: str) -> list[str]:
        """The paths of a commit's files."""
        return git(self.folder, "ls-tree", "-r", "-z", "--name-only", commit).strip("\0").split("\0")

    def read(self, commit: str, path: str) -> str:
        """The text of a file of a commit."""
        return git(self.folder, "show", f"{commit}:{path}")

    def _add_submodules(self, tree: Path, source: Path) -> None:
        """Check out the submodules of a tree from the checkouts that `source`, the user's, has of them."""
        for entry in git(tree, "ls-tree", "-r", "-z", "HEAD").split("\0"):
            what, _, path = entry.partition("\t")
            if not what.startswith("160000"):
                continue
            wanted, own, place = what.split()[2], source / path, tree / path
            try:
                if not (own / ".git").exists():
                    raise GateError("it is not checked out")
                git(own, "clone", "--quiet", "--shared", "--no-checkout", str(own), str(place))
                git(place, "-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", wanted)
            except GateError:
                self._remark(f"The submodule {path} is missing from a checkout: git submodule update --init --recursive, "
                             "then compare again")
            else:
                self._add_submodules(place, own)

    def _look_for_pointers(self, tree: Path) -> None:
        """Warn if files of Git LFS are pointers without their content."""
        attributes = tree / ".gitattributes"
        if not attributes.is_file() or "filter=lfs" not in attributes.read_text(encoding="utf-8", errors="replace"):
            return
        with contextlib.suppress(GateError):  # git grep fails where it finds nothing
            for path in git(tree, "grep", "--cached", "-l", "-z", "-F", _POINTER).split("\0"):
                file = tree / path
                small = bool(path) and file.is_file() and file.stat().st_size < 1024
                if small and file.read_bytes().startswith(_POINTER.encode()):
                    self._remark(f"{path} is a pointer of Git LFS without its content: git lfs install, git lfs pull, then "
                                 "compare again")
                    return

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


@contextlib.contextmanager
def store(user: Path, folder: Path) -> Iterator[Store]:
    """Make the gate's own repository in `folder` for the time of a comparison."""
    bare = folder / "git"
    remove(bare)
    common = Path(git(user, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    kind = git(user, "rev-parse", "--show-object-format")
    git(folder, "init", "--quiet", "--bare", f"--object-format={kind}", "--template=", str(bare))
    (bare / "objects" / "info").mkdir(parents=True, exist_ok=True)
    (bare / "objects" / "info" / "alternates").write_text(f"{common / 'objects'}\n", encoding="utf-8")
    (bare / "info").mkdir(exist_ok=True)
    for name in ("shallow", "info/exclude", "info/attributes"):
        if (common / name).is_file():
            shutil.copy(common / name, bare / name)
    tags = git(user, "for-each-ref", "--format=%(objectname) %(refname)", "refs/tags")  # versions are made from them
    (bare / "packed-refs").write_text(tags + "\n" if tags else "", encoding="utf-8")
    _configure(user, common, bare)
    try:
        yield Store(user, bare, [])
    finally:
        remove(bare)


def _configure(user: Path, common: Path, bare: Path) -> None:
    """Take over what decides how files look in a checkout and where absent objects come from."""
    settings: list[tuple[str, str]] = []
    for entry in git(user, "config", "--local", "--list", "-z", "--includes").split("\0"):
        key, _, value = entry.partition("\n")
        if key.partition(".")[0] in _COPIED or key in _COPIED_KEYS:
            settings.append((key, value))
    settings += [("core.hooksPath", str(bare / "no-hooks")), ("core.compression", "0"), ("gc.auto", "0"),
                 ("maintenance.auto", "false"), ("advice.detachedHead", "false"), ("advice.addEmbeddedRepo", "false"),
                 ("lfs.storage", str(common / "lfs")), ("core.fsmonitor", "false"), ("core.splitIndex", "false")]
    for key, value in settings:
        if key not in ("extensions.worktreeconfig", "extensions.objectformat", "extensions.refstorage"):
            git(bare, "config", "--add", key, value)


def remove(folder: Path) -> None:
    """Remove a folder, also files in it that are read-only, as git's objects are on Windows."""
    def writable(function: object, path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            Path(path).chmod(stat.S_IWRITE | stat.S_IREAD)
            Path(path).unlink()

    if folder.exists():
        shutil.rmtree(folder, onerror=writable)


def tracked(tree: Path, paths: Sequence[str] = ()) -> dict[str, str]:
    """Files of a checkout's commit and the hashes of their content, by path relative to `tree`."""
    found = {}
    for entry in git(tree, "ls-tree", "-r", "-z", "HEAD", *paths).split("\0"):
        what, _, path = entry.partition("\t")
        if path:
            found[path] = what.split()[2]
    return found
