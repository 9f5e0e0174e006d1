"""The report of a training run: a web page in one file, with pictures and tables, for a browser or a mail."""
from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping

_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1c2024; --soft: #5f6b76; --line: #d9dee3; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181b; --text: #e6e8ea; --soft: #9aa4ad; --line: #343a40; --card: #1e2226 } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem;
  padding: 1rem }
h1 { font-size: 1.5rem; margin: 0.5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 0.3rem }
p { margin: 0.3rem 0 } .soft { color: var(--soft) }
.figures { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 1rem 0 }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; flex: 1 1 9rem;
  padding: 0.6rem 0.9rem }
.figures b { display: block; font-size: 1.4rem }
img { background: #fff; border: 1px solid var(--line); border-radius: 8px; box-sizing: border-box; display: block;
  height: auto; margin: 0.5rem 0; max-width: 100%; padding: 0.5rem }
.wide { overflow-x: auto } table { border-collapse: collapse }
td, th { border-bottom: 1px solid var(--line); padding: 0.25rem 1rem 0.25rem 0; text-align: left; vertical-align: top }
code { overflow-wrap: anywhere }
"""


def page(
    title: str, subtitle: str, figures: Mapping[str, str], pictures: Iterable[tuple[str, str, bytes]],
    facts: Mapping[str, str],
) -> str:
    """Return the page.

    Parameters
    ----------
    title, subtitle : str
    figures : mapping
        Label and value of the numbers at the top.
    pictures : iterable of (heading, explanation, PNG file)
    facts : mapping
        Name and value of each row of the table at the end.

    Returns
    -------
    str
        HTML that refers to no other file.
    """
    text = html.escape
    cards = "".join(f"<div>{text(name)}<b>{text(value)}</b></div>" for name, value in figures.items())
    sections = "".join(
        f"<h2>{text(heading)}</h2><p class=soft>{text(explanation)}</p>"
        f'<img alt="{text(heading)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">\n'
        for heading, explanation, png in pictures)
    rows = "".join(f"<tr><th>{text(name)}</th><td><code>{text(value)}</code></td></tr>" for name, value in facts.items())
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
            f"<h1>{text(title)}</h1><p class=soft>{text(subtitle)}</p><div class=figures>{cards}</div>{sections}"
            f"<h2>How it was made</h2><div class=wide><table>{rows}</table></div></body></html>\n")
