"""A Matplotlib figure that notebooks show, made without pyplot: no window, no global state, any thread."""
from __future__ import annotations

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A Figure that a notebook shows with any backend."""

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self, dpi: int = 110) -> bytes:
        """The picture as a PNG file."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=dpi)
        return file.getvalue()
