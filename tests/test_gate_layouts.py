"""The gate on foreign projects: a matrix of layouts, each set up with pip, compared and judged rightly.

Their benchmarks run on a clock of their own, which the compared code moves, so that no verdict hangs on this machine.
Two layouts run by default; ``FASTNET_LAYOUTS=all`` runs all twelve, in a minute or two.
"""
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("setuptools", "70.1")  # builds wheels by itself

from fastnet.gate import GateError, judge
from fastnet.gate.compare import compare
from fastnet.gate.declared import check_python
from fastnet.gate.declared import groups as declared_groups
from fastnet.gate.environment import INHERIT, Recipe
from fastnet.gate.judge import Plan
from fastnet.gate.limits import Limits
from fastnet.gate.prepare import prepare
from fastnet.gate.runs import Settings

OFFLINE = "--no-index --no-build-isolation"
CODE = '''
_now = 0.0


def clock():
    global _now
    _now += 1e-9
    return _now


def _work(seconds):
    global _now
    _now += seconds


def steady():
    _work(1e-3)


def changed():
    _work({seconds})


def broken():
    {broken}
'''
BASE = CODE.format(seconds=1e-3, broken="_work(1e-3)")
HEAD = CODE.format(seconds=1.2e-3, broken="raise ValueError('broken')") + "\n\ndef fresh():\n    _work(1e-3)\n"
BENCHMARKS = '''
import pytest
import {module} as me

pytestmark = pytest.mark.benchmark(timer=me.clock)


def test_steady(benchmark): benchmark(me.steady)
def test_changed(benchmark): benchmark(me.changed)
def test_broken(benchmark): benchmark(me.broken)
def test_{last}(benchmark): benchmark(me.{calls})
'''
RESCUED = "import pytest\nimport {module} as me\n{new}\n\n@pytest.mark.benchmark(timer=me.clock)\ndef test_rescued(benchmark): benchmark(me.steady)\n"
SETUPTOOLS = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
PROJECT = SETUPTOOLS + '[project]\nname = "gated-me"\nversion = "1.2"\n'
ITS_VERSION = "import importlib.metadata\n__version__ = importlib.metadata.version('gated-me')\nassert __version__ == '1.2'\n"
C_SOURCE = '''#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_c", NULL, -1, NULL};
PyMODINIT_FUNC PyInit__c(void) { return PyModule_Create(&module); }
'''


# Makes wheels without any tool. As a build backend it is one that makes a project without files of its own.
WHEEL = '''
import base64, hashlib, zipfile


def write_wheel(folder, name, version, module, source):
    stem = name.replace("-", "_") + "-" + version
    about = stem + ".dist-info"
    digest = base64.urlsafe_b64encode(hashlib.sha256(source.encode()).digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(f"{folder}/{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr(module, source)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{about}/RECORD", f"{module},sha256={digest},{len(source)}\\n{about}/METADATA,,\\n{about}/WHEEL,,\\n{about}/RECORD,,\\n")
    return f"{stem}-py3-none-any.whl"


def build_editable(folder, config_settings=None, metadata_directory=None):
    return write_wheel(folder, "gated-me", "1.2", "gated_nothing.py", "")
'''
_tools = {}
exec(WHEEL, _tools)


def wheel(folder, name="gated-dep", version="1.0", module="gated_dep.py", source="VALUE = 1\n"):
    """A wheel of one module; returns its file."""
    folder.mkdir(exist_ok=True)
    return folder / _tools["write_wheel"](folder, name, version, module, source)


def flat(top):
    return {"pyproject.toml": PROJECT + '[project.optional-dependencies]\nbench = ["pytest-benchmark"]\n[tool.setuptools]\npackages = ["gated_me"]\n'}, "gated_me/__init__.py", ""


def src(top):
    return {"pyproject.toml": PROJECT}, "src/gated_me/__init__.py", ITS_VERSION


def setup_py(top):
    return {"setup.py": "from setuptools import setup\nsetup(name='gated-me', version='1.2', py_modules=['gated_me'], install_requires=['numpy'])\n"}, "gated_me.py", ITS_VERSION


def setup_cfg(top):
    """And a folder that is imported by another name, as fastnet's kernels are."""
    return {"setup.py": "from setuptools import setup\nsetup()\n",
            "setup.cfg": "[metadata]\nname = gated-me\nversion = 1.2\n[options]\npackages = gated_me\npackage_dir =\n    gated_me = code\n"}, "code/__init__.py", ITS_VERSION


