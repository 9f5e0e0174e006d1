"""Sphinx's settings. `make docs` builds the pages into docs/_build/html and treats warnings as errors."""
from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "_ext")]

import inventories  # noqa: E402

from fastnet import __version__  # noqa: E402

project, author, copyright = "fastnet", "fastnet developers", "fastnet developers"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.intersphinx", "numpydoc",
              "sphinx_copybutton", "command_help"]
exclude_patterns = ["_build", "_ext"]
suppress_warnings = ["myst.header"]  # READMEs of folders, included into pages, begin at other levels

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

nb_execution_mode = "off"  # the tests execute the notebooks; the pages show the stored outputs
NOTEBOOKS = HERE / "notebooks"  # copies, since Sphinx reads only what lies below this folder
NOTEBOOKS.mkdir(exist_ok=True)
for notebook in (ROOT / "examples").glob("*.ipynb"):
    shutil.copy(notebook, NOTEBOOKS)

# Names of other projects link to their pages. Without a network, the few names in inventories.py still do.
intersphinx_mapping = inventories.mapping(HERE / "_build" / "inventories")
intersphinx_timeout = 5

html_theme = "furo"
html_title = f"fastnet {release}"
html_static_path = ["_static"]
html_css_files = ["fastnet.css"]
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
highlight_language = "text"  # unless a block names another
pygments_style, pygments_dark_style = "friendly", "monokai"

autosummary_generate = False  # the tables link to entries of the same page
autodoc_typehints = "none"  # the docstrings describe the types
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False  # autodoc lists them
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = True  # the types of parameters link to their pages, where these are known
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {"ndarray": "numpy.ndarray", "Figure": "matplotlib.figure.Figure",
                         "Sequential": "fastnet.Sequential", "SweepResult": "fastnet.sweep.SweepResult",
                         "Suggestion": "fastnet.sweep.Suggestion", "Data": "fastnet.dataset.Data",
                         "Plan": "fastnet.Plan", "EpochReport": "fastnet.EpochReport"}


def visit_inline(writer: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers draw without a script and which can be copied."""
    _write(writer, node, block=False)


def visit_block(writer: Any, node: Any) -> None:
    writer.body.append('<div class="math">')
    _write(writer, node, block=True)
    writer.body.append("</div>")


def _write(writer: Any, node: Any, block: bool) -> None:
    from docutils import nodes
    from docutils.utils.math import latex2mathml

    tree = latex2mathml.tex2mathml(node.astext(), as_block=block)
    writer.body.append(tree if isinstance(tree, str) else tree.toxml())
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
