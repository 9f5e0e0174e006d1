"""Run a participant's code so that it leaves nothing behind: what it writes goes to a folder that is thrown away.

This is no jail for hostile programs. It keeps ordinary ones from writing beside the participant's files, from starting
programs and from reaching the network.
"""

from __future__ import annotations

import builtins
import io
import os
import pickle
import sys
import time
import types
from typing import Any

_CHANGES = {"os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1, "os.link": 2,
            "os.symlink": 2, "shutil.rmtree": 1, "shutil.move": 2}  # events, and how many of their arguments are paths
_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def confine(sandbox: str, beside: str) -> None:
    """Confine this process from now on.

    Parameters
    ----------
    sandbox : str
        The folder that may be written; it becomes the current one.
    beside : str
        Where files are looked for that are not in the sandbox: the folder in which the participant's scripts run.
    """
    sandbox = os.path.realpath(sandbox)
    os.makedirs(os.path.join(sandbox, "course"), exist_ok=True)
    os.chdir(os.path.join(sandbox, "course"))
    elsewhere: dict[str, str] = {}
    plain_open = io.open

    def inside(path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return True  # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or os.path.commonpath([sandbox, real]) == sandbox if _same_drive(sandbox, real) else False

    def guarded_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if isinstance(file, (str, bytes, os.PathLike)):
            name = os.path.abspath(os.fsdecode(file))
            if any(letter in mode for letter in "wax+") and not inside(file):
                elsewhere.setdefault(name, os.path.join(sandbox, f"{len(elsewhere)}-{os.path.basename(name)}"))
            near = os.path.join(beside, os.fsdecode(file))
            file = elsewhere.get(name) or (near if not os.path.exists(name) and os.path.exists(near) and inside(name)
                                           and not any(letter in mode for letter in "wax") else file)
        return plain_open(file, mode, *args, **options)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[2], int) and args[2] & _WRITES and not inside(args[0]):
            raise PermissionError(f"fastnet lets this code write nothing outside of its own folder: {args[0]}")
        if event in _CHANGES and not all(inside(path) for path in args[:_CHANGES[event]]):
            raise PermissionError(f"fastnet lets this code change no files: {args[0]}")
        if event in _PROGRAMS:
            raise PermissionError("fastnet lets this code start no other programs")
        if event == "socket.connect":
            raise ConnectionRefusedError("fastnet lets this code reach no network")

    builtins.open = io.open = guarded_open  # type: ignore[assignment]
    time.sleep = lambda seconds: None  # type: ignore[assignment]
    sys.addaudithook(watch)
    serve_cpickle()


def _same_drive(a: str, b: str) -> bool:
    return os.path.splitdrive(a)[0] == os.path.splitdrive(b)[0]


def serve_cpickle() -> None:
    """Let ``import cPickle``, as in Python 2, be pickle: its ``load`` reads the strings of Python 2 as text."""
    if "cPickle" in sys.modules:
        return
    module = types.ModuleType("cPickle", "pickle, under its name in Python 2; served by fastnet")
    module.__dict__.update({name: getattr(pickle, name) for name in pickle.__all__})

    def load(file: Any, **options: Any) -> Any:
        return pickle.load(file, **{"encoding": "latin1", **options})

    def loads(data: Any, **options: Any) -> Any:
        return pickle.loads(data, **{"encoding": "latin1", **options})

    module.load, module.loads = load, loads  # type: ignore[attr-defined]
    sys.modules["cPickle"] = module


def environment(root: str, sandbox: str) -> dict[str, str]:
    """The environment of a confined process.

    Without the drop-in, which would serve fastnet for the folder's code; a home and temporary files in the sandbox; no
    windows, and nothing compiled beside the participant's files.
    """
    from fastnet.dropin import _children

    kept = {key: value for key, value in os.environ.items() if key not in (_children.MARK, "PYTHONSTARTUP")}
    paths = [entry for entry in kept.get("PYTHONPATH", "").split(os.pathsep) if entry and "_site" not in entry]
    return {**kept, "PYTHONPATH": os.pathsep.join([root, *paths]), "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": sandbox, "USERPROFILE": sandbox, "TMPDIR": sandbox, "TEMP": sandbox, "PYTHONIOENCODING": "utf-8",
            "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
