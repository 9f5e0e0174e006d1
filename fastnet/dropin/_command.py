"""``python -m fastnet.dropin``: run a script or a module as ``python`` does, with fastnet as ``layers``."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import traceback
from collections.abc import Sequence

from fastnet.check import _source
from fastnet.dropin import _editions_data
from fastnet.dropin._finder import NAME, install, served


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the exit code is that of the script."""
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.dropin",
        usage="%(prog)s [--classes CLASSES] script.py [arguments]\n"
              "       %(prog)s [--classes CLASSES] -m module [arguments]",
        description=f"Run a script or a module that imports the course's {NAME!r}, without a change, on fastnet.",
    )
    parser.add_argument("-m", action="store_true", dest="is_module", help="run a module, such as unittest")
    parser.add_argument(
        "--classes", metavar="CLASSES", type=_edition,
        help=f"the classes that cifar100 returns: {_editions_data.USAGE} (default: those of the folder's dataset.py, or 5 "
             "classes without one)",
    )
    parser.add_argument("target", metavar="script.py", help="a script, or with -m the name of a module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the script or module")
    given = parser.parse_args(argv)
    if not given.is_module and not os.path.exists(given.target):
        parser.error(f"there is no file {given.target} (the current folder is {os.getcwd()})")
    if given.classes:
        os.environ[_editions_data.VARIABLE] = given.classes  # processes that the script starts see it, too
    install()
    sys.argv[:] = [given.target, *given.arguments]
    last: list[str] = []  # printed after everything else, where it is not missed
    try:
        if given.is_module:
            runpy.run_module(given.target, run_name="__main__", alter_sys=True)
        else:
            if not getattr(sys.flags, "safe_path", False):
                sys.path[0] = os.path.dirname(os.path.abspath(given.target))  # it was the current folder
            runpy.run_path(given.target, run_name="__main__")
    except Exception as error:
        _print_traceback(error, given.target)
        hint = _source.python_2(error)
        if hint:
            last.append(f"{_place(error, given.target)}: {hint}")
        sys.exit(1)
    finally:
        if not served():
            last.append(_never_imported(given.target))
        for text in last:
            print(f"fastnet.dropin: {text}", file=sys.stderr)


def _print_traceback(error: Exception, target: str) -> None:
    """Print a traceback as Python does, without the frames above the script."""
    script, frame = os.path.abspath(target), error.__traceback__
    while frame is not None and os.path.abspath(frame.tb_frame.f_code.co_filename) != script:
        frame = frame.tb_next
    inside = frame is not None or isinstance(error, SyntaxError)
    shown = error.with_traceback(frame) if inside else error
    sys.excepthook(type(shown), shown, shown.__traceback__)


def _place(error: Exception, target: str) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else target


def _edition(text: str) -> str:
    try:
        _editions_data.parse(text, "--classes")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _never_imported(target: str) -> str:
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())
             if "FullLayer" in getattr(module, "__dict__", {})}
    where = next((f" (its FullLayer is that of {file})" for name, file in files.items() if file and name != "__main__"), "")
    return f"{target} did not import {NAME!r}{where}, so this process did not use fastnet"
