"""The code blocks of a Markdown page, and what the tests do with them.

A page's blocks run in order, in one folder: ``python`` blocks as one program, ``sh`` and ``console`` blocks as commands. A
comment in the line before a block says what is special about it:

``<!-- not run: REASON -->``   the block is an excerpt, or needs what a test does not have
``<!-- file: NAME -->``        the block is the content of a file
``<!-- output -->``            what the block before it prints: the same words, and the same numbers up to rounding (see
                               `same_up_to_rounding`); ``...`` stands for any text

Where a page is split in two programs that do not know of each other, ``<!-- new program -->`` starts the second one.
"""
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [
    *(ROOT / "docs").glob("*.md"), *(ROOT / name for name in (
        "README.md", "CONTRIBUTING.md", "fastnet/gate/README.md", "bench/README.md", "kernels/README.md"))] if path.exists())
_FENCE = re.compile(r"(\s*)(`{3,}|:{3,})\s*(\{?[\w-]*\}?).*")
_COMMENT = re.compile(r"\s*<!-- (not run: .+|file: .+|output|new program) -->\s*")


@dataclass
class Block:
    language: str
    text: str
    line: int  # of its first line in the page
    mark: str = ""  # the comment before it


def blocks(text):
    """The fenced blocks of a page, in order."""
    found, mark, lines = [], "", text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        if comment := _COMMENT.fullmatch(line):
            mark = comment[1]
            if mark == "new program":
                found.append(Block("new", "", number))
                mark = ""
        elif (fence := _FENCE.fullmatch(line)) and fence[2][0] == "`":
            end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == fence[2])
            indent = len(fence[1])
            inside = "\n".join(row[indent:] for row in lines[number + 1:end])
            found.append(Block(fence[3], inside, number + 2, mark))
            mark, number = "", end
        elif line.strip():
            mark = ""
        number += 1
    return found


class Runner:
    """Runs the blocks of one page in the current folder."""

    def __init__(self, page):
        self.page, self.space, self.printed = page, {"__name__": "__main__"}, ""

    def run(self, block):
        """Run a block, or compare it with what the one before it printed."""
        kind, _, value = block.mark.partition(": ")
        if block.language == "new":
            self.space = {"__name__": "__main__"}
        elif kind == "not run":
            assert len(value) > 5, f"{self.page}:{block.line}: no reason"
        elif kind == "file":
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text(block.text + "\n", encoding="utf-8")
        elif kind == "output":
            self.compare(block.text, self.printed, block.line)
        elif block.language == "python":
            self.printed = self.python(block)
        elif block.language in ("sh", "console"):
            self.printed = ""
            for command, expected in commands(block):
                output = self.command(command, block.line)
                self.printed += output
                if expected:
                    self.compare(expected, output, block.line)

    def python(self, block):
        code = compile("\n" * (block.line - 1) + block.text, self.page, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, self.space)
        return out.getvalue()

    def command(self, command, line):
        scripts = str(Path(sys.executable).parent)
        env = {**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]]), "COLUMNS": "100", "MPLBACKEND": "Agg",
               "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
               "PYTHONIOENCODING": "utf-8", "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "A",
               "GIT_CONFIG_KEY_1": "user.email", "GIT_CONFIG_VALUE_1": "a@example.org"}
        done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, timeout=300)
        output = (done.stdout + done.stderr).decode("utf-8", "replace")
        expects_failure = re.search(r"exit code (\d+)|# exits? (\d+)", command)
        code = int(expects_failure[1] or expects_failure[2]) if expects_failure else 0
        assert done.returncode == code, f"{self.page}:{line}: {command}\nexit code {done.returncode}\n{output}"
        return output

    def compare(self, expected, got, line):
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(expected + "\n", got, flags) or same_up_to_rounding(expected, got), (
            f"{self.page}:{line}: expected\n{expected}\ngot\n{got}")


_NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?(?:e-?\d+)?%?")


def same_words(expected, got):
    """Whether two texts agree in all but numbers and spaces."""
    return _NUMBER.sub("#", expected).split() == _NUMBER.sub("#", got).split()


def same_up_to_rounding(expected, got):
    """Whether two texts agree where another CPU, which rounds differently, may give another last digit of an accuracy."""
    one, other = ([float(number.strip("%")) for number in _NUMBER.findall(text)] for text in (expected, got))
    return same_words(expected, got) and all(abs(a - b) <= 0.02 + 0.05 * abs(b) for a, b in zip(one, other))


def commands(block):
    """(command, expected output) of a block of the shell; in ``console`` blocks, ``$`` begins a command."""
    if block.language == "sh":
        return [(block.text, "")]
    found = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(output)) for command, output in found]


def code_spans(text):
    """What stands in `...` in a page, and each line of its blocks of commands."""
    found = [line.split("  #")[0].strip().removeprefix("$ ") for block in blocks(text) if block.language in ("sh", "console", "")
             for line in block.text.splitlines()]
    outside = re.sub(r"^\s*(```+).*?^\s*\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return found + [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", outside)]
