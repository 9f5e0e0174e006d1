"""Child processes: which of the user's environment variables they see, and how their failures are reported.

The gate runs inside git hooks, tox, conda environments and CI jobs. Each of them sets variables that redirect a tool: git's
tell it which repository and which index to use, pip's where to install, Python's what to import. A child sees none of those.
Variables that configure without redirecting (proxies, certificates, package indexes, thread counts) pass.
"""
from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastnet.gate import GateError

# What `git rev-parse --local-env-vars` lists, and what git's hooks and `git -c` set on top of it.
_GIT = frozenset((
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_OBJECT_DIRECTORY",
    "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR", "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE", "GIT_QUARANTINE_PATH", "GIT_REFLOG_ACTION", "GIT_EDITOR", "GIT_SEQUENCE_EDITOR", "GIT_EXEC_PATH",
    "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_ATTR_SOURCE",
    "GIT_DEFAULT_HASH", "GIT_TEMPLATE_DIR", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"))
_PIP = frozenset(f"PIP_{name}" for name in (
    "TARGET", "PREFIX", "ROOT", "USER", "PYTHON", "REQUIRE_VIRTUALENV", "DRY_RUN", "REPORT", "EDITABLE", "REQUIREMENT",
    "NO_DEPS", "SRC", "IGNORE_INSTALLED", "FORCE_REINSTALL", "DOWNLOAD_ONLY", "PLATFORM", "ONLY_DEPS"))
_UV = frozenset(("UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_PROJECT",
                 "UV_WORKING_DIRECTORY", "UV_REQUIRE_HASHES"))
_OTHERS = frozenset(("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "__PYVENV_LAUNCHER__", "PYTHON_BASIC_REPL"))
_PREFIXES = ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_", "GIT_TRACE", "CONDA_", "PYTHON", "PYTEST_", "COVERAGE_", "COV_", "TOX_",
             "NOX_", "HATCH_", "PDM_", "POETRY_ACTIVE", "PIPENV_", "PRE_COMMIT")
_KEPT = ("PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PDM_BUILD_SCM_VERSION")


def environment(**more: str) -> dict[str, str]:
    """The variables of a child process: the user's, less those that redirect a tool, and `more`."""
    redirect = _GIT | _PIP | _UV | _OTHERS
    passed = {name: value for name, value in os.environ.items()
              if name in _KEPT or (name not in redirect and not name.startswith(_PREFIXES))}
    return passed | more


def run(command: Sequence[str], what: str, *, hint: str = "", cwd: Path | None = None,
        env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed; a failure names the step, its last lines and what to try."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd, stdin=subprocess.DEVNULL,
                              env=environment() if env is None else env)
    except FileNotFoundError as error:
        raise GateError(f"{what} failed: {command[0]} was not found.") from error
    if done.returncode:
        raise GateError(f"{what} failed:\n{tail(done.stdout + done.stderr)}" + (f"\nOptions: {hint}." if hint else ""))
    return done.stdout


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of what a program printed, without pip's warnings and without a traceback of pytest's own."""
    found = [line for line in text.strip().splitlines() if not line.startswith("WARNING: ")]
    of_pytest = [line for line in found if line.startswith("INTERNALERROR>") and line != "INTERNALERROR>"]
    return "\n".join([line for line in found if not line.startswith("INTERNALERROR>") or line in of_pytest[-1:]][-lines:])
