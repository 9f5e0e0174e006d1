"""The cache of compiled kernels: found again, made anew after an edit, whole after a stampede, done without, and safe."""
import compileall
import importlib
import os
import pickle
import pkgutil
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import fastnet.kernels
import numba
import pytest
from fastnet.kernels import system
from fastnet.kernels.codegen import cache
from fastnet.kernels.codegen.jit import Kernel
from numba import njit

from fastnet.gate import workspace

ROOT = Path(__file__).parents[1]
USE = """
import numpy as np
from fastnet.kernels.sgd import sgd_update  # what compiles soonest
from fastnet.kernels.codegen import cache
y = np.empty(5, {dtype})
sgd_update(y, np.array([1, 1, 2, 3, 4], {dtype}), np.array([2, 2, 4, 4, 4], {dtype}), 0.5)
assert (y == [0, 0, 0, 1, 2]).all()
from fastnet.kernels import sgd
misses = sum(sum(d.stats.cache_misses.values()) for d in vars(sgd).values() if hasattr(d, "stats"))
print(misses, cache.CACHE)
"""


def start(root=ROOT, dtype="np.float64", cwd=None, **environment):
    env = {**os.environ, "PYTHONPATH": str(root), **environment}
    env = {name: value for name, value in env.items() if value}
    return subprocess.Popen([sys.executable, "-c", USE.format(dtype=dtype)], env=env, text=True, cwd=cwd or root,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def outcome(process):
    out, err = process.communicate(timeout=600)  # several that compile at once, on a machine busy with other work
    assert process.returncode == 0, err
    misses, folder = out.split(maxsplit=1)
    return int(misses), folder.strip(), err


def test_a_second_process_compiles_nothing(tmp_path):
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] > 0
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] == 0


