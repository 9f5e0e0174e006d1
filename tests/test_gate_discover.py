"""Benchmarks are found by what they use: the layouts of public projects, made here, and what each declares."""
import subprocess
from pathlib import Path

import pytest

from fastnet.gate import GateError, imports
from fastnet.gate.declared import Wanted, extras, groups, project_name, pytest_option, steps, tiers
from fastnet.gate.discover import find

TEST = "def test_a(benchmark):\n    benchmark(len, 'a')\n"
PLAIN = "def test_a():\n    pass\n"


@pytest.fixture
def make(tmp_path):
    """Returns a function that makes a repository of these files, all of them tracked."""
    def make_repository(files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
        subprocess.run(["git", "add", "--all"], cwd=tmp_path, check=True)
        return tmp_path
    return make_repository


LAYOUTS = {
    # name: (files, where one stands, project, files of benchmarks, what both sides share)
    "pluggy": ({"pyproject.toml": "[project]\nname = 'pluggy'\n", "src/pluggy/__init__.py": "", "testing/benchmark.py": TEST,
                "testing/conftest.py": "", "testing/test_hooks.py": PLAIN},
               ".", ".", ["testing/benchmark.py"], ["testing/benchmark.py", "testing/conftest.py"]),
    "bidict": ({"pyproject.toml": "", "bidict/__init__.py": "", "microbenchmarks.py": TEST, "tests/test_b.py": PLAIN},
               "tests", ".", ["microbenchmarks.py"], ["microbenchmarks.py"]),
    "dacite": ({"setup.py": "", "dacite/__init__.py": "", "tests/performance/test_from_dict.py": TEST, "tests/performance/__init__.py": "",
                "tests/core/test_core.py": PLAIN},
               ".", ".", ["tests/performance/test_from_dict.py"], ["tests/performance"]),
    "construct": ({"setup.py": "", "construct/__init__.py": "", "tests/__init__.py": "", "tests/declarative.py": "",
                   "tests/test_benchmarks.py": "from tests.declarative import *\n" + TEST, "tests/test_core.py": PLAIN},
                  ".", ".", ["tests/test_benchmarks.py"], ["tests/declarative.py", "tests/test_benchmarks.py"]),
    "base58": ({"setup.py": "", "base58/__init__.py": "", "test_base58.py": PLAIN + TEST.replace("test_a", "test_b")},
               ".", ".", ["test_base58.py"], ["test_base58.py"]),
    "markdown-it-py": ({"pyproject.toml": "", "markdown_it/__init__.py": "", "benchmarking/bench_core.py": TEST,
                        "benchmarking/samples/spec.md": "x"},
                       ".", ".", ["benchmarking/bench_core.py"], ["benchmarking"]),
    "attrs, with codspeed's marker": ({"pyproject.toml": "", "src/attr/__init__.py": "", "tox.ini": "pytest-codspeed\n",
                                       "requirements.txt": "pytest-codspeed\n",
                                       "bench/test_benchmarks.py": "import pytest\npytestmark = pytest.mark.benchmark()\n" + PLAIN},
                                      ".", ".", ["bench/test_benchmarks.py"], ["bench"]),
    "a marker on a function": ({"pyproject.toml": "# codspeed\n", "test_x.py": "import pytest\n@pytest.mark.benchmark\n" + PLAIN,
                                "test_y.py": PLAIN},
                               ".", ".", ["test_x.py"], ["test_x.py"]),
    "a fixture that uses the fixture": ({"pyproject.toml": "", "tests/conftest.py": "import pytest\n@pytest.fixture\ndef bench(benchmark): ...\n",
                                         "tests/unit/test_x.py": "class TestX:\n    def test_a(self, bench): ...\n"},
                                        ".", ".", ["tests/unit/test_x.py"], ["tests/conftest.py", "tests/unit/test_x.py"]),
    "a marker on a class, and in one": ({"pyproject.toml": "# codspeed\n",
                                         "test_x.py": "import pytest\n@pytest.mark.benchmark\nclass TestX:\n    def test_a(self): ...\n",
                                         "test_y.py": "import pytest\nclass TestY:\n    pytestmark = pytest.mark.benchmark\n    def test_a(self): ...\n",
                                         "test_z.py": "class TestZ:\n    def test_a(self): ...\n"},
                                        ".", ".", ["test_x.py", "test_y.py"], ["test_x.py", "test_y.py"]),
    "a parameter that names a fixture": ({"pyproject.toml": "", "test_x.py": "import pytest\n@pytest.mark.parametrize('fixture_name', ['a'])\n"
                                          "def test_a(benchmark, fixture_name): ...\n", "test_y.py": PLAIN},
                                         ".", ".", ["test_x.py"], ["test_x.py"]),
    "a fixture that all tests use": ({"pyproject.toml": "", "test_x.py": "import pytest\nclass TestX:\n    @pytest.fixture(autouse=True)\n"
                                      "    def prepare(self, benchmark): self.benchmark = benchmark\n    def test_a(self): ...\n", "test_y.py": PLAIN},
                                     ".", ".", ["test_x.py"], ["test_x.py"]),
    "its own python_functions": ({"pyproject.toml": "[tool.pytest.ini_options]\npython_functions = ['speed_*']\npython_files = ['s_*.py']\n",
                                  "s_a.py": TEST.replace("test_a", "speed_a")},
                                 ".", ".", ["s_a.py"], ["s_a.py"]),
    "a monorepo": ({"packages/one/pyproject.toml": "", "packages/one/bench/bench_a.py": TEST, "packages/two/pyproject.toml": "",
                    "packages/two/tests/test_b.py": TEST},
                   "packages/one/src/deep", "packages/one", ["bench/bench_a.py"], ["bench"]),
    "no packaging": ({"bench/bench_a.py": TEST, "me.py": ""}, "bench", ".", ["bench/bench_a.py"], ["bench"]),
    "a syntax error": ({"setup.py": "", "bench/bench_a.py": "def test_a(benchmark):\n    (\n"},
                       ".", ".", ["bench/bench_a.py"], ["bench"]),
    "part of the package": ({"pyproject.toml": "", "pkg/__init__.py": "", "pkg/benchmarks/__init__.py": "", "pkg/benchmarks/test_a.py": TEST},
                            ".", ".", ["pkg/benchmarks/test_a.py"], ["pkg/benchmarks/test_a.py"]),
    "an asv suite as well": ({"pyproject.toml": "", "asv.conf.json": "{}", "benchmarks/time_it.py": "def time_x(): ...\n", "tests/test_a.py": TEST},
                             ".", ".", ["tests/test_a.py"], ["tests/test_a.py"]),
}


PROJECTS_INSIDE = {"pyproject.toml": "", "tests/bench/pyproject.toml": "", "tests/bench/test_a.py": TEST, "core/pyproject.toml": "",
                   "core/tests/test_b.py": TEST, "packages/two/setup.py": "", "packages/two/test_c.py": TEST}


def test_projects_inside_a_project_are_left_out_and_named(make):
    top = make(PROJECTS_INSIDE)
    found = find(top, ".", None)
    assert (found.project, found.files, found.others) == (".", ("tests/bench/test_a.py",), ("core", "packages/two"))
    assert find(top, "core", None).files == find(top, "core/tests", None).files == ("tests/test_b.py",)
    assert find(top, ".", "core/tests").others == ()
    (top / "tests/bench/test_a.py").write_text("")
    assert find(top, ".", None).files == ("core/tests/test_b.py", "packages/two/test_c.py")  # as there are no others


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(make, name):
    files, start, project, found, shared = LAYOUTS[name]
    result = find(make(files), start, None)
    assert (result.project, list(result.files), list(result.shared)) == (project, found, shared)


def test_a_path_may_be_a_folder_or_a_file(make):
    top = make({"pyproject.toml": "", "bench/a.py": TEST, "tests/test_b.py": TEST, "tests/test_c.py": TEST, "docs/x.py": PLAIN})
    assert find(top, ".", "tests").files == ("tests/test_b.py", "tests/test_c.py")
    assert find(top, "docs", "tests/test_c.py").files == ("tests/test_c.py",)
    for path, why in (("docs", "holds no benchmark"), ("none", "is no folder or file")):
        with pytest.raises(GateError, match=why):
            find(top, ".", path)


@pytest.mark.parametrize(("files", "message"), [
    ({"x.py": PLAIN}, "No test here uses the fixture .* --import"),
    ({"asv.conf.json": "{}", "benchmarks/b.py": "def time_x(): ...\n"}, "asv's, .* --interleave-rounds"),
    ({"a/setup.py": "", "a/test_a.py": TEST, "b/setup.py": "", "b/test_b.py": TEST}, r"2 projects here \(a, b\): .* --repo a"),
])
def test_what_is_missing_is_named(make, files, message):
    with pytest.raises(GateError, match=message):
        find(make(files), ".", None)


# --- what a project declares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("files", "expected"), [
    ({"pyproject.toml": "[project.optional-dependencies]\nbenchmarking = ['a']\ntesting = ['b']\ndocs = ['c']\n"}, [["[benchmarking]"], ["[testing]"]]),
    ({"pyproject.toml": "[dependency-groups]\nbench = ['a']\ntest = ['b']\ndev = ['c']\nlint = ['d']\n"}, [["group bench"], ["group test"], ["group dev"]]),
    ({"setup.py": "setup(\n  extras_require={'dev': ['a'], 'docs': ['b']},\n)\n"}, [["[dev]"]]),
    ({"setup.cfg": "[options.extras_require]\ntests =\n  pytest\n"}, [["[tests]"]]),
    ({"pyproject.toml": "[tool.poetry.group.test.dependencies]\npytest = '^7'\n[tool.poetry.dev-dependencies]\nblack = '*'\n"}, [["group test"], ["group dev"]]),
    ({"pyproject.toml": "[tool.hatch.envs.test]\ndependencies = ['pytest']\n"}, [["group test"]]),
    ({"pyproject.toml": "[tool.uv]\ndev-dependencies = ['a']\n[tool.pdm.dev-dependencies]\nbench = ['b']\n"}, [["group bench"], ["group dev"]]),
    ({"requirements/bench.txt": "a", "requirements/docs.txt": "b", "requirements-test.txt": "c"}, [["requirements/bench.txt"], ["requirements-test.txt"]]),
    ({"pyproject.toml": "[project]\nname = 'a'\n"}, []),
    ({"pyproject.toml": "[project.optional-dependencies]\nlitestar = ['a']\nspeedups = ['b']\nlatest = ['c']\nunittests = ['d']\ncontest = ['e']\nfastest = ['f']\nperfect = ['g']\n"},
     [["[unittests]"]]),
])
def test_what_benchmarks_need_is_told_by_names(make, files, expected):
    assert tiers(make(files), (".",)) == expected


