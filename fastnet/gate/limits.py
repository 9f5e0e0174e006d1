"""The table of limits: the allowed slowdown of each benchmark."""
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnet.gate import GateError
from fastnet.gate.declared import tomllib

METRICS = {"allocated": 0.05, "process": 0.10, "instructions": 0.02}  # the gate's own, and their limits


@dataclass(frozen=True)
class Limits:
    """Allowed growth, as fractions. A key matches every name that it is a part of; the longest match counts."""

    default: float = 0.05
    benchmarks: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    counts_default: float = 0.0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # by metric, then as `benchmarks`

    def of(self, benchmark: str) -> float:
        return _longest_match(self.benchmarks, benchmark, self.default)

    def of_count(self, count: str) -> float:
        return _longest_match(self.counts, count, self.counts_default)

    def of_metric(self, metric: str, benchmark: str) -> float:
        table = self.metrics.get(metric, {})
        return _longest_match(table, benchmark, table.get("default", METRICS[metric]))


def _longest_match(table: dict[str, float], name: str, default: float) -> float:
    key = max((key for key in table if key in name), key=len, default=None)
    return default if key is None else table[key]


def find_limits(project: Path, folders: Sequence[str]) -> Path:
    """Return the path of ``limits.toml`` in the benchmarks' folder or one above, or where it would be."""
    places = [parent for folder in folders for parent in (Path(folder), *Path(folder).parents)]
    found = [project / place / "limits.toml" for place in places if (project / place / "limits.toml").is_file()]
    return found[0] if found else project / "limits.toml"


def read_limits(path: Path) -> Limits:
    """Read ``limits.toml``; a missing file means the default for everything."""
    if not path.exists():
        return Limits()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GateError(f"{path} cannot be read as TOML: {error}") from error
    known = {"default", "benchmarks", "counts", *METRICS}
    if set(table) - known:
        raise GateError(f"{path} has {', '.join(sorted(set(table) - known))}; expected: default, [benchmarks], [counts], "
                        f"{', '.join(f'[{metric}]' for metric in METRICS)}.")
    counts = _numbers(path, "counts", table.get("counts", {}))
    counts_default = counts.pop("default", 0.0)
    default = _numbers(path, "the file", {"default": table.get("default", Limits.default)})["default"]
    metrics = {metric: _numbers(path, metric, table[metric]) for metric in METRICS if metric in table}
    return Limits(default, _numbers(path, "benchmarks", table.get("benchmarks", {})), counts, counts_default, metrics)


def _numbers(path: Path, where: str, table: Any) -> dict[str, float]:
    if not isinstance(table, dict):
        raise GateError(f"{path}: [{where}] must be a table of name = limit, got {table!r}.")
    for key, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10:
            raise GateError(f"{path}: the limit of {key!r} is {value!r}; expected a fraction such as 0.05 for 5 %.")
    return {key: float(value) for key, value in table.items()}
