"""The gate and git: hooks, worktrees, submodules, LFS, and that a comparison changes nothing in the user's repository."""
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")

from fastnet.gate import GateError, children, command, repository, workspace
from fastnet.gate.environment import CURRENT, Recipe
from fastnet.gate.prepare import prepare
from fastnet.gate.repository import find_commit, store
from fastnet.gate.runs import Run

BENCHMARK = "import subject\n\ndef test_a(benchmark):\n    benchmark(len, subject.NAME)\n"
WHO = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "protocol.file.allow=always")
needs_sh = pytest.mark.skipif(sys.platform == "win32", reason="hooks are scripts for sh")


def git(where, *arguments, check=True, **variables):
    done = subprocess.run(["git", *WHO, *arguments], cwd=where, capture_output=True, text=True, env=os.environ | variables)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def top(tmp_path, monkeypatch):
    """A repository of two commits, tagged old and new."""
    monkeypatch.setenv("FASTNET_GATE_CACHE", str(tmp_path / "cache"))
    top = tmp_path / "top"
    (top / "bench").mkdir(parents=True)
    git(top, "init", "--quiet", "--initial-branch=main")
    for name in ("old", "new"):
        (top / "subject.py").write_text(f"NAME = {name!r}\n")
        (top / "bench" / "bench_a.py").write_text(BENCHMARK)
        git(top, "add", "--all")
        git(top, "commit", "--quiet", "--message", name)
        git(top, "tag", name)
    return top


def fingerprint(top):
    """Every file below a folder, git's own files included, with its content and its time; git renews the times of objects."""
    return {str(file.relative_to(top)): (hashlib.sha256(file.read_bytes()).hexdigest(), "objects" in file.parts or file.stat().st_mtime_ns)
            for file in sorted(top.rglob("*")) if file.is_file() and "__pycache__" not in file.parts}


@pytest.fixture
def no_process(monkeypatch):
    """What is checked out is what matters: no process of pytest collects it."""
    monkeypatch.setattr("fastnet.gate.prepare.run", lambda *given, **named: Run({}, names=("bench/bench_a.py::test_a",)))
    monkeypatch.setattr("fastnet.gate.prepare.own_benchmarks", lambda *given: Run({}))
    monkeypatch.setattr("fastnet.gate.environment._installed", lambda python: {})


def prepared(top, base="old", head=None, **options):
    revisions = {"base": base, "head": head, "same": base}
    return prepare(top, revisions, ".", None, lambda text: None, Recipe(CURRENT), **options)


# --- hooks ----------------------------------------------------------------------------------------------------------

# Compares as `fastnet compare` does, up to the first process of pytest.
HOOK = """#!/bin/sh
exec {python} - <<'END'
import os, sys
sys.path.insert(0, {root!r})
os.environ["FASTNET_GATE_CACHE"] = {cache!r}
from pathlib import Path
from fastnet.gate import command, prepare
def stop(*given):
    raise KeyboardInterrupt("prepared")
prepare._collect = stop  # all is checked out, nothing has been run
code = command.main(["old", "--env", "current"])
Path({log!r}).open("a").write(f"{{code}} {{os.environ.get('GIT_INDEX_FILE', 'none')}}\\n")
END
"""


@pytest.fixture
def hook(top, tmp_path):
    """Returns a function that installs the gate as a hook; it returns the file in which each run leaves a line."""
    def install(name):
        file, log = tmp_path / "hooks" / name, tmp_path / "log"
        file.parent.mkdir(exist_ok=True)
        file.write_text(HOOK.format(python=sys.executable, root=str(Path(__file__).parents[1]), cache=str(tmp_path / "cache"), log=str(log)))
        file.chmod(0o755)
        git(top, "config", "core.hooksPath", str(file.parent))
        return log
    return install


@pytest.fixture(params=["main", "linked"])
def checkout(request, top, tmp_path):
    """The main worktree, or a linked one on a branch of its own."""
    if request.param == "main":
        return top
    git(top, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "linked"))
    return tmp_path / "linked"