def test_what_only_head_declares_is_installed_on_base_as_well(make, tmp_path):
    base, head = tmp_path / "base", tmp_path / "head"
    make({"base/pyproject.toml": "[project]\nname = 'me'\n", "head/requirements.txt": "numpy\n",
          "head/pyproject.toml": "[project]\nname = 'me'\n[project.optional-dependencies]\nbench = ['a']\n[dependency-groups]\nbench = ['b']\n"})
    assert [step.arguments for step in steps(base, (".",), Wanted(), head=head)][:-1] == [
        ("-r", str(head / "requirements.txt")), ("b",), ("-e", "."), ("a",)]
    assert [step.arguments for step in steps(head, (".",), Wanted(), head=head)][:-1] == [
        ("-r", "requirements.txt"), ("b",), ("-e", ".[bench]")]


def test_what_the_user_names_is_installed_and_nothing_else(make):
    top = make({"pyproject.toml": "[project]\nname = 'me'\n[project.optional-dependencies]\nbench = ['a']\ntest = ['b']\n"})
    chosen = steps(top, (".",), Wanted(extras=("test",), packages=("numpy",)))
    assert [step.arguments for step in chosen] == [("-e", ".[test]"), ("numpy",), ("pytest", "pytest-benchmark")]
    with pytest.raises(GateError, match="'none' is not declared"):
        steps(top, (".",), Wanted(groups=("none",)))
    assert extras(top) == ["bench", "test"] and groups(top) == {} and project_name(top) == "me"


