"""The search for a project's benchmarks by the fixture that they use, ``benchmark``, in files of any name and folder.

It reads sources and imports nothing, so that it works before anything is installed.
"""
from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from fastnet.gate import GateError
from fastnet.gate.declared import PACKAGING, pytest_option
from fastnet.gate.repository import git

FIXTURES = frozenset(("benchmark", "benchmark_weave"))
_MARKERS = ("benchmark", "codspeed_benchmark")
_OWN_FOLDER = re.compile(r"bench|perf", re.I)  # names of folders that hold benchmarks and what they need, and nothing else
_TESTS = re.compile(r"^(tests?|testing|bench\w*|perf\w*)$", re.I)
_LOOKS_LIKE = re.compile(r"def +(test|bench)\w*\([^)]*\bbenchmark\b")


@dataclass(frozen=True)
class Found:
    """A project's benchmarks; all paths are relative, with slashes."""

    project: str  # in the repository
    files: tuple[str, ...]  # of benchmarks, in the project
    shared: tuple[str, ...]  # files and folders that both sides get from head: the benchmarks and what they need
    marked: bool  # whether a marker alone makes a benchmark
    others: tuple[str, ...] = ()  # projects inside the project, relative to the checkout, whose benchmarks are left out

    @property
    def folders(self) -> tuple[str, ...]:
        """The benchmarks' folders, in the project."""
        return tuple(sorted({str(PurePosixPath(file).parent) for file in self.files}))


def find(tree: Path, start: str, path: str | None) -> Found:
    """Find the project that `start`, a folder of the checkout `tree`, is part of, and its benchmarks.

    Parameters
    ----------
    path : str, optional
        The benchmarks' folder or file, relative to `start` or to a folder above it: only there they are looked for.
    """
    sources = _Sources(tree)
    levels = [start] + [str(parent) for parent in PurePosixPath(start).parents] if start != "." else ["."]
    for level in levels:
        place = str(PurePosixPath(level) / path) if path else level
        files = sources.benchmarks(place)
        if files:
            project = _project(tree, level, files, whole=path is None)
            files, others = (files, []) if path else _without_projects_inside(tree, project, files)
            inside = [str(PurePosixPath(file).relative_to(project)) for file in files]
            return Found(project, tuple(inside), tuple(sources.shared(project, inside)), sources.marked,
                         tuple(others))
    raise GateError(_nothing_found(tree, start, path))


def _project(tree: Path, level: str, files: Sequence[str], whole: bool) -> str:
    """The closest folder that declares a package, from `level` upwards; without one, `level`, or what is above its tests."""
    above = [PurePosixPath(level), *PurePosixPath(level).parents]
    for folder in above:
        if any((tree / folder / name).exists() for name in PACKAGING):
            return str(folder)
    below = {_declaring(tree, file) for file in files} - {"."}
    if len(below) > 1 and whole:
        names = ", ".join(sorted(below))
        raise GateError(f"There are benchmarks of {len(below)} projects here ({names}): name one, as in fastnet compare "
                        f"BASE --repo {sorted(below)[0]}.")
    if below:
        return below.pop()
    return next((str(folder) for folder in above if not _TESTS.match(folder.name)), ".")


def _without_projects_inside(tree: Path, project: str, files: list[str]) -> tuple[list[str], list[str]]:
    """Leave out the files of projects below `project`, and name those: their packages are not installed with it.

    A folder of tests or benchmarks is part of the project, even if it declares a package.
    """
    def other(file: str) -> str | None:
        folder = PurePosixPath(_declaring(tree, file))
        parts = folder.relative_to(project).parts if folder != PurePosixPath(project) else ()
        return str(folder) if parts and not any(_TESTS.match(part) for part in parts) else None

    kept = [file for file in files if other(file) is None]
    return (kept, sorted({found for found in map(other, files) if found})) if kept else (files, [])


def _declaring(tree: Path, file: str) -> str:
    return next((str(parent) for parent in PurePosixPath(file).parents
                 if any((tree / parent / name).exists() for name in PACKAGING)), ".")


