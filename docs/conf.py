"""Sphinx's settings; `make docs` builds the pages into docs/_build/html, warnings being errors."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fastnet import __version__  # noqa: E402

project, author, copyright = "fastnet", "fastnet developers", "fastnet developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # READMEs of folders, included into pages, begin at other levels

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

html_theme = "furo"
html_title = f"fastnet {release}"
html_static_path = ["_static"]
html_css_files = ["fastnet.css"]
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
highlight_language = "text"  # unless a block names another
pygments_style, pygments_dark_style = "friendly", "monokai"

autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False  # autodoc lists them
numpydoc_class_members_toctree = False


def visit_inline(writer: Any, node: Any) -> None:
    """Formulas as MathML, which browsers draw themselves: no script, no font to fetch, and they can be copied."""
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