@pytest.mark.parametrize(("file", "text"), [
    ("pytest.ini", "[pytest]\naddopts = -q --import-mode=importlib\npython_functions = a_* b_*\n"),
    ("pyproject.toml", "[tool.pytest.ini_options]\naddopts = ['-q', '--import-mode=importlib']\npython_functions = ['a_*', 'b_*']\n"),
    ("pyproject.toml", "[tool.pytest]\naddopts = ['-q', '--import-mode=importlib']\npython_functions = ['a_*', 'b_*']\n"),
    ("pytest.toml", "[pytest]\naddopts = ['-q', '--import-mode=importlib']\npython_functions = ['a_*', 'b_*']\n"),
    (".pytest.toml", "[pytest]\naddopts = ['-q', '--import-mode=importlib']\npython_functions = ['a_*', 'b_*']\n"),
    ("tox.ini", "[pytest]\naddopts = --import-mode importlib\npython_functions = a_* b_*\n"),
    ("setup.cfg", "[tool:pytest]\naddopts = --import-mode=importlib\npython_functions = a_* b_*\n"),
])
def test_options_of_pytest(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert pytest_option(tmp_path, "import-mode") == "importlib" and pytest_option(tmp_path, "python_functions") == "a_* b_*"
    assert pytest_option(tmp_path, "minversion") is None


# --- importing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("files", "package"), [
    ({"pyproject.toml": "[project]\nname = 'my-pkg'\n", "src/my_pkg/__init__.py": "", "src/other/__init__.py": ""}, "my_pkg"),
    ({"setup.py": "setup(name='x')", "only/__init__.py": "", "tests/__init__.py": "", "conftest.py": ""}, "only"),
    ({"setup.cfg": "[metadata]\nname = single\n", "single.py": "", "setup.py": ""}, "single"),
])
def test_the_package_to_import_is_found(make, files, package):
    found, source = imports.find_package(make(files), ".", "")
    assert f"import {package};" in source and found.files == (imports.FILE,)
    compile(source, "x", "exec")


def test_which_package_must_be_said_where_there_are_several(make):
    top = make({"setup.py": "", "a/__init__.py": "", "b/__init__.py": ""})
    with pytest.raises(GateError, match="There are a, b: --package NAME"):
        imports.find_package(top, ".", "")
    assert "import b;" in imports.find_package(top, ".", "b")[1]
    assert Path(imports.FILE).suffix == ".py"
