"""The report as a web page in one file, with the folder's values next to the right ones, and two training curves."""

from __future__ import annotations

import html
from typing import Any

from fastnet.check import _text

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c2024; --soft: #5f6b76; --line: #d9dee3; --card: #f6f7f9; --bad: #b3261e;
  --badback: #fde7e5; --good: #1b6e3c; --warn: #8a5a00; --yours: #c2410c; --right: #1d4ed8 }
@media (prefers-color-scheme: dark) { :root { --back: #15181b; --text: #e6e8ea; --soft: #9aa4ad; --line: #343a40; --card: #1e2226;
  --bad: #ff8a80; --badback: #4a1f1c; --good: #7ddc9f; --warn: #f0c36d; --yours: #fb923c; --right: #93b4ff } }
* { box-sizing: border-box }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem }
h1 { font-size: 1.4rem; margin: 0.5rem 0; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin: 2rem 0 0.3rem }
h3 { font-size: 1rem; margin: 0.2rem 0 } p { margin: 0.3rem 0 } .soft { color: var(--soft) }
nav { display: flex; flex-wrap: wrap; gap: 0.5rem; margin: 1rem 0 }
nav a { background: var(--card); border: 1px solid var(--line); border-radius: 8px; color: inherit; padding: 0.4rem 0.8rem; text-decoration: none }
nav b, .verdict { display: block; font-weight: 600 } .ok { color: var(--good) } .remarks { color: var(--warn) } .differs { color: var(--bad) }
.fault { border-left: 4px solid var(--bad); background: var(--card); margin: 0.8rem 0; padding: 0.6rem 0.9rem; border-radius: 0 8px 8px 0 }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; font-size: 0.85rem; margin: 0.4rem 0; padding: 0.5rem;
  white-space: pre-wrap; overflow-wrap: anywhere }
