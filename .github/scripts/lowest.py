"""The lowest versions that pyproject.toml declares, as constraints for pip.

    python .github/scripts/lowest.py > lowest.txt && pip install -c lowest.txt -e . --group test

They go together on Python 3.10 alone: newer ones need newer packages.
"""
from __future__ import annotations

import re
from pathlib import Path

GROUPS = ("test", "docs")
_REQUIREMENT = re.compile(r'"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?>=([0-9.]+)"')  # without a marker


def lowest(text: str) -> dict[str, str]:
    """Name and version of each requirement: of the package, and of the dependency groups for its tests and documentation."""
    blocks = [re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL) for name in ("dependencies", *GROUPS)]
    return {name: version for block in blocks if block for name, version in _REQUIREMENT.findall(block.group(1))}


if __name__ == "__main__":
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    for name, version in lowest(project.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}{'.0' * (2 - version.count('.'))}")
