"""What is installed: beside another package called kernels, with types for a user's mypy, whole as a wheel and as sources.

Nothing here needs a network: distributions are built by setuptools, and the other package is a wheel made by hand.
"""
import base64
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
setuptools = pytest.importorskip("setuptools", "77")
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists() or not (ROOT / "kernels").exists(),
                                reason="needs the sources, not what is installed")


def python(interpreter, *arguments, check=True, **options):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    result = subprocess.run([str(interpreter), *map(str, arguments)], text=True, capture_output=True, timeout=300,
                            env={**environment, **options.pop("env", {})}, **options)
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def sources(to):
    """A copy of what is under version control, roughly, for builds to write into."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(
        ".git", ".venv", ".lint", "__pycache__", ".*_cache", ".hypothesis", ".benchmarks", "build", "dist", "*.egg-info", "results"))
    return to


def build(folder, what, to):
    """One of the two distributions, as a build front end would have it made."""
    to.mkdir(exist_ok=True)
    made = python(sys.executable, "-c", f"from setuptools import build_meta as b; print('made', b.build_{what}({str(to)!r}))",
                  cwd=folder)
    assert "absent from the `packages`" not in made.stderr, made.stderr  # pip shows whoever installs a page on each such folder
    return to / re.search(r"^made (.*)$", made.stdout, re.MULTILINE).group(1)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    return build(sources(folder / "sources"), "wheel", folder / "dist")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A wheel with another package called kernels."""
    info = "kernels-9.0.dist-info"
    files = {"kernels/__init__.py": "WHO = 'stranger'\n", "kernels/gemm.py": "WHO = 'stranger'\n",
             f"{info}/METADATA": "Metadata-Version: 2.1\nName: kernels\nVersion: 9.0\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
                     f"{len(text)}\n" for name, text in files.items())
    path = tmp_path_factory.mktemp("stranger") / "kernels-9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return path


class Environment:
    """A virtual environment that sees the packages of this one behind its own."""

    def __init__(self, folder):
        venv.create(folder, with_pip=False)
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        paths = {"base": str(folder), "platbase": str(folder)}
        self.site = Path(sysconfig.get_path("purelib", "venv" if sys.version_info >= (3, 11) else None or
                                            sysconfig.get_default_scheme(), vars=paths))
        (self.site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments):
        python(self.python, "-m", "pip", "--disable-pip-version-check", "-q", *arguments, cwd=self.folder)

    def install(self, *what):
        self.pip("install", "--no-compile", "--no-index", "--no-deps", "--no-build-isolation", *what)

    def uninstall(self, name):
        self.pip("uninstall", "-y", name)

    def run(self, program, *, cwd=None, check=True, **env):
        return python(self.python, "-c", program, cwd=cwd or self.folder, check=check, env=env).stdout.strip()


@pytest.fixture
def environment(tmp_path):
    pytest.importorskip("pip")
    return Environment(tmp_path / "environment")


OURS = """
import numpy as np, fastnet
from fastnet.kernels import relu
layer = fastnet.ReluLayer()
assert (layer.forward([[-1, 2]]) == [[0, 2]]).all()
misses = sum(sum(d.stats.cache_misses.values()) for d in vars(relu.RELU).values() if hasattr(d, "stats"))
print(fastnet.__file__, relu.__file__, misses, sep="|")
"""
THEIRS = "import kernels, kernels.gemm; assert kernels.WHO == kernels.gemm.WHO == 'stranger'; print(kernels.__file__)"


def assert_ours_is_whole(environment, tmp_path, misses=None):
    package, module, missed = environment.run(OURS, FASTNET_CACHE_DIR=str(tmp_path / "cache")).split("|")
    assert Path(package).parent.parent == Path(module).parent.parent.parent == environment.site
    assert misses is None or (int(missed) > 0) == (misses > 0)