def dynamic(top):
    return {"pyproject.toml": SETUPTOOLS + '[project]\nname = "gated-me"\ndynamic = ["version", "dependencies"]\n[tool.setuptools]\npy-modules = ["gated_me"]\n'
            '[tool.setuptools.dynamic]\nversion = {attr = "gated_me_version.V"}\ndependencies = {file = ["deps.in"]}\n',
            "gated_me_version.py": "V = '1.2'\n", "deps.in": "numpy\n"}, "gated_me.py", ITS_VERSION


def groups(top):
    return {"pyproject.toml": PROJECT + '[tool.setuptools]\npy-modules = ["gated_me"]\n[dependency-groups]\nbench = [{include-group = "run"}, "pytest"]\nrun = ["pytest-benchmark"]\n'}, "gated_me.py", ""


def requirements(top):
    return {"pyproject.toml": PROJECT + '[tool.setuptools]\npy-modules = ["gated_me"]\n', "requirements.txt": "-r requirements/more.txt\n-e .\n",
            "requirements/more.txt": "numpy\n"}, "gated_me.py", ITS_VERSION


def hashes(top):
    file = wheel(top / "wheels")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"requirements.txt": f"--find-links wheels\ngated-dep==1.0 --hash=sha256:{digest}\n"}, "gated_me.py", "import gated_dep\n"


def scripts(top):
    return {"README.md": "no packaging at all\n"}, "gated_me.py", ""


def subfolder(top):
    """And a sibling in the same repository that it needs."""
    (top / "sibling").mkdir()
    (top / "sibling" / "pyproject.toml").write_text(PROJECT.replace("gated-me", "gated-sibling"))
    (top / "sibling" / "gated_sibling.py").write_text("VALUE = 1\n")
    return {"packages/me/pyproject.toml": PROJECT + '[tool.setuptools]\npy-modules = ["gated_me"]\n', "packages/me/requirements.txt": "-e ../../sibling\n"}, \
        "packages/me/gated_me.py", "import gated_sibling\n"


def compiled(top):
    return {"setup.py": "from setuptools import Extension, setup\nsetup(name='gated-me', version='1.2', packages=['gated_me'], ext_modules=[Extension('gated_me._c', ['c.c'])])\n",
            "c.c": C_SOURCE, ".gitignore": "*.so\n*.pyd\nbuild/\n"}, "gated_me/__init__.py", "import gated_me._c\n"


def strict(top):
    """Its own configuration of pytest asks for what the gate does not load."""
    return {"pytest.ini": "[pytest]\nrequired_plugins = pytest-none>=3\naddopts = -n auto --cov=gated_me --strict-config --strict-markers --import-mode=importlib\n"
            "filterwarnings = error\nasyncio_mode = auto\nxfail_strict = true\nnorecursedirs = benchmarks\n"}, "gated_me.py", ""


LAYOUTS = [src, strict, groups, subfolder, flat, setup_py, setup_cfg, dynamic, requirements, hashes, scripts, compiled]
FOLDER = {src: "benchmarks", strict: "benchmarks", setup_cfg: "tests/benchmarks"}


