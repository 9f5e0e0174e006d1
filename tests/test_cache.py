"""The cache of compiled kernels: found again, made anew after an edit, whole after a stampede, done without, and safe."""
import compileall
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest
from fastnet.kernels import _cache, _system
from numba import njit

import fastnet

ROOT = Path(__file__).parents[1]
USE = """
import numpy as np
from fastnet.kernels.sgd import sgd_update  # what compiles soonest
from fastnet.kernels import _cache
y = np.empty(5, {dtype})
sgd_update(y, np.array([1, 1, 2, 3, 4], {dtype}), np.array([2, 2, 4, 4, 4], {dtype}), 0.5)
assert (y == [0, 0, 0, 1, 2]).all()
from fastnet.kernels import sgd
misses = sum(sum(d.stats.cache_misses.values()) for d in vars(sgd).values() if hasattr(d, "stats"))
print(misses, _cache.CACHE)
"""


def start(root=ROOT, dtype="np.float64", **environment):
    env = {**os.environ, "PYTHONPATH": str(root), **environment}
    env = {name: value for name, value in env.items() if value}
    return subprocess.Popen([sys.executable, "-c", USE.format(dtype=dtype)], env=env, text=True, cwd=root,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def outcome(process):
    out, err = process.communicate(timeout=600)  # eight that compile at once, on a machine busy with other work
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


# --- wherever the code comes from --------------------------------------------------------------------------------------

# Modules whose loader has their code but no files, as in a program frozen by PyInstaller
BUNDLE = """
import pathlib, sys
from importlib.machinery import ModuleSpec

CODES = {}
for file in sorted(pathlib.Path(sys.argv[1]).rglob("*.py")):
    parts = file.relative_to(sys.argv[1]).with_suffix("").parts
    package = parts[-1] == "__init__"
    CODES[".".join(parts[:-1] if package else parts)] = compile(file.read_text("utf-8"), "/".join(parts), "exec"), package


class Bundle:
    def __init__(self, path):
        if not path.startswith("bundle:"):
            raise ImportError(path)
        self.parent = path[len("bundle:"):]

    def find_spec(self, name, target=None):
        if name not in CODES:
            return None
        spec = ModuleSpec(name, self, is_package=CODES[name][1])
        if CODES[name][1]:
            spec.submodule_search_locations.append(f"bundle:{name}.")
        return spec

    def iter_modules(self, prefix=""):
        for name, (_, package) in CODES.items():
            tail = name[len(self.parent):]
            if name.startswith(self.parent) and "." not in tail:
                yield prefix + tail, package

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__file__ = f"/nowhere/{module.__name__}.py"
        exec(CODES[module.__name__][0], module.__dict__)


if sys.argv[2] == "readable":
    Bundle.get_code = lambda self, name: CODES[name][0]
sys.path_hooks.append(Bundle)
sys.path[:0] = ["bundle:"]
"""
SHOW = "from fastnet.kernels import _cache\nprint(_cache.DIGEST, _cache.CACHE)"


@pytest.fixture
def installed(tmp_path):
    """A copy of the packages, laid out as a wheel installs them."""
    package = Path(_cache.__file__).parent
    shutil.copytree(Path(fastnet.__file__).parent, tmp_path / "installed" / "fastnet",
                    ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    shutil.copytree(package, tmp_path / "installed" / "fastnet" / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "installed"


def run_from(kind, installed):
    """Python's arguments and search path for running a program with fastnet as that kind of installation has it."""
    folder = installed.parent / kind
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "zip":
        shutil.make_archive(str(folder / "fastnet"), "zip", installed)
        return [], folder / "fastnet.zip"
    if kind == "without sources":
        shutil.copytree(installed, folder)
        compileall.compile_dir(folder, quiet=1, legacy=True)
        for source in folder.rglob("*.py"):
            source.unlink()
        return [], folder
    return [BUNDLE, str(installed), kind], installed.parent


def program_with(program, prelude="", *arguments):
    return prelude + program, *arguments


def digest_from(kind, installed, program=SHOW):
    prelude, path = run_from(kind, installed)
    result = subprocess.run([sys.executable, "-c", *program_with(program, *prelude)], text=True, capture_output=True, timeout=240,
                            cwd=installed.parent, env={**os.environ, "PYTHONPATH": str(path),
                                                       "FASTNET_CACHE_DIR": str(installed.parent / "cache")})
    assert result.returncode == 0, result.stderr
    return result


def edit(installed, file="relu.py"):
    with open(installed / "fastnet" / "kernels" / file, "a") as source:
        source.write("\nEDITED = 1\n")


@pytest.mark.parametrize("kind", ["zip", "without sources", "readable"])
def test_an_update_is_noticed_wherever_the_code_comes_from(kind, installed):
    before = digest_from(kind, installed).stdout
    assert "None" not in before
    assert digest_from(kind, installed).stdout == before
    edit(installed)
    changed = digest_from(kind, installed).stdout
    assert changed != before and "None" not in changed


def test_an_update_of_a_zip_runs_the_new_kernels(installed):
    use = USE.format(dtype="np.float64")
    assert int(digest_from("zip", installed, use).stdout.split()[0]) > 0
    assert int(digest_from("zip", installed, use).stdout.split()[0]) == 0
    edit(installed)
    assert int(digest_from("zip", installed, use).stdout.split()[0]) > 0


def test_a_new_version_of_fastnet_has_a_folder_of_its_own(installed):
    before = digest_from("zip", installed).stdout
    (installed / "fastnet" / "_version.py").write_text('__version__ = "99.0"\n')
    assert digest_from("zip", installed).stdout != before


def test_nothing_is_kept_where_no_code_can_be_read(installed):
    result = digest_from("unreadable", installed)
    assert result.stdout.split() == ["None", "None"]
    assert result.stderr.count("an update would go unnoticed") == 1
    assert not (installed.parent / "cache").exists()


def test_a_kernel_elsewhere_is_kept_only_where_its_file_can_be_read(tmp_path):
    names = {}
    exec("def function(x):\n    return x + 1\n", names)
    names["function"].__module__ = __name__
    assert not found_in(tmp_path, names["function"]) and not found_in(tmp_path, names["function"])
    assert not list(tmp_path.iterdir())


# --- Numba's settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT",
                                     "EXTEND_VARIABLE_LIFETIMES", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS", "DEBUG_NRT",
                                     "DISABLE_INTEL_SVML", "DEBUG_JIT"])
def test_code_compiled_with_another_setting_is_not_taken(setting, tmp_path, monkeypatch):
    cache = _cache.KernelCache(found_in, tmp_path)
    codegen = njit(lambda: None).targetctx.codegen()
    before = cache._key((), codegen)
    monkeypatch.setattr(numba.config, setting, "another")
    assert cache._key((), codegen) != before


def test_settings_without_effect_on_code_share_it(tmp_path, monkeypatch):
    cache = _cache.KernelCache(found_in, tmp_path)
    codegen = njit(lambda: None).targetctx.codegen()
    before = cache._key((), codegen)
    for setting in ("NUMBA_NUM_THREADS", "CACHE_DIR", "COLOR_SCHEME", "DISABLE_PERFORMANCE_WARNINGS", "THREADING_LAYER",
                    "FULL_TRACEBACKS", "CUDA_LOG_LEVEL"):
        monkeypatch.setattr(numba.config, setting, "another")
    assert cache._key((), codegen) == before


def test_kernels_compiled_without_optimisation_are_not_taken_later(tmp_path):
    environment = {"FASTNET_CACHE_DIR": str(tmp_path)}
    assert outcome(start(NUMBA_OPT="0", **environment))[0] > 0
    assert outcome(start(**environment))[0] > 0
    assert outcome(start(**environment))[0] == 0


# ------------------------------------------------------------------------------------------------------------------------


def test_eight_cold_processes_at_once(tmp_path):
    dtypes = ("np.float32", "np.float64") * 4
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
    blocked = USE.format(dtype="np.float32").replace("import numpy as np", f"""
import numpy as np, tempfile, platformdirs
tempfile.gettempdir = platformdirs.user_cache_dir = lambda *a, **k: {nowhere!r}""", 1)
    result = subprocess.run([sys.executable, "-W", "default", "-c", blocked], text=True, capture_output=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": nowhere, "NUMBA_CACHE_DIR": nowhere})
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[1] == "None"
    assert result.stderr.count("no folder for compiled kernels can be written") == 1
    assert "FASTNET_CACHE_DIR: " in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="users as POSIX has them")
def test_no_folder_called_tilde_is_made_without_a_home(tmp_path, monkeypatch):
    """`platformdirs` leaves the ~ where no home is known, as for a user id that the system has no entry for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "FASTNET_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_cache.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert _system.user_cache() is None
    assert _cache._find_cache() == tmp_path / "temporary" / f"fastnet-{os.geteuid()}" / f"kernels-{_cache.DIGEST}"
    monkeypatch.setenv("FASTNET_CACHE_DIR", "~/kernels")
    with pytest.warns(RuntimeWarning, match="FASTNET_CACHE_DIR: ~/kernels begins with a home folder"):
        assert _cache._find_cache().is_relative_to(tmp_path / "temporary")
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


def test_a_tilde_in_the_environment_is_the_home_folder(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("FASTNET_CACHE_DIR", os.path.join("~", "kernels"))
    assert _cache._find_cache() == (tmp_path / "kernels").resolve() / f"kernels-{_cache.DIGEST}"


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
    dispatcher._cache = _cache.KernelCache(function, folder)
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
    _cache.KernelCache(double, tmp_path).flush()
    assert found_in(tmp_path) and not found_in(tmp_path, double)


def test_a_cache_that_cannot_be_written_says_so_once(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_cache, "_warned", set())
    monkeypatch.setattr(_cache.tempfile, "mkstemp", full)
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
        folder = _system.make_private_folder(private / "a" / "b" / "c")
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
        assert _system.trusted_folder(private / "a" / "b") == private / "a" / "b"
    else:
        with pytest.raises(_system.UntrustedFolderError, match=refused):
            _system.make_private_folder(private / "a" / "b")


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
        assert _system.trusted_folder(private / link / "inner") == private / "real" / "inner"
    with pytest.raises(_system.UntrustedFolderError, match="others may write"):
        _system.trusted_folder(private / "bad" / "inner")
    with pytest.raises(_system.UntrustedFolderError, match="too many links"):
        _system.trusted_folder(private / "loop")
    (private / "file").touch()
    for missing, error in (("nothing", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(error):
            _system.trusted_folder(private / missing)


AS_USER = """
import os, sys, warnings
import grp, pwd
from fastnet.kernels import _cache, _system
from numba import njit
from kept import function

def load(folder):
    "What one start does with a function that is kept in a folder; tells whether it was found there."
    _cache._warned.clear()
    dispatcher = njit(function)
    dispatcher._cache = _cache.KernelCache(function, folder)
    assert dispatcher(2) == 3
    return bool(sum(dispatcher.stats.cache_hits.values()))

def become(user):
    os.setresuid(user, user, 0)  # root can be taken back

def root():
    os.setresuid(0, 0, 0)

USER, ATTACKER = {user}, {attacker}
assert not load({folder!r} + "/warm") and load({folder!r} + "/warm")  # imports what another user may not be able to read
os.setgroups([])
os.setresgid(60000, 60000, 60000)  # a group that nobody uses
warnings.simplefilter("always")
os.chdir("/")
os.umask(0o022)
"""


@pytest.fixture
def reachable():
    """A folder that all users can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def as_user(program, folder):
    """Run a program that can become one user or the other; they can read nothing but this folder."""
    (folder / "kept.py").write_text("def function(x):\n    return x + 1\n")
    (folder / "kept.py").chmod(0o644)
    start = AS_USER.format(folder=str(folder), user=USER, attacker=ATTACKER)
    return subprocess.run([sys.executable, "-c", start + program], text=True, capture_output=True, timeout=240,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "FASTNET_CACHE_DIR": "",
                               "NUMBA_CACHE_DIR": "",
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
os.environ["TMPDIR"] = _cache.tempfile.tempdir = {str(temporary)!r}
become(USER)
own = _cache._find_cache()
assert str(own.parent) == {str(temporary)!r} + f"/fastnet-{{USER}}", own
root()
os.rename(own.parent, {str(reachable / "away")!r})

become(ATTACKER)  # who knows the name of the folder, and comes first
os.umask(0)
os.makedirs({str(temporary)!r} + f"/fastnet-{{USER}}/{{own.name}}", 0o777)
root()
become(USER)
print(_cache._find_cache())
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
    folder = _system.make_private_folder(base / "kernels")
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
