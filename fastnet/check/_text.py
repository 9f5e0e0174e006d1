"""The report as text."""

from __future__ import annotations

from typing import Any

_SHOWN = 3  # faults per file; further ones usually follow from them


def report(found: dict[str, Any]) -> str:
    """Return the report on one folder."""
    lines = ["", found["folder"]]
    for row in found["rows"]:
        lines += ["", *of_row(row)] if row["faults"] else of_row(row)
    count = sum(row["verdict"] in ("differs", "missing") for row in found["rows"])
    end = (
        "Nothing differs."
        if not count
        else f"{count} of these {'differs' if count == 1 else 'differ'} or {'is' if count == 1 else 'are'} missing."
    )
    given = [row for row in found["rows"] if "of" in row]
    if given:
        end += f" Points: {sum(row['points'] for row in given):g} of {sum(row['of'] for row in given):g}."
    return "\n".join([*lines, "", end])


def of_row(row: dict[str, Any]) -> list[str]:
    """Return a file's verdict, faults and remarks."""
    verdict = {"differs": "DIFFERS", "missing": f"MISSING: there is no {row['stem']}.py with a class {row['name']}"}.get(
        row["verdict"], row["verdict"])
    points = f" ({row['points']:g} of {row['of']:g} points)" if "of" in row else ""
    lines = [f"{row['stem']:14s} {row['name']:18s} {verdict}{points}"]
    for fault in row["faults"][:_SHOWN]:
        lines += [f"    {line}" for line in of_fault(fault, row["file"])]
    if len(row["faults"]) > _SHOWN:
        lines.append(f"    ... and {len(row['faults']) - _SHOWN} more; correct these first")
    return lines + [f"    {text}" for text in row["remarks"]]


def of_fault(fault: dict[str, Any], file: str) -> list[str]:
    """Return the lines of one fault: what is wrong, why, where, and how to see it."""
    lines = [title(fault), f"    {fault['message']}"]
    if fault["slip"]:
        lines.append(f"    the slip: {fault['slip']}")
    if fault["line"]:
        lines.append(
            f"    {file or 'line'}, line {fault['line']}: {fault['source']}" if file else f"    line {fault['line']}"
        )
    if fault["repair"]:
        lines.append(f"    tried: {fault['repair']}")
    if fault["also"]:
        lines.append(f"    wrong because of it: {', '.join(fault['also'])}")
    if fault["counterexample"]:
        lines += ["    see for yourself:", *(f"        {line}" for line in fault["counterexample"])]
    return lines


def title(fault: dict[str, Any]) -> str:
    """Return the method, the quantity and the equation of a fault."""
    number = fault["equation"]
    where = f"{fault['method']}: " if fault["method"] else ""
    if not number:
        return f"{where}{fault['quantity']}"
    return f"{where}{fault['quantity']}, {f'({number})' if number[0].isdigit() else number}: {fault['formula']}"