@pytest.mark.skipif(not (ROOT / "kernels").exists(), reason="needs a checkout, not what is installed")
def test_an_edit_of_any_kernel_file_is_noticed(tmp_path):
    for folder in ("fastnet", "kernels"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _, before, _ = outcome(start(tmp_path, FASTNET_CACHE_DIR=str(tmp_path / "cache")))
    with open(tmp_path / "kernels" / "relu.py", "a") as file:
        file.write("\n# an edit in another file\n")
    misses, after, _ = outcome(start(tmp_path, FASTNET_CACHE_DIR=str(tmp_path / "cache")))
    assert misses > 0 and after != before


def copied(folder):
    """The installed form of the package, kernels within fastnet; of the other subpackages kernels need none."""
    (folder / "fastnet").mkdir(parents=True)
    for file in Path(fastnet.__file__).parent.glob("*.py"):
        shutil.copy(file, folder / "fastnet")
    shutil.copytree(Path(cache.__file__).parents[1], folder / "fastnet" / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def zipped(folder):
    return Path(shutil.make_archive(str(folder) + "-zipped", "zip", folder))


def without_sources(folder):
    bare = folder.with_name(folder.name + "-bare")
    shutil.copytree(folder, bare)
    compileall.compile_dir(bare, quiet=2, legacy=True)
    for source in bare.rglob("*.py"):
        source.unlink()
    return bare


# PyInstaller's loader: it has the code of modules and no file of theirs
FROZEN = """
import importlib.machinery, sys
def no_file(*_): raise FileNotFoundError
class Loader(importlib.machinery.SourceFileLoader):
    get_data = no_file
    def get_code(self, name):
        return {code}
    def exec_module(self, module):
        exec(compile(open(self.path).read(), self.path, "exec"), vars(module))
def hook(path):
    if not path.endswith("kernels"): raise ImportError
    return importlib.machinery.FileFinder(path, (Loader, [".py"]))
sys.path_hooks.insert(0, hook)
"""
GIVES_CODE = FROZEN.format(code='compile(open(self.path).read(), "x", "exec")')
GIVES_NOTHING = FROZEN.format(code="None")


def digest_of(place, before=""):
    program = before + "from fastnet.kernels.codegen import cache; print(cache.DIGEST, cache.CACHE)"
    result = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, timeout=120, cwd=place.parent,
                            env={**os.environ, "PYTHONPATH": str(place), "FASTNET_CACHE_DIR": str(place.parent / "cache")})
    assert result.returncode == 0, result.stderr
    return *result.stdout.split(maxsplit=1), result.stderr


@pytest.mark.parametrize(("form", "before"), [
    (lambda folder: folder, ""), (zipped, ""), (without_sources, ""), (lambda folder: zipped(without_sources(folder)), ""),
    (lambda folder: folder, GIVES_CODE),
], ids=["files", "zip", "pyc", "zip of pyc", "frozen"])
def test_an_update_is_noticed_however_the_package_is_installed(form, before, tmp_path):
    folder = copied(tmp_path / "lib")
    place = form(folder)
    first = digest_of(place, before)
    assert first == digest_of(place, before)
    with open(folder / "fastnet" / "kernels" / "relu.py", "a") as file:
        file.write("\nEDITED = 1\n")
    shutil.rmtree(tmp_path / "lib-bare", ignore_errors=True)
    second = digest_of(form(folder), before)
    with open(folder / "fastnet" / "_version.py", "a") as file:
        file.write("\n__version__ += '.1'\n")
    shutil.rmtree(tmp_path / "lib-bare", ignore_errors=True)
    third = digest_of(form(folder), before)
    assert len({first[0], second[0], third[0]}) == 3 and "None" not in (first[0], second[0], third[0])


def test_nothing_is_kept_where_nothing_can_be_read(tmp_path):
    digest, folder, text = digest_of(copied(tmp_path / "lib"), GIVES_NOTHING)
    assert (digest, folder) == ("None", "None\n")
    assert text.count("the code of its kernels cannot be read here") == 1


def test_kernels_run_from_a_zip_and_not_those_of_the_version_before(tmp_path):
    folder = copied(tmp_path / "lib")
    assert outcome(start(zipped(folder), cwd=tmp_path, FASTNET_CACHE_DIR=str(tmp_path / "cache")))[0] > 0
    assert outcome(start(zipped(folder), cwd=tmp_path, FASTNET_CACHE_DIR=str(tmp_path / "cache")))[0] == 0
    with open(folder / "fastnet" / "kernels" / "relu.py", "a") as file:
        file.write("\n# an edit in another file\n")
    assert outcome(start(zipped(folder), cwd=tmp_path, FASTNET_CACHE_DIR=str(tmp_path / "cache")))[0] > 0


@pytest.mark.filterwarnings("ignore:Could not find source for function")  # of a lambda, with debug information
@pytest.mark.parametrize(("name", "value", "found"), [
    ("OPT", 0, False), ("OPT", numba.config._OptLevel("max"), False), ("LOOP_VECTORIZE", 0, False), ("SLP_VECTORIZE", 1, False),
    ("BOUNDSCHECK", 1, False), ("DEBUGINFO_DEFAULT", 1, False), ("LLVM_REFPRUNE_PASS", 0, False),
    ("EXTEND_VARIABLE_LIFETIMES", 1, False), ("A_SETTING_TO_COME", 1, False),
    ("NUMBA_NUM_THREADS", 1, True), ("CACHE_DIR", "/elsewhere", True), ("DISABLE_PERFORMANCE_WARNINGS", 1, True),
])
def test_settings_of_numba_that_may_change_code_are_part_of_the_key(name, value, found, tmp_path, monkeypatch):
    assert not found_in(tmp_path) and found_in(tmp_path)
    monkeypatch.setattr(numba.config, name, value, raising=False)
    assert found_in(tmp_path) == found
    assert found_in(tmp_path)
    monkeypatch.undo()
    assert found_in(tmp_path)


def test_numba_opt_in_the_environment_has_kernels_of_its_own(tmp_path):
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path), NUMBA_OPT="0"))[0] > 0
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] > 0
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] == 0


def test_a_function_whose_source_cannot_be_read_is_not_kept(tmp_path):
    made = {}
    exec(compile("def f(x): return x + 1", "no such file", "exec"), {"__name__": "somewhere"}, made)
    assert not found_in(tmp_path, made["f"]) and not found_in(tmp_path, made["f"])
    assert not list(tmp_path.iterdir())


def test_cold_processes_that_start_at_once(tmp_path):
    dtypes = ("np.float32", "np.float64") * 2
    for process in [start(dtype=dtype, FASTNET_CACHE_DIR=str(tmp_path)) for dtype in dtypes]:
        outcome(process)
    for dtype in dtypes[:2]:
        assert outcome(start(dtype=dtype, FASTNET_CACHE_DIR=str(tmp_path)))[0] == 0


