"""Ask what a participant's own file does: it is run in a confined process, and its answers are looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastnet
from fastnet.dropin import _guard

_ANSWERS = "FASTNET_DROPIN_ANSWERS"  # what has been asked already: processes that the script starts need not ask again
_PATIENCE = 60.0  # seconds
ROOT = str(Path(fastnet.__file__).resolve().parent.parent)


def ask(what: str, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """The answer of ``fastnet.dropin._answer`` about a file.

    Parameters
    ----------
    what : {"dataset", "sequential"}
    path : str
        ``dataset.py``, ``sequential.py``, or a single file of all layers.
    *arguments, **options
        Of the call that is tried.

    Returns
    -------
    dict
        With the key ``failed`` and a reason if there is no answer.
    """
    try:
        question = json.dumps([what, os.path.abspath(path), os.path.getmtime(path), arguments, options])
    except TypeError:  # arguments that are not plain numbers and texts
        return {"failed": "it is called with arguments that cannot be passed on"}
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
                env=_guard.environment(ROOT, sandbox), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, timeout=_PATIENCE, check=False)
            return json.loads(answer.read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired:
            return {"failed": f"it gives no answer within {_PATIENCE:g} s"}
        except (OSError, ValueError, TypeError):  # the last: a program without an interpreter of its own
            return {"failed": "it ends the process"}