def write(files):
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def commit(top, tag):
    for words in (["add", "--all"], ["commit", "--quiet", "--message", tag], ["tag", tag]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words], cwd=top, check=True, capture_output=True)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Returns a function that makes a repository of a layout: base, and a head with one change of each kind."""
    monkeypatch.setenv("FASTNET_GATE_CACHE", str(tmp_path / "cache"))

    def make_project(layout):
        top = tmp_path / "repository"
        top.mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=top, check=True)
        files, module, first = layout(top)
        project = top / ("packages/me" if layout is subfolder else "")
        bench = project / FOLDER.get(layout, "bench")
        write({top / path: text for path, text in files.items()})
        write({top / module: first + BASE, bench / "bench_a.py": BENCHMARKS.format(module="gated_me", last="deleted", calls="steady"),
               bench / "bench_b.py": RESCUED.format(module="gated_me", new="")})
        commit(top, "base")
        write({top / module: first + HEAD, bench / "bench_a.py": BENCHMARKS.format(module="gated_me", last="new", calls="fresh"),
               bench / "bench_b.py": RESCUED.format(module="gated_me", new="from gated_me import fresh")})
        commit(top, "head")
        return top, project

    return make_project


CHOSEN = LAYOUTS if os.environ.get("FASTNET_LAYOUTS") == "all" else LAYOUTS[:2]


@pytest.mark.parametrize("layout", CHOSEN, ids=lambda layout: layout.__name__)
def test_layout(make, layout):
    if layout is compiled and not (shutil.which("cc") or sys.platform == "win32"):
        pytest.skip("needs a C compiler")
    top, project = make(layout)
    where, path = project.relative_to(top).as_posix(), FOLDER.get(layout, "bench")
    settings = Settings(seconds=0.01)
    recipe = Recipe(INHERIT, pip_args=OFFLINE)
    with prepare(top, {"base": "base", "head": "head", "same": "base"}, where, None, print, recipe, settings) as prepared:
        result = compare(prepared, Limits(), plan=Plan(error=1.0), seed=0)
    names = {row.name.partition("::test_")[2]: row.verdict for row in result.rows}
    assert names == {"steady": judge.OK, "changed": judge.REGRESSED, "rescued": judge.OK}
    changed = next(row for row in result.rows if row.verdict == judge.REGRESSED)
    assert changed.change.ratio == pytest.approx(1.2, rel=1e-4)
    assert result.removed == [f"{path}/bench_a.py::test_deleted"]
    assert result.missing == {f"{path}/bench_a.py::test_broken": "runs on base but fails on head: ValueError: broken"}
    notes = " ".join(result.notes)
    assert "test_new` is new" in notes and f"base runs its own version of `{path}/bench_b.py`" in notes
    assert (result.verdict, result.exit_code) == (judge.REGRESSED, 1)


def test_a_step_that_fails_says_which_and_what_to_do(make):
    top, _ = make(scripts)
    write({top / "requirements.txt": "gated-dep==7\n"})
    commit(top, "unknown")
    with pytest.raises(GateError, match=r"(?s)installing requirements.txt on head \(unknown\) failed:.*gated-dep==7.*Options: -r FILE"):
        with prepare(top, {"head": "unknown"}, ".", None, print, Recipe(INHERIT, pip_args=OFFLINE)):
            pass


def test_a_project_is_built_with_what_it_declares_for_that(make):
    """Not with the setuptools of the environment below, which its own would have to give way to."""
    top, _ = make(scripts)
    wheel(top / "wheels", "setuptools", "999", "setuptools.py", WHEEL)
    write({top / "pyproject.toml": '[build-system]\nrequires = ["setuptools==999"]\nbuild-backend = "setuptools"\n'})
    commit(top, "built")
    with prepare(top, {"head": "built"}, ".", None, print, Recipe(INHERIT, pip_args="--no-index --find-links wheels")) as prepared:
        assert prepared.sides["head"].packages["gated-me"] == "1.2"


def test_an_environment_is_kept_while_the_project_describes_itself_alike(make):
    top, _ = make(src)
    said = []
    for revision in ("base", "head", "head"):
        with prepare(top, {"head": revision}, ".", None, said.append, Recipe(INHERIT, pip_args=OFFLINE)) as prepared:
            assert prepared.sides["head"].packages["gated-me"] == "1.2"
    assert said.count("installing head") == 1


def test_what_compilers_keep_stays_while_a_side_is_the_same(make):
    """And so do the files' times, by which Numba knows them."""
    top, _ = make(scripts)
    found = []
    for revision in ("base", "base", "head", "head"):
        with prepare(top, {"head": revision}, ".", None, print, Recipe(INHERIT, pip_args=OFFLINE)) as prepared:
            side = prepared.sides["head"]
            found.append((side.project.joinpath("gated_me.py").stat().st_mtime, (side.caches / "kernel").exists()))
            (side.caches / "kernel").touch()
    times, kept = zip(*found)
    assert kept == (False, True, False, True)
    assert times[0] == times[1] != times[2] == times[3]


@pytest.mark.parametrize(("file", "text"), [
    ("pyproject.toml", '[project]\nname = "a"\nrequires-python = "{}"\n'), ("setup.cfg", "[options]\npython_requires = {}\n"),
    ("setup.py", "from setuptools import setup\nsetup(name='a', python_requires='{}')\n")])
def test_a_project_for_another_python_is_told_before_anything_is_installed(tmp_path, file, text):
    for needed in (">=3.6", ">=3.6,!=3.7.*", "what pip does not know either"):
        (tmp_path / file).write_text(text.format(needed))
        check_python(tmp_path, "head")
    (tmp_path / file).write_text(text.format(">=3.99"))
    with pytest.raises(GateError, match=r"^head needs Python >=3\.99, and this is Python 3\..*Install fastnet for a Python that fits"):
        check_python(tmp_path, "head")


def test_groups_include_each_other(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\nBench_All = ["a", {include-group = "run"}]\nrun = ["b"]\nme = [{include-group = "me"}]\n')
    assert declared_groups(tmp_path)["bench-all"] == ["a", "b"]
    with pytest.raises(GateError, match="includes itself"):
        declared_groups(tmp_path, strict=True)


def test_the_command_starts_without_kernels():
    code = ("import sys, fastnet.cli, fastnet.gate.command, fastnet.gate.compare, fastnet.gate.files\n"
            "fastnet.gate.command.parser('x')\n"
            "print([name for name in sys.modules if name.partition('.')[0] in ('numba', 'llvmlite') or name.startswith('fastnet.kernels.')])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == "[]", done.stderr
