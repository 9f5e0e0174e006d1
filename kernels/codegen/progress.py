"""One line on the terminal, or in a notebook, says that kernels are being compiled; it goes when they are done."""
import contextlib
import sys

_compiled = 0  # kernels so far, in this process
_width = 0  # of the line that is shown
_silent = False


def show(kernel: str) -> None:
    """Say that a kernel is being compiled."""
    global _compiled, _width
    _compiled += 1
    if _silent or sys.stderr is None:
        return
    if sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"):
        line = f"fastnet: compiling kernels, once for this version: {_compiled} so far, {kernel} ..."
        _write(f"\r{line:{_width}s}")
        _width = len(line)


def silence() -> None:
    """Show nothing in this process."""
    global _silent
    _silent = True


def clear() -> None:
    """Remove the line."""
    global _width
    if _width:
        _write(f"\r{'':{_width}s}\r")
        _width = 0


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or gone
        sys.stderr.write(text)
        sys.stderr.flush()
