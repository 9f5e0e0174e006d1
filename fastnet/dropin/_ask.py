"""Questions about a participant's file, which a confined process answers by running it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastnet
from fastnet.base import confinement

_ANSWERS = "FASTNET_DROPIN_ANSWERS"  # earlier answers, so that processes that the script starts need not ask again
_PATIENCE = 60.0  # seconds
ROOT = str(Path(fastnet.__file__).resolve().parent.parent)


def ask(what: str, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Return the answer of ``fastnet.dropin._answer`` about a file.

    Parameters
    ----------
    what : {"dataset", "sequential"}
    path : str
        ``dataset.py``, ``sequential.py``, or a single file with all layers.
    *arguments, **options
        The arguments of the call to try.

    Returns
    -------
    dict
        The answer; without one, the key ``failed`` has the reason.
    """
    try:
        question = json.dumps([what, os.path.abspath(path), os.path.getmtime(path), arguments, options])
    except TypeError:  # arguments that are not plain numbers and texts
        return {"failed": "its arguments cannot be passed to another process"}
    known = json.loads(os.environ.get(_ANSWERS, "{}"))
    if question not in known:
        known[question] = _run(question)
        os.environ[_ANSWERS] = json.dumps(known)
    return known[question]


def _run(question: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fastnet-dropin-") as sandbox:
        answer = Path(sandbox) / "answer"
        try:
            subprocess.run(
                [sys.executable, "-m", "fastnet.dropin._answer", question, os.path.realpath(sandbox)], cwd=sandbox,
                env=confinement.environment(ROOT, sandbox), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, timeout=_PATIENCE, check=False)
            return json.loads(answer.read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired:
            return {"failed": f"it does not end within {_PATIENCE:g} s"}
        except (OSError, ValueError, TypeError):  # TypeError: a frozen program, which has no Python interpreter
            return {"failed": "it ends the process"}