@pytest.mark.skipif(os.name == "nt", reason="folders that cannot be made by a path below a file")
def test_no_home_and_no_place_to_write(tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "below")
    used = outcome(start(FASTNET_CACHE_DIR=nowhere, NUMBA_CACHE_DIR="", HOME=nowhere, XDG_CACHE_HOME=nowhere,
                         TMPDIR=str(tmp_path)))
    assert used[1].startswith(str(tmp_path / "fastnet-"))
    # no HOME and no entry of the user, as older versions of platformdirs answer
    tilde = USE.format(dtype="np.float64").replace("import numpy as np", """
import numpy as np, platformdirs
platformdirs.user_cache_dir = lambda *a, **k: "~/.cache/fastnet\"""", 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    for given in ("", "~nobody-of-this-name/kernels"):
        result = subprocess.run([sys.executable, "-c", tilde], text=True, capture_output=True, timeout=120, cwd=tmp_path,
                                env={**environment, "FASTNET_CACHE_DIR": given})
        assert result.returncode == 0 and result.stdout.split()[1].startswith(str(tmp_path / "fastnet-")), result
        assert not list(tmp_path.glob("~*"))
        assert ("FASTNET_CACHE_DIR: Could not determine home" in result.stderr) == bool(given)
    blocked = USE.format(dtype="np.float32").replace("import numpy as np", f"""
import numpy as np, tempfile, platformdirs
tempfile.gettempdir = platformdirs.user_cache_dir = lambda *a, **k: {nowhere!r}""", 1)
    result = subprocess.run([sys.executable, "-W", "default", "-c", blocked], text=True, capture_output=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": nowhere, "NUMBA_CACHE_DIR": nowhere})
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[1] == "None"
    assert result.stderr.count("no folder for compiled kernels can be written") == 1
    assert "FASTNET_CACHE_DIR: " in result.stderr


def test_the_command_shows_and_empties_the_cache(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": str(tmp_path)}
    outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))

    def command(*arguments):
        return subprocess.run([sys.executable, "-m", "fastnet", "cache", *arguments], env=environment, text=True,
                              capture_output=True, check=True).stdout

    assert str(tmp_path) in command() and "0 compiled functions" not in command()
    assert "Removed the compiled kernels of 1 versions" in command("--clear")
    assert "0 compiled functions" in command()


def kept(folder):
    files = list(Path(folder).rglob("*.nbc"))
    assert files
    return files


def zeros_inside(content):
    third = len(content) // 3
    return content[:third] + bytes(third) + content[2 * third:]


def found_in(folder, function=lambda x: x + 1):
    """What one start does with a small function: whether it was found in the folder."""
    dispatcher = njit(function)
    dispatcher._cache = cache.KernelCache(function, folder)
    assert dispatcher(2) == function(2)
    return bool(sum(dispatcher.stats.cache_hits.values()))


@pytest.mark.parametrize("damage", [lambda content: content[:len(content) // 2], lambda content: content[:20],
                                    lambda content: b"", zeros_inside, lambda content: content + b"x"],
                         ids=["cut", "cut in the digest", "empty", "zeros inside", "longer"])
def test_a_damaged_file_is_compiled_anew(damage, tmp_path):
    assert not found_in(tmp_path) and found_in(tmp_path)
    file, = kept(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert not found_in(tmp_path)
    assert found_in(tmp_path)


def test_a_start_with_every_file_damaged(tmp_path):
    misses = outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0]
    for file in kept(tmp_path):
        file.write_bytes(zeros_inside(file.read_bytes()))
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] == misses
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] == 0


def test_a_file_of_another_function_is_not_taken_for_ours(tmp_path):
    def double(x):
        return 2 * x

    assert not found_in(tmp_path)
    assert not found_in(tmp_path, double)
    ours, other = sorted(kept(tmp_path), key=lambda file: "double" in file.name)
    shutil.copy(other, ours)
    assert not found_in(tmp_path)
    assert found_in(tmp_path) and found_in(tmp_path, double)


def test_flush_forgets_one_function(tmp_path):
    def double(x):
        return 2 * x

    found_in(tmp_path), found_in(tmp_path, double)
    cache.KernelCache(double, tmp_path).flush()
    assert found_in(tmp_path) and not found_in(tmp_path, double)


def test_a_cache_that_cannot_be_written_says_so_once(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache.tempfile, "mkstemp", full)
    with pytest.warns(RuntimeWarning, match=r"cannot be kept \(\[Errno 28\] No space left on device\)") as warned:
        assert not found_in(tmp_path)
        assert not found_in(tmp_path)
    assert len(warned) == 1