def assert_theirs_is_whole(environment):
    assert Path(environment.run(THEIRS)) == environment.site / "kernels" / "__init__.py"


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_beside_another_package_called_kernels(first, environment, wheel, stranger, tmp_path):
    """Installed in both orders, either uninstalled and installed again: the other one is whole."""
    environment.install(*[[wheel], [stranger]][first == "theirs"])
    environment.install(*[[stranger], [wheel]][first == "theirs"])
    assert_ours_is_whole(environment, tmp_path, misses=1)
    assert_theirs_is_whole(environment)
    environment.uninstall("fastnet-kernels" if first == "ours" else "kernels")
    if first == "ours":
        assert_theirs_is_whole(environment)
        assert not (environment.site / "fastnet").exists()
        environment.install(wheel)
    assert_ours_is_whole(environment, tmp_path, misses=0)  # one miss, then none
    if first == "ours":
        environment.uninstall("kernels")
        assert_ours_is_whole(environment, tmp_path, misses=0)


def test_an_editable_install_beside_it(environment, stranger, tmp_path):
    checkout = sources(tmp_path / "checkout")
    environment.install("-e", checkout)
    environment.install(stranger)
    assert_theirs_is_whole(environment)
    for misses in (True, False):
        package, module, missed = environment.run(OURS, FASTNET_CACHE_DIR=str(tmp_path / "cache")).split("|")
        assert Path(package).parents[1] == Path(module).parents[1] == checkout
        assert (int(missed) > 0) == misses
    same = "import kernels.gemm, fastnet.kernels.gemm; print(kernels.gemm is fastnet.kernels.gemm)"
    assert environment.run(same, cwd=checkout) == "True"  # in the folder itself, kernels is ours
    environment.uninstall("fastnet-kernels")
    assert_theirs_is_whole(environment)


def test_a_stranger_called_fastnet_in_our_place(environment, wheel):
    """Another distribution has that import name: installed later, it overwrites what both have."""
    environment.install(wheel)
    (environment.site / "fastnet" / "__init__.py").write_text("")
    for module in ("full", "cli", "sweep"):
        program = f"from fastnet import {module}; getattr({module}, 'main', lambda arguments: 0)(['doctor'])"
        result = python(environment.python, "-c", program, check=False, cwd=environment.folder)
        message = result.stderr.strip().splitlines()[-1]
        assert message.startswith("ImportError: another package called fastnet, in ") and str(environment.site) in message
        assert message.endswith("Uninstall it and fastnet-kernels, then install fastnet-kernels again.")


def test_no_text_names_an_install_that_fetches_the_stranger():
    texts = [path for path in ROOT.rglob("*") if path.suffix in (".py", ".md", ".toml", ".yml", ".cff", ".ipynb")
             and not set(path.relative_to(ROOT).parts) & {".git", ".venv", ".lint", "build", "dist"}]
    assert len(texts) > 100
    for path in texts:
        found = re.findall(r"pip install[^\n`#]*?[ \t]['\"]?fastnet(?![-\w/.])", path.read_text(encoding="utf-8"))
        assert not found, (path, found)


# --- types ------------------------------------------------------------------------------------------------------------

USER = """
import fastnet
import numpy as np
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential
from fastnet.sweep import lr_sweep

model = Sequential((FullLayer(4, 3), ReluLayer()), loss=CrossEntropyLayer())
losses = model.fit(np.ones((2, 4)), np.ones((2, 3)), epochs=1)
reveal_type(model)
reveal_type(fastnet.FullLayer(4, 3))
reveal_type(losses)
reveal_type(fastnet.get_num_threads())
reveal_type(lr_sweep)
reveal_type(fastnet.sweep.lr_sweep)
FullLayer("four", 3)
fastnet.nonsense
"""


