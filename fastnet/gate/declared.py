"""What a project declares: its requirements, and the names of those that its benchmarks need; its options of pytest."""
from __future__ import annotations

import configparser
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnet.gate import GateError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

PACKAGING = ("pyproject.toml", "setup.py", "setup.cfg")
# Which extras, groups and requirement files are for benchmarks, by their names. The tiers are tried one after the other,
# each on top of those before it, until the benchmarks can be imported.
# Words count that begin so, or are so as a whole: litestar, latest, speedups and perfect hold such a word by chance.
TIERS = (re.compile(r"bench|codspeed|(?<![a-z])(perf|performance|speed)(?![a-z])", re.I),
         re.compile(r"(?<![a-z])(py|unit|doc)?test|(?<![a-z])ci(?![a-z])", re.I),
         re.compile(r"^(all[-_]?)?dev(el|elop|elopment)?$", re.I),
         re.compile(r"^(all|full|complete|extras?|optional)$", re.I))
_FOLDERS = (".", "requirements")


@dataclass(frozen=True)
class Step:
    """One installation: what it is for, the installer's arguments, and what to try if it fails."""

    what: str
    arguments: tuple[str, ...]
    hint: str


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None leaves the choice to the names of what is declared."""

    extras: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    requirements: tuple[str, ...] | None = None
    packages: tuple[str, ...] = ()  # on top of all that
    install: bool = True

    @property
    def given(self) -> bool:
        return not (self.extras is None and self.groups is None and self.requirements is None)


RUNNER = Step("installing pytest-benchmark", ("pytest", "pytest-benchmark"),
              "--env inherit takes the packages that you have")


def tiers(project: Path, folders: tuple[str, ...]) -> list[list[str]]:
    """The names, tier by tier, that may hold what benchmarks need; tiers without any are left out."""
    found = []
    for pattern in TIERS:
        names = [f"[{extra}]" for extra in extras(project) if pattern.search(extra)]
        names += [f"group {group}" for group in groups(project) if pattern.search(group)]
        names += [file for file in _requirement_files(project, folders) if pattern.search(Path(file).stem.replace(
            "requirements", "")) or any(pattern.search(part) for part in Path(file).parts[:-1] if part in folders)]
        if names:
            found.append(names)
    return found


def steps(project: Path, folders: tuple[str, ...], wanted: Wanted, tier: int = 0, head: Path | None = None) -> list[Step]:
    """Return the installations that set up this project, each run in the project's folder.

    Requirement files come first and one by one, since a file with hashes must be alone in its call.

    Parameters
    ----------
    folders : tuple of str
        The folders of the benchmarks, whose requirement files are installed, too.
    tier : int
        The number of tiers to install after the first.
    head : Path, optional
        The project at head, whose benchmarks will run. Requirements of theirs that this revision does not declare are
        installed as head declares them.
    """
    head = head or project
    chosen = [] if wanted.given else [name for names in tiers(head, folders)[:tier + 1] for name in names]
    found = []
    for file in wanted.requirements if wanted.requirements is not None else _files(head, folders, chosen):
        place = file if (project / file).exists() or not (head / file).exists() else str(head / file)
        found.append(Step(f"installing {file}", ("-r", place), "-r FILE names other requirement files"))
    for group in wanted.groups if wanted.groups is not None else [name[6:] for name in chosen if name.startswith("group ")]:
        declared = [groups(place, strict=True) for place in (project, head)]
        requirements = next((one[_normal(group)] for one in declared if _normal(group) in one), None)
        if requirements is None:
            raise GateError(f"The dependency group {group!r} is not declared; expected one of "
                            f"{', '.join(declared[1]) or 'none'}: --group NAME names another one.")
        if requirements:
            found.append(Step(f"installing the dependency group {group}", tuple(requirements),
                              "--group NAME names other groups, and -r FILE a requirement file instead"))
    names = wanted.extras if wanted.extras is not None else [name[1:-1] for name in chosen if name.startswith("[")]
    own = [name for name in names if name in extras(project) or name not in extras(head)]
    if wanted.install and is_package(project):
        target = f".[{','.join(own)}]" if own else "."
        found.append(Step(f"installing the project with pip install -e {target}", ("-e", target),
                          "--extra NAME names other extras, --no-install leaves the project where it is and imports it "
                          "from its folder or src/, and --setup COMMAND builds it in your own way"))
    table = _read_toml(head / "pyproject.toml").get("project", {}).get("optional-dependencies", {})
    for name in names:
        if name not in own and not any("@" in one or one.startswith("-") for one in table.get(name, ())) and table.get(name):
            found.append(Step(f"installing head's extra {name}", tuple(table[name]), "--extra NAME names other extras"))
    if wanted.packages:
        found.append(Step(f"installing {', '.join(wanted.packages)}", wanted.packages, "--with PACKAGE names others"))
    return [*found, RUNNER]


def _files(head: Path, folders: tuple[str, ...], chosen: list[str]) -> list[str]:
    """The requirement files to install: the plain ones, and those of the chosen names."""
    plain = ["requirements.txt", *(f"{folder}/requirements.txt" for folder in folders if folder != ".")]
    return list(dict.fromkeys(file for file in [*plain, *chosen] if file.endswith(".txt") and (head / file).exists()))


def is_package(project: Path) -> bool:
    pyproject = _read_toml(project / "pyproject.toml")
    return "project" in pyproject or "build-system" in pyproject or (project / "setup.py").exists()


def check_python(project: Path, who: str) -> None:
    """Raise if the project declares that it needs another Python: pip reports it only after it has installed all else."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # comes with Matplotlib and pytest

    config, script = _read_ini(project / "setup.cfg"), project / "setup.py"
    written = re.search(r"""\bpython_requires\s*=\s*["']([^"']+)["']""",
                        script.read_text(encoding="utf-8", errors="replace") if script.exists() else "")
    needed = (_read_toml(project / "pyproject.toml", lenient=True).get("project", {}).get("requires-python")
              or config.get("options", "python_requires", fallback=None) or (written[1] if written else None))
    here = platform.python_version()
    try:
        fits = not needed or SpecifierSet(str(needed)).contains(here, prereleases=True)
    except InvalidSpecifier:
        return  # pip will say what it thinks of it
    if not fits:
        raise GateError(f"{who} needs Python {needed}, and this is Python {here}. Install fastnet for a Python that fits, "
                        "and run fastnet compare there.")