class _Sources:
    """The Python files of a checkout that have to do with benchmarks."""

    def __init__(self, tree: Path):
        self.tree = tree
        self.marked = bool(self._holding(["codspeed"], "*.py", "*.toml", "*.cfg", "*.txt", "*.yml", "*.yaml"))
        self.files = self._holding([*FIXTURES, *_MARKERS], "*.py")
        fixtures = set(FIXTURES)
        while True:  # a fixture that uses a fixture
            more = {name for file in self.files for name in self._fixtures(file, fixtures)} - fixtures
            if not more:
                break
            fixtures |= more
            self.files = sorted({*self.files, *self._holding(sorted(more), "*.py")})
        self.fixtures = fixtures

    def _holding(self, words: Iterable[str], *patterns: str) -> list[str]:
        options = [option for word in words for option in ("-e", word)]
        try:
            return sorted(filter(None, git(self.tree, "grep", "--cached", "-l", "-z", "-w", "-F", *options, "--",
                                           *(f":(glob)**/{pattern}" for pattern in patterns)).split("\0")))
        except GateError:  # git grep fails where it finds nothing
            return []

    def _parse(self, file: str) -> ast.Module | None:
        try:
            return ast.parse((self.tree / file).read_bytes())
        except (SyntaxError, ValueError, OSError, RecursionError):
            return None

    def _fixtures(self, file: str, known: set[str]) -> set[str]:
        module = self._parse(file)
        nodes = functions(module) if module else []
        return {node.name for node in nodes if _is_fixture(node) and known & set(arguments(node))}

    def benchmarks(self, place: str) -> list[str]:
        """The files of benchmarks in a folder, or `place` itself, as paths in the checkout."""
        below = [file for file in self.files if place == "." or file == place or file.startswith(f"{place}/")]
        return [file for file in below if self._has_benchmarks(file)]

    def _has_benchmarks(self, file: str) -> bool:
        module = self._parse(file)
        if module is None:  # what cannot be parsed is to be reported, not overlooked
            return bool(_LOOKS_LIKE.search((self.tree / file).read_text(encoding="utf-8", errors="replace")))
        project = self.tree / _declaring(self.tree, file)
        all_marked = self.marked and _is_module_marked(module)
        patterns = ["test*", "bench_*", *(pytest_option(project, "python_functions") or "").split()]
        marked = [node for node in ast.walk(module) if self.marked and isinstance(node, ast.ClassDef)
                  and (_is_marked(node) or _is_module_marked(node))]
        in_marked = {node for one in marked for node in functions(one)}
        everywhere = any(_is_autouse(node) and self.fixtures & set(arguments(node)) for node in functions(module))
        for node in functions(module):
            named = any(fnmatch(node.name, pattern if "*" in pattern else f"{pattern}*") for pattern in patterns)
            uses = (bool(self.fixtures & set(arguments(node))) or (self.marked and _is_marked(node)) or all_marked
                    or node in in_marked or everywhere)
            if named and uses and not _is_fixture(node):
                return True
        return False

    def shared(self, project: str, files: Sequence[str]) -> list[str]:
        """Return the benchmarks' folders and, for files elsewhere, the files, modules next to them and their conftest.py."""
        root, found = self.tree / project, set()
        for file in files:
            parts = PurePosixPath(file).parts[:-1]
            own = next((number for number, part in enumerate(parts, start=1) if _OWN_FOLDER.search(part)), None)
            if own and not self._is_package_of_project(root, parts[:own]):
                found.add("/".join(parts[:own]))
                continue
            waiting = [file]
            while waiting:
                one = waiting.pop()
                if one not in found:
                    found.add(one)
                    waiting += self._beside(root, one)
            found |= {str(PurePosixPath(*parts[:number], "conftest.py")) for number in range(len(parts) + 1)
                      if (root.joinpath(*parts[:number]) / "conftest.py").exists()}
        return sorted(found)

    @staticmethod
    def _is_package_of_project(root: Path, parts: Sequence[str]) -> bool:
        """Whether a folder is part of the code under test: in a package whose top folder holds no tests."""
        top = root.joinpath(*parts[:1])
        return len(parts) > 1 and (top / "__init__.py").exists() and not _TESTS.match(parts[0])

    def _beside(self, root: Path, file: str) -> list[str]:
        """The modules in the folder of a file that it imports."""
        module = self._parse(str((root / file).relative_to(self.tree)))
        folder = PurePosixPath(file).parent
        if str(folder) == "." or ((root / folder / "__init__.py").exists() and not _TESTS.match(folder.name)):
            return []
        near = [str(folder / f"{name}.py") for name in imports(module)] if module else []
        return [one for one in near if (root / one).is_file()]


