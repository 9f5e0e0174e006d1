"""One line on the terminal, or in a notebook, says that kernels are being compiled; it goes when they are done."""
import contextlib
import sys

_compiled = 0  # kernels so far, in this process
_width = 0  # of the line that is shown


def show(kernel: str) -> None:
    """Say that a kernel is being compiled."""
    global _compiled, _width
    _compiled += 1
    if sys.stderr is not None and (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")):
        line = f"fastnet: compiling kernels, once for this version: {_compiled} so far, {kernel} ..."
        _write(f"\r{line:{_width}s}")
        _width = len(line)


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