@needs_sh
@pytest.mark.parametrize("words", [[], ["--", "subject.py"], ["-a"], ["--amend", "--no-edit"]], ids=str)
def test_a_commit_hook_leaves_the_commit_as_it_is(checkout, hook, words):
    log = hook("pre-commit")
    (checkout / "more.py").write_text("x = 1\n")
    (checkout / "subject.py").write_text("NAME = 'third'\n")
    git(checkout, "add", "--all")
    (checkout / "untracked.py").write_text("")
    git(checkout, "commit", "--quiet", *(words if "--amend" in words else ["--message", "third", *words]))
    files = git(checkout, "ls-tree", "-r", "--name-only", "HEAD").split()
    assert files == ["bench/bench_a.py", *([] if "--" in words else ["more.py"]), "subject.py"]
    assert git(checkout, "show", "HEAD:subject.py") == "NAME = 'third'"
    assert git(checkout, "status", "--porcelain") == ("A  more.py\n" if "--" in words else "") + "?? untracked.py"
    code, index = log.read_text().split()
    assert code == "2" and index != "none", "the hook ran, with git's variables"


@needs_sh
def test_a_push_hook_and_a_rebase_leave_all_as_it_is(checkout, hook, tmp_path):
    git(checkout, "init", "--quiet", "--bare", str(tmp_path / "remote"))
    log = hook("pre-push")
    before = fingerprint(checkout)
    git(checkout, "push", "--quiet", str(tmp_path / "remote"), "HEAD:refs/heads/pushed")
    assert fingerprint(checkout) == before and log.read_text().startswith("2 ")
    assert git(checkout, "ls-tree", "-r", "--name-only", "HEAD").split() == ["bench/bench_a.py", "subject.py"]
    tree = git(checkout, "rev-parse", "HEAD^{tree}")
    git(checkout, "rebase", "--quiet", "--exec", str(tmp_path / "hooks" / "pre-push"), "--no-ff", "old")
    assert git(checkout, "rev-parse", "HEAD^{tree}") == tree and git(checkout, "status", "--porcelain") == ""
    assert len(log.read_text().splitlines()) == 2


@needs_sh
def test_hooks_of_the_repository_do_not_run_in_the_gates_checkouts(top, hook, tmp_path, no_process):
    log = hook("post-checkout")
    with prepared(top):
        assert not log.exists()


def test_no_variable_that_redirects_a_tool_is_passed_on(monkeypatch):
    listed = git(Path(__file__).parent, "rev-parse", "--local-env-vars").split()
    others = ["PIP_TARGET", "PIP_USER", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTEST_ADDOPTS",
              "GIT_CONFIG_KEY_0", "COVERAGE_PROCESS_START", "UV_PROJECT_ENVIRONMENT", "__PYVENV_LAUNCHER__", "GIT_EDITOR"]
    passed = ["PIP_INDEX_URL", "HTTPS_PROXY", "OMP_NUM_THREADS", "GIT_SSL_CAINFO", "GIT_CONFIG_GLOBAL", "SETUPTOOLS_SCM_PRETEND_VERSION"]
    for name in (*listed, *others, *passed):
        monkeypatch.setenv(name, "x")
    env = children.environment(GIT_INDEX_FILE="mine")
    assert not {*listed, *others} - {"GIT_INDEX_FILE"} & env.keys() and {*passed} <= env.keys()
    assert env["GIT_INDEX_FILE"] == "mine"


# --- nothing is written ---------------------------------------------------------------------------------------------


def test_a_comparison_writes_nothing_into_the_repository(top, no_process):
    (top / "subject.py").write_text("NAME = 'changed'\n")
    (top / "bench" / "bench_b.py").write_text(BENCHMARK)
    (top / "large.bin").write_bytes(os.urandom(100_000))
    git(top, "config", "status.showUntrackedFiles", "no")
    before = fingerprint(top)
    with prepared(top) as found:
        assert set(found.found.files) == {"bench/bench_a.py", "bench/bench_b.py"}, "the untracked one as well"
        assert fingerprint(top) == before
    assert fingerprint(top) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from fastnet.gate import repository, workspace