def extras(project: Path) -> list[str]:
    """Return the names of the extras that the project declares in any file."""
    pyproject = _read_toml(project / "pyproject.toml")
    found = list(pyproject.get("project", {}).get("optional-dependencies", {}))
    dynamic = pyproject.get("tool", {}).get("setuptools", {}).get("dynamic", {}).get("optional-dependencies", {})
    found += [*dynamic, *pyproject.get("tool", {}).get("poetry", {}).get("extras", {})]
    config = _read_ini(project / "setup.cfg")
    found += list(config["options.extras_require"]) if config.has_section("options.extras_require") else []
    script = project / "setup.py"
    if script.exists():  # read the names in it without running it
        text = script.read_text(encoding="utf-8", errors="replace")
        table = re.search(r"extras_require\s*=\s*(?:dict\()?\{?(.*?)[})]\s*,?\s*\n", text, re.S)
        found += re.findall(r"""["']([\w-]+)["']\s*:\s*\[""", table[1]) if table else []
    return list(dict.fromkeys(found))


def groups(project: Path, strict: bool = False) -> dict[str, list[str]]:
    """Requirements by the name of their group: of :pep:`735`, and of tools that had groups before it."""
    pyproject = _read_toml(project / "pyproject.toml")
    table = pyproject.get("dependency-groups", {})
    found: dict[str, list[str]] = {}
    for name in table:
        try:
            found[_normal(name)] = _expand(table, name, ())
        except GateError:
            if strict:
                raise
            found[_normal(name)] = []
    tool = pyproject.get("tool", {})
    if isinstance(tool.get("uv", {}).get("dev-dependencies"), list):
        found.setdefault("dev", tool["uv"]["dev-dependencies"])
    for name, requirements in tool.get("pdm", {}).get("dev-dependencies", {}).items():
        found.setdefault(_normal(name), [one for one in requirements if not one.startswith("-e")])
    for name, environment in tool.get("hatch", {}).get("envs", {}).items():
        given = [*environment.get("dependencies", ()), *environment.get("extra-dependencies", ())]
        if given and not any("{" in one for one in given):
            found.setdefault(_normal(name), given)
    poetry = tool.get("poetry", {})
    older = {"dev": {"dependencies": poetry["dev-dependencies"]}} if "dev-dependencies" in poetry else {}
    for name, group in {**older, **poetry.get("group", {})}.items():  # its version ranges are its own: any version will do
        found.setdefault(_normal(name), [one for one in group.get("dependencies", {}) if one != "python"])
    return found


