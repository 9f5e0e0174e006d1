"""Where names of other projects are documented, for links from the pages.

The build asks each project for its list of names. Without a network it falls back on the names below, which are the ones that
fastnet's pages use.
"""
from __future__ import annotations

import zlib
from pathlib import Path

_NUMPY, _GENERATED = "https://numpy.org/doc/stable/", "reference/generated/"
_KNOWN = {
    "python": ("https://docs.python.org/3/", [
        ("py:class", "concurrent.futures.Executor", "library/concurrent.futures.html"),
        ("py:exception", "ValueError", "library/exceptions.html"), ("py:exception", "TypeError", "library/exceptions.html"),
        ("py:exception", "RuntimeError", "library/exceptions.html"),
        ("py:module", "argparse", "library/argparse.html"), ("py:function", "math.isfinite", "library/math.html")]),
    "numpy": (_NUMPY, [
        ("py:class", "numpy.ndarray", f"{_GENERATED}numpy.ndarray.html"),
        ("py:class", "numpy.random.Generator", "reference/random/generator.html"),
        ("py:function", "numpy.load", f"{_GENERATED}numpy.load.html"), ("py:function", "numpy.savez", f"{_GENERATED}numpy.savez.html"),
        ("py:function", "numpy.random.seed", "reference/random/generated/numpy.random.seed.html")]),
    "matplotlib": ("https://matplotlib.org/stable/", [
        ("py:class", "matplotlib.figure.Figure", "api/figure_api.html"),
        ("py:method", "matplotlib.figure.Figure.savefig", "api/figure_api.html")]),
    "pandas": ("https://pandas.pydata.org/docs/", [
        ("py:class", "pandas.DataFrame", "reference/api/pandas.DataFrame.html"),
        ("py:function", "pandas.get_dummies", "reference/api/pandas.get_dummies.html")]),
    "sklearn": ("https://scikit-learn.org/stable/", [
        ("py:class", "sklearn.neural_network.MLPClassifier", "modules/generated/sklearn.neural_network.MLPClassifier.html"),
        ("py:class", "sklearn.model_selection.GridSearchCV", "modules/generated/sklearn.model_selection.GridSearchCV.html")]),
    "numba": ("https://numba.readthedocs.io/en/stable/", []),
}


def mapping(folder: Path) -> dict[str, tuple[str, tuple[str | None, ...]]]:
    """For ``intersphinx_mapping``: each project's address, its own list of names, and the fallback, written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for project, (address, names) in _KNOWN.items():
        lines = "".join(f"{name} {role} 1 {page}#$ -\n" for role, name, page in names)
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The remainder of this file is compressed using zlib.\n"
        (folder / f"{project}.inv").write_bytes(head.encode() + zlib.compress(lines.encode()))
        found[project] = (address, (None, str(folder / f"{project}.inv")))
    return found
