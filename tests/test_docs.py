"""What is written is what happens: programs in the pages, examples in docstrings, notebooks."""
import doctest
import importlib
import os
import re
from pathlib import Path

import pytest

import fastnet

ROOT = Path(__file__).parent.parent
PAGES = ["../README", "start-student", "start-rates", "gram", "tools", "pictures", "layers"]
NOTEBOOKS = ["chapter", "sweep", "guard"]
EXAMPLES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "fastnet").rglob("*.py")
                  if ">>> " in path.read_text(encoding="utf-8"))


def programs(text):
    """The blocks of Python in a page, as one program whose lines have their numbers in the page."""
    lines = []
    inside = False
    for line in text.splitlines():
        if re.fullmatch(r"\s*```.*", line):
            inside = line.strip() == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore")
def test_programs_in_the_pages(page, tmp_path, monkeypatch):
    program = programs((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))
    assert program.strip()
    for package in ("torch", "sklearn", "safetensors"):
        if package in program:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    space = {"__name__": page}
    exec(compile(program, f"{page}.md", "exec"), space)


@pytest.mark.parametrize("module", [name.removesuffix(".__init__") for name in EXAMPLES])
def test_examples_in_docstrings(module):
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        pytest.skip(str(error))
    result = doctest.testmod(imported)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks(name, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    pictures = [sum("image/png" in o.get("data", {}) for o in cell.get("outputs", ())) for cell in notebook.cells]
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])})
    assert [sum("image/png" in o.get("data", {}) for o in cell.get("outputs", ())) for cell in notebook.cells] == pictures


def test_every_module_a_user_sees_is_in_the_reference():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    for name in fastnet.__all__:
        if name not in ("GradientReport", "Plan", "__version__"):  # what functions return: their docstrings say it
            assert f"fastnet.{name}\n" in pages, f"docs/api does not mention fastnet.{name}"
