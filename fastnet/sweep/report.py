"""The report of a sweep: one self-contained HTML page."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastnet.sweep.result import SweepResult


def write(result: SweepResult, path: str | os.PathLike[str], command: str = "", title: str = "Sweep") -> None:
    """Write the page."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"<!doctype html><title>{title}</title>{result._repr_html_()}")
