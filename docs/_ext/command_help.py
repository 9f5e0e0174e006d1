"""``{help} fastnet sweep``: what that command prints with --help, so that the page always shows the parser's own words."""
from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive

ROOT = Path(__file__).resolve().parents[2]


def command_help(command: str) -> str:
    """What a command prints with --help, 80 columns wide."""
    words = shlex.split(command)
    if words[0] == "fastnet":
        words = ["python", "-m", *words]
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words[1:], "--help"], cwd=ROOT, env=environment, capture_output=True, check=True)
    return done.stdout.decode("utf-8").replace("\r\n", "\n").replace("python -m fastnet ", "fastnet ").rstrip()


class Help(Directive):
    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        text = command_help(self.arguments[0])
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("help", Help)
    return {"parallel_read_safe": True}
