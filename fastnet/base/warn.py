"""Warnings that point at the user's line, however many of fastnet's own calls lie between."""
from __future__ import annotations

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent.parent)


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """Issue a warning at the innermost line that is not fastnet's."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
