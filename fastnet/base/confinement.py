"""Confinement of a participant's code: it writes only to a sandbox, a folder that fastnet deletes afterwards.

This is no protection against hostile programs. It keeps ordinary ones from writing to the participant's folder, from
starting programs and from using the network.
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

DROPIN = "FASTNET_DROPIN"  # names the Python installation that the drop-in serves; its sitecustomize.py reads it
_CHANGES = {"os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1, "os.link": 2,
            "os.symlink": 2, "shutil.rmtree": 1, "shutil.move": 2}  # events, and how many of their arguments are paths
_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def confine(sandbox: str, scripts: str) -> None:
    """Confine this process to a sandbox.

    Parameters
    ----------
    sandbox : str
        The only folder that the process may write; its subfolder ``course`` becomes the current folder.
    scripts : str
        The folder in which the participant's scripts run; files that are not in the sandbox are read from it.
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
            near = os.path.join(scripts, os.fsdecode(file))
            file = elsewhere.get(name) or (near if not os.path.exists(name) and os.path.exists(near) and inside(name)
                                           and not any(letter in mode for letter in "wax") else file)
        return plain_open(file, mode, *args, **options)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[2], int) and args[2] & _WRITES and not inside(args[0]):
            raise PermissionError(f"fastnet does not allow this code to write outside its folder: {args[0]}")
        if event in _CHANGES and not all(inside(path) for path in args[:_CHANGES[event]]):
            raise PermissionError(f"fastnet does not allow this code to change files: {args[0]}")
        if event in _PROGRAMS:
            raise PermissionError("fastnet does not allow this code to start other programs")
        if event == "socket.connect":
            raise ConnectionRefusedError("fastnet does not allow this code to use the network")

    builtins.open = io.open = guarded_open  # type: ignore[assignment]
    time.sleep = lambda seconds: None  # type: ignore[assignment]
    sys.addaudithook(watch)
    serve_cpickle()


def _same_drive(a: str, b: str) -> bool:
    return os.path.splitdrive(a)[0] == os.path.splitdrive(b)[0]


def serve_cpickle() -> None:
    """Make ``import cPickle``, its name in Python 2, import pickle, whose ``load`` reads Python 2's strings as text."""
    if "cPickle" in sys.modules:
        return
    module = types.ModuleType("cPickle", "pickle under its name in Python 2, provided by fastnet")
    module.__dict__.update({name: getattr(pickle, name) for name in pickle.__all__})

    def load(file: Any, **options: Any) -> Any:
        return pickle.load(file, **{"encoding": "latin1", **options})

    def loads(data: Any, **options: Any) -> Any:
        return pickle.loads(data, **{"encoding": "latin1", **options})

    module.load, module.loads = load, loads  # type: ignore[attr-defined]
    sys.modules["cPickle"] = module


def environment(root: str, sandbox: str) -> dict[str, str]:
    """Return the environment variables of a confined process.

    They leave out the drop-in, which would replace the folder's code. The home and temporary folders are in the sandbox;
    Matplotlib opens no windows, and Python writes no compiled files to the participant's folder.
    """
    kept = {key: value for key, value in os.environ.items() if key not in (DROPIN, "PYTHONSTARTUP")}
    paths = [entry for entry in kept.get("PYTHONPATH", "").split(os.pathsep) if entry and "_site" not in entry]
    return {**kept, "PYTHONPATH": os.pathsep.join([root, *paths]), "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": sandbox, "USERPROFILE": sandbox, "TMPDIR": sandbox, "TEMP": sandbox, "PYTHONIOENCODING": "utf-8",
            "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