def _expand(table: dict[str, Any], group: str, path: tuple[str, ...]) -> list[str]:
    """The requirements of a dependency group with those that it includes."""
    names = {_normal(name): entries for name, entries in table.items()}
    if _normal(group) not in names or _normal(group) in path:
        why = "includes itself" if _normal(group) in path else f"is not declared; expected one of {', '.join(names)}"
        raise GateError(f"The dependency group {group!r} {why}: --group NAME names another one.")
    found: list[str] = []
    for entry in names[_normal(group)]:
        found += [entry] if isinstance(entry, str) else _expand(table, entry["include-group"], (*path, _normal(group)))
    return found


def _requirement_files(project: Path, folders: tuple[str, ...]) -> list[str]:
    """Return the requirement files in the project's top folder, in ``requirements/`` and in the benchmarks' folders."""
    found = []
    for folder in dict.fromkeys((*_FOLDERS, *folders)):
        for file in sorted((project / folder).glob("*.txt")) if (project / folder).is_dir() else []:
            if "requirements" in file.name or folder == "requirements":
                found.append(file.relative_to(project).as_posix())
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- pytest's options -----------------------------------------------------------------------------------------------


def pytest_option(project: Path, name: str) -> str | None:
    """An option of the project's configuration of pytest, or of its ``addopts``; None if it has none."""
    for file, section in (("pytest.toml", "pytest"), (".pytest.toml", "pytest"), ("pytest.ini", "pytest"),
                          (".pytest.ini", "pytest"), ("pyproject.toml", "tool"), ("tox.ini", "pytest"),
                          ("setup.cfg", "tool:pytest")):
        if file.endswith(".toml"):
            table = _read_toml(project / file, lenient=True).get(section, {})
            options = table if section == "pytest" else table.get("pytest", {})
            options = options.get("ini_options") or options  # since pytest 9, its options may also be in the table itself
        else:
            config = _read_ini(project / file)
            options = dict(config[section]) if config.has_section(section) else {}
        if options or (file.lstrip(".").startswith("pytest.") and (project / file).exists()):
            value, given = options.get(name), options.get("addopts", "")
            given = " ".join(given) if isinstance(given, list) else str(given)
            flag = re.search(rf"--{re.escape(name)}[= ](\S+)", given)
            return " ".join(value) if isinstance(value, list) else value if value else flag[1] if flag else None
    return None


def _read_ini(file: Path) -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    if file.exists():
        try:
            config.read_string(file.read_text(encoding="utf-8", errors="replace"))
        except configparser.Error:
            return configparser.ConfigParser()
    return config


def _read_toml(file: Path, lenient: bool = False) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        if lenient:
            return {}
        raise GateError(f"{file} cannot be read as TOML: {error}") from error


def project_name(project: Path) -> str | None:
    """The name under which the project is published."""
    pyproject = _read_toml(project / "pyproject.toml", lenient=True)
    config = _read_ini(project / "setup.cfg")
    script = project / "setup.py"
    text = script.read_text(encoding="utf-8", errors="replace") if script.exists() else ""
    written = re.search(r"""\bname\s*=\s*["']([\w.-]+)["']""", text)
    return (pyproject.get("project", {}).get("name") or pyproject.get("tool", {}).get("poetry", {}).get("name")
            or (config["metadata"].get("name") if config.has_section("metadata") else None)
            or (written[1] if written else None))