details summary { cursor: pointer; color: var(--soft) }
.pair { display: flex; flex-wrap: wrap; gap: 0.4rem 1.6rem; margin: 0.6rem 0 1.2rem }
.pair > div { max-width: 100%; overflow-x: auto }
table { border-collapse: collapse; font: 0.85rem/1.4 ui-monospace, monospace } caption { color: var(--soft); font-family: system-ui, sans-serif; text-align: left }
td { border: 1px solid var(--line); padding: 0.15rem 0.5rem; text-align: right; white-space: nowrap }
td.bad { background: var(--badback); color: var(--bad); font-weight: 600 }
svg { display: block; height: auto; max-width: 40rem; width: 100% } svg text { fill: var(--soft); font: 13px system-ui, sans-serif }
@media (max-width: 500px) { svg text { font-size: 24px } }
"""
_CLASS = {"ok": "ok", "ok with remarks": "remarks", "differs": "differs", "missing": "differs"}


def page(reports: list[dict[str, Any]]) -> str:
    """Return the page.

    Parameters
    ----------
    reports : list of dict
        Return values of `fastnet.check._command.examine`.
    """
    body = "".join(_report(report, i) for i, report in enumerate(reports))
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>fastnet check</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>{body}</body></html>\n')


def _report(report: dict[str, Any], i: int) -> str:
    links = "".join(f'<a href="#{i}-{_t(row["stem"])}">{_t(row["stem"])}<b class={_class(row)}>{_t(row["verdict"])}</b></a>'
                    for row in report["rows"])
    rows = "".join(_row(row, i) for row in report["rows"])
    return f"<h1>{_t(report['folder'])}</h1><nav>{links}</nav>{_curves(report.get('curves'))}{rows}"


def _row(row: dict[str, Any], i: int) -> str:
    points = f" <span class=soft>{row['points']:g} of {row['of']:g} points</span>" if "of" in row else ""
    parts = [f'<h2 id="{i}-{_t(row["stem"])}">{_t(row["stem"])} <span class=soft>{_t(row["name"])}</span></h2>'
             f"<p class='verdict {_class(row)}'>{_t(row['verdict'])}{points}</p>"]
    parts += [_fault(fault, row["file"]) for fault in row["faults"]]
    parts += [f"<p class=remarks>{_t(text)}</p>" for text in row["remarks"]]
    wrong = [m for m in row["matrices"] if _is_wrong(m)]
    parts += [_pair(m) for m in wrong]
    right = [m for m in row["matrices"] if not _is_wrong(m)]
    if right:
        parts.append(f"<details><summary>{len(right)} equation{'s' * (len(right) > 1)} computed right</summary>"
                     + "".join(map(_pair, right)) + "</details>")
    return "".join(parts)


def _fault(fault: dict[str, Any], file: str) -> str:
    lines = [f"<h3>{_t(_text.title(fault))}</h3><p>{_t(fault['message'])}</p>"]
    if fault["slip"]:
        lines.append(f"<p><b>{_t(fault['slip'][:1].upper() + fault['slip'][1:])}.</b></p>")
    if fault["line"]:
        lines.append(f"<p class=soft>{_t(file)}, line {fault['line']}</p><pre>{_t(fault['source'])}</pre>")
    if fault["repair"]:
        lines.append(f"<p>Tried: {_t(fault['repair'])}</p>")
    if fault["also"]:
        lines.append(f"<p class=soft>Wrong because of it: {_t(', '.join(fault['also']))}</p>")
    if fault["counterexample"]:
        lines.append("<details><summary>see for yourself</summary><pre>" + _t("\n".join(fault["counterexample"])) + "</pre></details>")
    return f"<div class=fault>{''.join(lines)}</div>"


def _is_wrong(matrix: dict[str, Any]) -> bool:
    return matrix["wrong"] is None or any(any(row) for row in matrix["wrong"])


def _pair(matrix: dict[str, Any]) -> str:
    number = matrix["equation"]
    head = f"{matrix['quantity']}, {f'({number})' if number[0].isdigit() else number}: {matrix['formula']}"
    yours = _table("yours", matrix["yours"], matrix["wrong"]) if matrix["yours"] is not None else "<table><caption>yours</caption><tr><td class=bad>nothing</td></tr></table>"
    return f"<p>{_t(head)}</p><div class=pair><div>{yours}</div><div>{_table('right', matrix['right'], None)}</div></div>"


def _table(caption: str, rows: list[list[float]], wrong: list[list[bool]] | None) -> str:
    def cell(i: int, j: int, value: float) -> str:
        bad = wrong is not None and i < len(wrong) and j < len(wrong[i]) and wrong[i][j]
        return f"<td{' class=bad' * bool(bad)}>{value:.4g}</td>"

    cells = "".join(f"<tr>{''.join(cell(i, j, v) for j, v in enumerate(row))}</tr>" for i, row in enumerate(rows))
    return f"<table><caption>{caption}</caption>{cells}</table>"


def _curves(curves: dict[str, list[float]] | None) -> str:
    """Return a picture of both training curves."""
    if not curves:
        return ""
    finite = [v for losses in curves.values() for v in losses if abs(v) < 1e6]
    top = max(curves["right"]) * 1.6
    top = max([v for v in finite if v <= top], default=1.0) or 1.0
    lines = ""
    for name, dash in (("right", ""), ("yours", ' stroke-dasharray="7 5"')):
        losses = curves[name]
        points = " ".join(f"{50 + 580 * i / max(1, len(losses) - 1):.1f},{250 - 220 * max(0.0, min(v, top * 1.05)) / top:.1f}"
                          for i, v in enumerate(losses) if v == v)
        lines += f'<polyline points="{points}" fill="none" stroke="var(--{name})" stroke-width="{2 if dash else 4}"{dash}/>'
    said = "" if curves["yours"] else " Yours could not be trained."
    return ('<h2>One training</h2><p class=soft>A small network, 60 samples, 20 epochs: the mean loss of each epoch, with '
            f'<span style="color:var(--yours)">your layers (dashed)</span> and with <span style="color:var(--right)">the right ones</span>.{said}</p>'
            f'<svg viewBox="0 0 650 290" role="img" aria-label="loss against epoch">{lines}'
            '<line x1="50" y1="250" x2="630" y2="250" stroke="var(--line)"/><line x1="50" y1="20" x2="50" y2="250" stroke="var(--line)"/>'
            f'<text x="44" y="36" text-anchor="end">{top:.2f}</text><text x="44" y="254" text-anchor="end">0</text>'
            '<text x="50" y="272">epoch 1</text><text x="630" y="272" text-anchor="end">epoch 20</text></svg>')


def _class(row: dict[str, Any]) -> str:
    return _CLASS.get(row["verdict"], "soft")


def _t(text: Any) -> str:
    return html.escape(str(text))