# --- who may put code into it -----------------------------------------------------------------------------------------

POSIX = pytest.mark.skipif(os.name == "nt", reason="owners and modes as POSIX has them")
ROOT_ONLY = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can be several users")
USER, ATTACKER = 54321, 54322


@pytest.fixture
def private(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path.resolve()


@POSIX
def test_a_new_folder_and_its_parents_are_private_whatever_the_umask(private):
    before = os.umask(0)
    try:
        folder = system.make_private_folder(private / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert folder == private / "a" / "b" / "c"
    for made in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


@POSIX
@pytest.mark.parametrize(("modes", "refused"), [
    ({"a": 0o755, "a/b": 0o755}, None),
    ({"a": 0o1777, "a/b": 0o700}, None),
    ({"a": 0o777, "a/b": 0o700}, "others may write in .*/a$"),
    ({"a": 0o757, "a/b": 0o700}, "others may write in .*/a$"),
    ({"a": 0o755, "a/b": 0o777}, "others may write in .*/a/b$"),
    ({"a": 0o755, "a/b": 0o720}, "others may write in .*/a/b$"),
    ({"a": 0o755, "a/b": 0o1777}, "others may write in .*/a/b$"),  # anyone can make files there
])
def test_nobody_else_may_write_in_the_folder_or_its_parents(modes, refused, private):
    for name, mode in modes.items():
        (private / name).mkdir()
        (private / name).chmod(mode)
    if refused is None:
        assert system.trusted_folder(private / "a" / "b") == private / "a" / "b"
    else:
        with pytest.raises(system.UntrustedFolderError, match=refused):
            system.make_private_folder(private / "a" / "b")


@POSIX
def test_links_are_followed_only_through_folders_that_can_be_trusted(private):
    for name in ("real/inner", "open/inner"):
        (private / name).mkdir(parents=True)
    (private / "open").chmod(0o777)
    (private / "absolute").symlink_to(private / "real")
    (private / "relative").symlink_to("absolute/../real/inner/..")
    (private / "bad").symlink_to(private / "open")
    (private / "loop").symlink_to(private / "loop")
    for link in ("absolute", "relative"):
        assert system.trusted_folder(private / link / "inner") == private / "real" / "inner"
    with pytest.raises(system.UntrustedFolderError, match="others may write"):
        system.trusted_folder(private / "bad" / "inner")
    with pytest.raises(system.UntrustedFolderError, match="too many links"):
        system.trusted_folder(private / "loop")
    (private / "file").touch()
    for missing, error in (("nothing", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(error):
            system.trusted_folder(private / missing)


AS_USER = """
import os, sys, warnings
import grp, pwd
sys.path.insert(0, {root!r})
from fastnet.kernels.codegen import cache
from fastnet.kernels import system
from numba import njit

def load(folder):
    "What one start does with a function that is kept in a folder; tells whether it was found there."
    cache._warned.clear()
    dispatcher = njit(function)
    dispatcher._cache = cache.KernelCache(function, folder)
    assert dispatcher(2) == 3
    return bool(sum(dispatcher.stats.cache_hits.values()))

def function(x):
    return x + 1

def become(user):
    os.setresuid(user, user, 0)  # root can be taken back

def root():
    os.setresuid(0, 0, 0)

USER, ATTACKER = {user}, {attacker}
os.setgroups([])
os.setresgid(60000, 60000, 60000)  # a group that nobody uses
warnings.simplefilter("always")
os.chdir("/")
os.umask(0o022)
# All that compiling and keeping need is imported while root can read it: a checkout or an environment may be private.
for _ in range(2):
    load(system.make_private_folder(cache.Path({folder!r}, "of-root")))
"""


@pytest.fixture
def reachable():
    """A folder that all users can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def as_user(program, folder):
    """Run a program that can become one user or the other."""
    script = folder / "program.py"  # which every user can read, as the cache does
    script.write_text(AS_USER.format(root=str(ROOT), user=USER, attacker=ATTACKER, folder=str(folder)) + program)
    script.chmod(0o644)
    return subprocess.run([sys.executable, str(script)], text=True, capture_output=True, timeout=240,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": "", "NUMBA_CACHE_DIR": "",
                               "TMPDIR": str(folder), "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"})


class Evil:
    """Unpickling it makes a folder: the proof that it ran."""

    def __init__(self, proof):
        self.proof = str(proof)

    def __reduce__(self):
        return os.mkdir, (self.proof,)


@ROOT_ONLY
def test_nothing_of_another_user_is_taken_from_the_folder_for_temporary_files(reachable):
    temporary = reachable / "temporary"
    temporary.mkdir()
    temporary.chmod(0o1777)
    result = as_user(f"""
os.environ["TMPDIR"] = cache.tempfile.tempdir = {str(temporary)!r}
become(USER)
own = cache._find_cache()
assert str(own.parent) == {str(temporary)!r} + f"/fastnet-{{USER}}", own
root()
os.rename(own.parent, {str(reachable / "away")!r})

become(ATTACKER)  # who knows the name of the folder, and comes first
os.umask(0)
os.makedirs({str(temporary)!r} + f"/fastnet-{{USER}}/{{own.name}}", 0o777)
root()
become(USER)
print(cache._find_cache())
""", reachable)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "None\n"
    assert f"{temporary}/fastnet-{USER} belongs to another user" in result.stderr


@ROOT_ONLY
def test_code_that_another_user_could_have_put_there_never_runs(reachable):
    proof = reachable / "proof"
    result = as_user(f"""
from pathlib import Path
import hashlib

top = Path({str(reachable)!r})
os.chmod(top, 0o1777)
evil = {pickle.dumps(Evil(proof))!r}


def link(folder, owner_of_link, owner_of_target):
    os.rename(folder, f"{{folder}}2")
    os.symlink(f"{{folder}}2", folder)
    os.chown(folder, owner_of_link, -1, follow_symlinks=False)
    os.chown(f"{{folder}}2", owner_of_target, -1)


attacks = {{
    "none": lambda folder: None,  # the control: what the user himself put there does run
    "folder given away": lambda folder: os.chown(folder, ATTACKER, -1),
    "parent given away": lambda folder: os.chown(folder.parent, ATTACKER, -1),
    "folder open": lambda folder: os.chmod(folder, 0o777),
    "folder open to a group": lambda folder: os.chmod(folder, 0o770),
    "parent open": lambda folder: os.chmod(folder.parent, 0o777),
    "folder sticky": lambda folder: os.chmod(folder, 0o1777),
    "link of another": lambda folder: link(folder, ATTACKER, USER),
    "link to another's": lambda folder: link(folder, USER, ATTACKER),
}}
for number, (name, attack) in enumerate(attacks.items()):
    base = top / f"base{{number}}"
    base.mkdir()
    os.chown(base, USER, -1)
    become(USER)
    folder = system.make_private_folder(base / "kernels")
    assert not load(folder) and load(folder)
    kept, = folder.glob("*.nbc")
    kept.write_bytes(hashlib.sha256(evil).digest() + evil)
    root()
    attack(folder)
    become(USER)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            outcome = load(folder)
        except TypeError:  # what it made is no pair of key and code
            outcome = None
    ran = os.path.exists({str(proof)!r})
    root()
    if ran:
        os.rmdir({str(proof)!r})
    print(name, "ran" if ran else outcome, len(caught), *[w.message for w in caught], sep="|")
""", reachable)
    assert result.returncode == 0, result.stderr
    first, *others = result.stdout.splitlines()
    assert first == "none|ran|0"
    assert len(others) == 8
    for line in others:
        name, found, warned, text = line.split("|")
        assert (found, warned) == ("False", "1"), line
        assert ("others may write" if "open" in name or "sticky" in name else "belongs to another user") in text


@POSIX
def test_the_gate_makes_no_folder_called_tilde_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # no entry of the user; Python 3.10's pathlib keeps an expanduser of its own
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("HOME", "XDG_CACHE_HOME", "FASTNET_GATE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert workspace.home().parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [workspace.home().name]


def test_no_two_kernels_share_the_names_of_their_files():
    stems = {}
    for found in pkgutil.walk_packages(fastnet.kernels.__path__, "fastnet.kernels."):
        for kernel in vars(importlib.import_module(found.name)).values():
            if isinstance(kernel, Kernel) and kernel.py_func.__module__ == found.name:
                stems.setdefault(kernel._cache._stem, set()).add(kernel.py_func)
    assert len(stems) > 150 and all(len(functions) == 1 for functions in stems.values())