def functions(module: ast.Module | ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a module and of its classes, or of a class."""
    found: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    bodies: list[list[ast.stmt]] = [module.body]
    while bodies:
        for node in bodies.pop():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(node)
            elif isinstance(node, ast.ClassDef):
                bodies.append(node.body)
            elif isinstance(node, ast.If):
                bodies += [node.body, node.orelse]
            elif isinstance(node, ast.Try):
                bodies += [node.body, node.orelse, *(handler.body for handler in node.handlers)]
    return found


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of a function's arguments, and of the fixtures that it is marked to use."""
    found = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    for decorator in node.decorator_list:
        if _called(decorator) == "usefixtures" and isinstance(decorator, ast.Call):
            found += [one.value for one in decorator.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return found


def imports(module: ast.Module) -> set[str]:
    """The names of modules that a module imports, the last part of relative ones and the first of others."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").rpartition(".")[2], (node.module or "").partition(".")[0]}
            if node.level or node.module:
                found |= {alias.name for alias in node.names}
    return found - {""}


def _called(decorator: ast.expr) -> str:
    """The last part of a decorator's name."""
    place = decorator.func if isinstance(decorator, ast.Call) else decorator
    return place.attr if isinstance(place, ast.Attribute) else place.id if isinstance(place, ast.Name) else ""


def _is_fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = [_called(decorator) for decorator in node.decorator_list]  # not their arguments, which may hold the word
    return any("fixture" in name and name != "usefixtures" for name in names)


def _is_autouse(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is a fixture that every test next to it uses."""
    return _is_fixture(node) and any("autouse" in ast.dump(decorator) for decorator in node.decorator_list)


def _is_marked(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    names = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    return any(isinstance(one, ast.Attribute) and one.attr in _MARKERS for one in names)


def _is_module_marked(module: ast.Module | ast.ClassDef) -> bool:
    """Whether a module, or a class, has ``pytestmark = pytest.mark.benchmark``, alone or in a list."""
    assigned = [node.value for node in module.body if isinstance(node, ast.Assign)
                and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)]
    return any(isinstance(one, ast.Attribute) and one.attr in _MARKERS for value in assigned for one in ast.walk(value))


def _nothing_found(tree: Path, start: str, path: str | None) -> str:
    if path:
        there = [level for level in [start, *map(str, PurePosixPath(start).parents)] if (tree / level / path).exists()]
        if not there:
            return (f"{path!r} is no folder or file of the revision under test. Name the benchmarks' with --path, or leave "
                    "it out.")
        return f"{path!r} holds no benchmark: no test there uses the fixture `benchmark` of pytest-benchmark."
    if any(tree.glob("**/asv.conf.json")) or any(tree.glob("**/asv.conf.jsonc")):
        return ("The benchmarks here are asv's, which fastnet compare does not run: asv continuous --interleave-rounds BASE "
                "HEAD does. fastnet compare BASE --import times importing the package.")
    return ("No test here uses the fixture `benchmark` of pytest-benchmark. Write one, as in https://"
            "pytest-benchmark.readthedocs.io, or have importing the package timed: fastnet compare BASE --import")