def test_a_users_mypy_sees_the_types(environment, wheel, tmp_path):
    pytest.importorskip("mypy")
    environment.install(wheel)
    (tmp_path / "user.py").write_text(USER)
    result = python(sys.executable, "-m", "mypy", "--python-executable", environment.python, "--cache-dir", tmp_path / "mypy",
                    "--no-incremental", "--strict", "user.py", check=False, cwd=tmp_path)
    revealed = re.findall(r'Revealed type is "(.*)"', result.stdout)
    assert revealed[:2] == ["fastnet.sequential.Sequential", "fastnet.full.FullLayer"], result.stdout
    assert revealed[2].startswith("numpy.ndarray[")
    assert revealed[3] in ("int", "builtins.int")
    assert revealed[4].startswith("def (") and "fastnet.sweep.result.SweepResult" in revealed[4]
    assert revealed[5] == revealed[4]
    errors = re.findall(r"^user.py:(\d+): error: .*\[([\w-]+)\]$", result.stdout, re.MULTILINE)
    last = USER.count("\n")
    assert errors == [(str(last - 1), "arg-type"), (str(last), "attr-defined")], result.stdout


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_the_wheel_has_every_module_and_nothing_else(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {f"fastnet/{path.relative_to(ROOT / 'fastnet').as_posix()}" for path in (ROOT / "fastnet").rglob("*.py")}
    ours |= {f"fastnet/kernels/{path.relative_to(ROOT / 'kernels').as_posix()}" for path in (ROOT / "kernels").rglob("*.py")}
    assert {name for name in packed if name.endswith(".py")} == ours
    assert {"fastnet/py.typed", "fastnet/kernels/README.md"} <= packed
    assert all(name.startswith("fastnet/") for name in packed)


def test_what_an_index_is_told(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name, = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(name).decode()
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    for line in ("Name: fastnet-kernels", "License-Expression: MIT", "Requires-Python: >=3.10", "Classifier: Typing :: Typed",
                 "Description-Content-Type: text/markdown"):
        assert f"\n{line}\n" in metadata
    assert not re.search(r"\]\((?!https?:|#)", metadata.partition("\n\n")[2]), "relative links lead nowhere there"


def setup_script():
    spec = importlib.util.spec_from_file_location("fastnet_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_and_links_of_the_readme_on_an_index_page():
    convert, host = setup_script().readme, "https://example.org/me/it"
    text = "![A picture](docs/img/a.png) [guide](docs/guide.md#part) [here](#part) [Numba](https://numba.pydata.org)"
    assert convert(text, host, "v1.2") == (
        f"![A picture]({host}/raw/v1.2/docs/img/a.png) [guide]({host}/blob/v1.2/docs/guide.md#part) [here](#part) "
        "[Numba](https://numba.pydata.org)")
    assert convert(text, "", "v1.2") == "*A picture* guide [here](#part) [Numba](https://numba.pydata.org)"
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert picture.startswith("http") or (ROOT / picture).is_file(), picture


def test_addresses_come_from_one_place():
    script = setup_script()
    assert script.urls("") == {}
    assert script.urls("https://example.org/me/it")["Issues"] == "https://example.org/me/it/issues"
    import fastnet
    assert script.version() == fastnet.__version__


def test_the_sdist_has_what_its_tests_need(tmp_path):
    copy = sources(tmp_path / "sources")
    with tarfile.open(build(copy, "sdist", tmp_path / "dist")) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    needed = {path.relative_to(ROOT).as_posix() for folder in ("fastnet", "kernels", "tests", "bench", "docs", "examples",
                                                               ".github")
              for path in (ROOT / folder).rglob("*")
              if path.is_file() and not set(path.parts) & {"__pycache__", "results", "_build", "notebooks", ".mypy_cache"}}
    needed |= {path.name for path in ROOT.glob("*") if path.suffix in (".py", ".md", ".toml", ".cff")} | {"LICENSE", "Makefile"}
    assert {name for name in needed if not name.endswith((".pyc", "report.html"))} <= packed


def test_one_version_everywhere():
    import fastnet
    assert f"\nversion: {fastnet.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".github" / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_tag_must_be_that_of_the_version(tmp_path, monkeypatch):
    check = script("release_check")
    (tmp_path / "fastnet").mkdir()
    (tmp_path / "fastnet" / "_version.py").write_text('"""The version."""\n__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.3 (2030-01-01)\n")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    check.check_version(None)
    check.check_version("v1.2.3")
    with pytest.raises(SystemExit, match=r"the tag is v1\.2\.4, and fastnet/_version\.py says 1\.2\.3"):
        check.check_version("v1.2.4")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n")
    with pytest.raises(SystemExit, match="has no entry '## 1\\.2\\.3'"):
        check.check_version("v1.2.3")


def test_a_wheel_that_carries_kernels_is_whole_and_for_this_python_alone(wheel, tmp_path, monkeypatch):
    """With made-up kernels: what compiles them is tried by make release-check."""
    pytest.importorskip("wheel")
    compiled = script("compiled_wheel")
    asked = []

    class Compiler:
        highest, levels, made_for = "high", {"low": None, "high": None}, {"Numba": "1"}

        def __init__(self, pure, work):
            assert pure == wheel

        def kernels(self, level):
            return f"cache of {level}"

        def run(self, program, level=None, given=""):
            asked.append((program, level))
            if program == compiled.PACK:
                source, to = json.loads(given)
                Path(to).write_text(source)
                return f"digest of {source}"
            return "names"

    monkeypatch.setattr(compiled, "Compiler", Compiler)
    made = compiled.make(wheel, tmp_path / "to", tmp_path)
    assert (compiled.CALL_ALL, "high") in asked and {(compiled.COMPILE, "low"), (compiled.COMPILE, "high")} <= set(asked)
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"fastnet_kernels-[\d.]+-{version}-{version}t?-\w+\.whl", made.name)
    with zipfile.ZipFile(made) as archive, zipfile.ZipFile(wheel) as pure:
        new = set(archive.namelist()) - set(pure.namelist())
        assert new == {f"fastnet/kernels/compiled/{name}" for name in ("manifest.json", "low.kernels", "high.kernels")}
        manifest = json.loads(archive.read("fastnet/kernels/compiled/manifest.json"))
        assert manifest == {"made_for": {"Numba": "1"},
                            "levels": {level: f"digest of cache of {level}" for level in ("low", "high")}}
        text, = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        record, = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        assert "Root-Is-Purelib: false" in text and "none-any" not in text
        assert all(f"{name}," in record for name in archive.namelist())


def test_lowest_versions_are_read_from_the_project():
    lowest = script("lowest").lowest
    assert lowest("""
dependencies = [
    "numpy>=1.24",
    "numba>=0.60",
    "numba>=0.61; python_version>='3.13'", # of a newer Python
]
test = ["pytest>=8.1", "dask[distributed]>=2023.1"]
bench = ["torch>=9"]
""") == {"numpy": "1.24", "numba": "0.60", "pytest": "8.1", "dask": "2023.1"}
    found = lowest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"numpy", "numba", "matplotlib", "platformdirs", "pooch", "tqdm", "pytest", "hypothesis"} <= found.keys()


def test_workflows_and_forms_can_be_read():
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml", ROOT / ".readthedocs.yaml"]
    read = {file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    jobs = [job for content in read.values() for job in content.get("jobs", {}).values()]
    assert len(jobs) >= 6 and all(job["steps"] and job["timeout-minutes"] for job in jobs)
    matrix = read["tests.yml"]["jobs"]["tests"]["strategy"]["matrix"]
    classifiers = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert matrix["python"] == classifiers
    assert {"macos-latest", "windows-latest", "ubuntu-24.04-arm"} <= {entry["os"] for entry in matrix["include"]}
    assert "3.14t" in {entry["python"] for entry in matrix["include"]}, "the free-threaded build"


def test_actions_are_pinned_to_a_commit():
    files = [*(ROOT / ".github" / "workflows").glob("*.yml"), ROOT / "fastnet" / "gate" / "action" / "action.yml"]
    used = [use for file in files for use in re.findall(r"uses: (\S+)", file.read_text(encoding="utf-8"))]
    assert len(used) > 10
    for use in used:
        assert use.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", use), use


def test_extras_are_for_users_and_groups_for_developers():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras, groups = (re.search(rf"^\[{name}\].*?(?=^\[(?!\s))", text, re.MULTILINE | re.DOTALL).group()
                      for name in ("project.optional-dependencies", "dependency-groups"))
    assert set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE)) == {"dask", "pandas", "safetensors", "sklearn"}
    assert {"dev", "test", "docs", "bench", "peers", "release"} == set(re.findall(r"^(\w+) = \[", groups, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert makefile.index('"pip>=25.1"') < makefile.index("--group"), "pip reads groups from 25.1 on"