with workspace.workspace(Path(sys.argv[1]), None) as folder, repository.store(Path(sys.argv[1]), folder) as store:
    store.check_out(folder / "base", repository.find_commit(Path(sys.argv[1]), "old"))
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_the_next_run_removes_what_a_killed_one_left(top, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(workspace.tempfile, "tempdir", str(tmp_path))
    before = fingerprint(top)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(top)], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    left = Path(killed.stdout.strip())
    assert (left / "base" / "tree" / "subject.py").exists() and fingerprint(top) == before, killed.stderr
    with workspace.workspace(top, None) as alive:
        assert not left.exists()
        workspace.clear_abandoned(tmp_path)  # as another run would: this one is alive
        assert alive.is_dir()


def test_two_runs_at_once_have_rooms_of_their_own(top, tmp_path):
    with workspace.workspace(top, tmp_path / "home") as one, workspace.workspace(top, tmp_path / "home") as two:
        assert one != two
    with workspace.workspace(top, tmp_path / "home") as again:
        assert again == one


def test_a_file_system_without_locks_gets_a_temporary_room(top, tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(workspace.errno.ENOLCK, "No locks available")
    monkeypatch.setattr(workspace, "_lock", refuse)
    with workspace.workspace(top, tmp_path / "home") as one:
        assert one.is_dir() and not one.is_relative_to(tmp_path / "home")
    assert not one.exists()


def test_without_a_home_directory_there_is_a_temporary_one(monkeypatch, tmp_path):
    import platformdirs

    def no_home(*_):
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.delenv("FASTNET_GATE_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", no_home)
    monkeypatch.setattr(workspace.tempfile, "tempdir", str(tmp_path))
    assert workspace.home().is_relative_to(tmp_path) and workspace.home().is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTNET_GATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(GateError, match="Set FASTNET_GATE_CACHE"):
        workspace.home()


# --- checkouts ------------------------------------------------------------------------------------------------------


def test_sides_hold_each_revision_and_the_same_benchmarks(top):
    (top / "bench" / "bench_a.py").write_text(BENCHMARK.replace("test_a", "test_b"))
    with prepared(top, head=None) as found:
        trees = {name: side.tree for name, side in found.sides.items()}
        assert len({len(str(tree)) for tree in trees.values()}) == 1
        code = {name: (tree / "subject.py").read_text() for name, tree in trees.items()}
        assert code["base"] == code["same"] == "NAME = 'old'\n" != code["head"]
        assert all("test_b" in (tree / "bench" / "bench_a.py").read_text() for tree in trees.values())
        assert found.own["base"].names == ("bench/bench_a.py::test_a",)
    assert not any(tree.exists() for tree in trees.values())


def test_the_working_tree_is_taken_as_it_is(top, tmp_path):
    (top / ".gitignore").write_text("ignored.py\n")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "third")
    with store(top, tmp_path) as kept:
        assert kept.snapshot() == (find_commit(top, "HEAD"), "HEAD, to which the working tree is equal")
    (top / "subject.py").write_text("NAME = 'changed'\n")
    (top / "untracked.py").write_text("")
    (top / "ignored.py").write_text("")
    git(top, "rm", "--quiet", "--cached", "bench/bench_a.py")
    with store(top, tmp_path) as kept:
        commit, called = kept.snapshot()
        assert "working tree" in called and kept.read(commit, "subject.py") == "NAME = 'changed'"
        assert kept.files(commit) == [".gitignore", "bench/bench_a.py", "subject.py", "untracked.py"]


def test_a_sparse_checkout_and_a_split_index_are_whole(top, tmp_path):
    git(top, "config", "core.splitIndex", "true")
    git(top, "update-index", "--split-index")
    git(top, "sparse-checkout", "set", "bench")
    (top / "subject.py").unlink(missing_ok=True)
    git(top, "update-index", "--skip-worktree", "subject.py")
    with store(top, tmp_path) as kept:
        commit, _ = kept.snapshot()
        assert "bench/bench_a.py" in kept.files(commit)


