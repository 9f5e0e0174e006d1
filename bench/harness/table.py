"""Results as rows of text, for the terminal and for the report."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HEAD = ("benchmark", "work", "dtype", "layout", "median", "rate", "of peak", "error", "time of others / fastnet's")


def seconds(value: float) -> str:
    """Return a time with three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def rows(benchmarks: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return one row per benchmark, from pytest-benchmark's dictionaries."""
    return [_row(bench) for bench in benchmarks]


def _row(bench: Mapping[str, Any]) -> tuple[str, ...]:
    info = bench.get("extra_info", {})
    rate = f"{info['gbs']:.1f} GB/s" if info.get("limit") == "copy" else (
        f"{info['gflops']:.1f} GFLOP/s" if info.get("gflops") else "")
    share = info.get("share")
    against = ", ".join(f"{name} {other['ratio']:.2f} [{other['low']:.2f}, {other['high']:.2f}]"
                        for name, other in info.get("against", {}).items())
    return (info.get("kernel", bench["name"]), str(info.get("shape", "")), info.get("dtype", ""),
            str(info.get("layout", "")), seconds(bench["stats"]["median"]), rate,
            "" if share is None else share_of_peak(info), "" if info.get("error") is None else f"{info['error']:.1g}",
            against)


def does_all_operations(info: Mapping[str, Any]) -> bool:
    """Return whether a kernel does all counted operations: symmetric products do half of them, Gram space fewer."""
    return info.get("layout") != "symmetric" and info.get("kernel") not in ("gram_matrix", "fit", "sweep")


def share_of_peak(info: Mapping[str, Any]) -> str:
    """Return the share of the machine's limit; above 1, the kernel saved work, or the measured limit is too low."""
    share = info["share"]
    if share <= 1:
        return f"{share:.0%}"
    return "100%, limit measured while busy" if does_all_operations(info) else f"{share:.1f} x: work saved"


def table(lines: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> str:
    """Columns as wide as they need to be."""
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in (head, rule, *lines))
