"""Where names of other projects are documented, for links from the pages.

The build asks each project for its list of names. Without a network it falls back on the names below, which are the ones
that fastnet's pages use.
"""
from __future__ import annotations

import zlib
from pathlib import Path

_KNOWN = {  # project: its address, and (role, name, page) of names
    "python": ("https://docs.python.org/3/", [
        ("py:class", "concurrent.futures.Executor", "library/concurrent.futures.html"),
        ("py:exception", "ValueError", "library/exceptions.html"),
        ("py:exception", "TypeError", "library/exceptions.html"),
        ("py:exception", "RuntimeError", "library/exceptions.html"),
        ("std:term", "iterable", "glossary.html"), ("std:term", "sequence", "glossary.html"),
        ("std:label", "bltin-boolean-values", "library/stdtypes.html"),
    ]),
    "numpy": ("https://numpy.org/doc/stable/", [
        ("std:term", "array_like", "glossary.html"),
        ("py:class", "numpy.ndarray", "reference/generated/numpy.ndarray.html"),
        ("py:class", "numpy.random.Generator", "reference/random/generator.html"),
        ("py:function", "numpy.load", "reference/generated/numpy.load.html"),
        ("py:function", "numpy.savez", "reference/generated/numpy.savez.html"),
    ]),
    "matplotlib": ("https://matplotlib.org/stable/", [
        ("py:class", "matplotlib.figure.Figure", "api/figure_api.html"),
    ]),
    "pandas": ("https://pandas.pydata.org/docs/", [
        ("py:class", "pandas.DataFrame", "reference/api/pandas.DataFrame.html"),
        ("py:function", "pandas.get_dummies", "reference/api/pandas.get_dummies.html"),
    ]),
    "sklearn": ("https://scikit-learn.org/stable/", [
        ("py:class", "sklearn.neural_network.MLPClassifier",
         "modules/generated/sklearn.neural_network.MLPClassifier.html"),
    ]),
}
_HEAD = """# Sphinx inventory version 2
# Project: {}
# Version:
# The remainder of this file is compressed using zlib.
"""


def _line(role: str, name: str, page: str) -> str:
    place, shown = ("term-$" if role == "std:term" else "$"), (name if role == "std:label" else "-")
    return f"{name} {role} 1 {page}#{place} {shown}\n"


def mapping(folder: Path) -> dict[str, tuple[str, tuple[str | None, ...]]]:
    """For ``intersphinx_mapping``: each project's address, its own list, and the fallback, written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for project, (address, names) in _KNOWN.items():
        lines = "".join(_line(*name) for name in names)
        file = folder / f"{project}.inv"
        file.write_bytes(_HEAD.format(project).encode() + zlib.compress(lines.encode()))
        found[project] = (address, (None, str(file)))
    return found