@pytest.mark.parametrize("how", [["--depth", "2"], ["--filter=blob:none"], ["--shared"]], ids=str)
def test_clones_that_lack_objects_can_be_compared(top, tmp_path, how, monkeypatch, no_process):
    (tmp_path / "config").write_text("[safe]\n bareRepository = explicit\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    git(top, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", *how, str(top) if "--shared" in how else f"file://{top}", "clone")
    with prepared(tmp_path / "clone", base="HEAD^") as found:
        assert (found.sides["base"].tree / "subject.py").read_text() == "NAME = 'old'\n"


def test_submodules_are_checked_out_or_missed_aloud(top, tmp_path, no_process):
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "--quiet")
    (library / "part.py").write_text("PART = 1\n")
    git(library, "add", "--all")
    git(library, "commit", "--quiet", "--message", "part")
    git(top, "submodule", "--quiet", "add", str(library), "library")
    git(top, "commit", "--quiet", "--message", "with a submodule")
    with prepared(top, base="HEAD") as found:
        assert all((side.tree / "library" / "part.py").exists() for side in found.sides.values()) and not found.remarks
    git(tmp_path, "clone", "--quiet", str(top), "clone")
    with prepared(tmp_path / "clone", base="HEAD") as found:
        assert "submodule library is missing" in found.remarks[0] and "git submodule update --init" in found.remarks[0]


def test_pointers_of_lfs_are_said_to_be_pointers(top, no_process):
    (top / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (top / "data.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "lfs")
    for key, value in (("clean", "no-such-git-lfs clean"), ("smudge", "no-such-git-lfs smudge"), ("required", "true"), ("process", "no-such-git-lfs")):
        git(top, "config", f"filter.lfs.{key}", value)
    with prepared(top, base="HEAD", head="HEAD") as found:
        assert "data.bin is a pointer of Git LFS" in found.remarks[0] and "git lfs pull" in found.remarks[0]


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need leave there")
def test_symbolic_links_among_the_benchmarks(top, no_process):
    (top / "data").mkdir()
    (top / "data" / "x.txt").write_text("x")
    (top / "bench" / "data").symlink_to("../data", target_is_directory=True)
    (top / "bench" / "x.txt").symlink_to("../data/x.txt")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "links")
    (top / "bench" / "bench_a.py").write_text(BENCHMARK + "# changed\n")
    with prepared(top, base="HEAD") as found:
        assert all((side.tree / "bench" / "data" / "x.txt").read_text() == "x" for side in found.sides.values())


# --- failures -------------------------------------------------------------------------------------------------------


def test_any_failure_exits_2_and_writes_its_files(top, monkeypatch, capsys):
    def broken(*given, **named):
        raise ZeroDivisionError("a fault")
    monkeypatch.setattr("fastnet.gate.prepare.find", broken)
    out = top.parent / "new" / "out.json"
    code = command.main(["old", "--repo", str(top), "--env", "current", "--json", str(out), "--markdown", str(out.with_suffix(".md"))])
    assert code == 2 and '"exit_code": 2' in out.read_text() and "could not run" in out.with_suffix(".md").read_text()
    assert "ZeroDivisionError: a fault" in capsys.readouterr().err


@pytest.mark.parametrize(("base", "message"), [("nonsense", r"'nonsense' is no revision of .* This repository has main, "),
                                               ("--help=x", "is no revision")])
def test_an_unknown_revision_names_those_that_there_are(top, base, message):
    with pytest.raises(GateError, match=message):
        find_commit(top, base)


def test_a_repository_without_commits_and_a_missing_folder(tmp_path):
    git(tmp_path, "init", "--quiet")
    with pytest.raises(GateError, match="has no commit yet"):
        find_commit(tmp_path, "main")
    with pytest.raises(GateError, match="is not a folder: --repo"):
        repository.find_repository(tmp_path / "none")


def test_the_summary_of_a_job_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert command.main(["a.json", "b.json"]) == 2
    assert "could not run" in (tmp_path / "summary").read_text()
    assert shutil.which("git")
