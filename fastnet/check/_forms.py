"""The report for programs, as JSON, Gradescope's results or a table, and as a web page."""

from __future__ import annotations

import json
from typing import Any

from fastnet.check import _text
from fastnet.check._page import page

Reports = list[dict[str, Any]]


def as_json(reports: Reports) -> str:
    """Return all findings as JSON."""
    return json.dumps({"folders": reports}, indent=1)


def as_gradescope(reports: Reports) -> str:
    """Return Gradescope's ``results.json``, with one test for each file."""
    tests = []
    for row in reports[0]["rows"]:
        if row["verdict"] == "not judged":
            continue
        passed = row["verdict"].startswith("ok")
        test: dict[str, Any] = {"name": f"{row['stem']}: {row['name']}", "status": "passed" if passed else "failed",
                                "output": "\n".join(_text.of_row(row)), "visibility": "visible"}
        if "of" in row:
            test |= {"score": row["points"], "max_score": row["of"]}
        tests.append(test)
    whole: dict[str, Any] = {"output": f"fastnet check: {reports[0]['verdict']}", "output_format": "text", "tests": tests}
    if not any("of" in row for row in reports[0]["rows"]):
        whole["score"] = 0.0 if reports[0]["verdict"] == "differs" else 1.0
    return json.dumps(whole, indent=1)


def as_table(reports: Reports) -> str:
    """Return a line per file: folder, file, verdict, points, method, equation, line and mistake, separated by tabs."""
    lines = ["folder\tfile\tverdict\tpoints\tmethod\tequation\tline\tslip"]
    for report in reports:
        for row in report["rows"]:
            fault = row["faults"][0] if row["faults"] else {}
            points = f"{row['points']:g}" if "of" in row else ""
            cells = [
                report["folder"],
                row["stem"],
                row["verdict"],
                points,
                fault.get("method", ""),
                fault.get("equation", ""),
                fault.get("line") or "",
                fault.get("slip") or fault.get("repair") or fault.get("message", ""),
            ]
            lines.append("\t".join(" ".join(str(cell).split()) for cell in cells))
    return "\n".join(lines)


def as_html(reports: Reports) -> str:
    """Return the web page, in one file."""
    return page(reports)
