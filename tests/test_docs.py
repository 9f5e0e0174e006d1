"""What is written is what happens: the code and commands of all pages, examples in docstrings, notebooks."""
import contextlib
import doctest
import importlib
import importlib.util
import io
import os
import pkgutil
import re
import shlex
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
from pages import PAGES, Runner, blocks, code_spans, same_up_to_rounding, same_words

import fastnet

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ["chapter", "sweep", "guard"]
EXAMPLES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "fastnet").rglob("*.py")
                  if ">>> " in path.read_text(encoding="utf-8"))
GIVEN = {"requirements.txt", "setup.py", "conftest.py", "limits.toml", "statistics.py"}  # of a reader's own project
NEEDS = ("sklearn", "safetensors", "pandas", "dask", "scipy")


IN_SOURCES = pytest.mark.skipif(not (ROOT / "kernels").exists(), reason="needs the sources, not what is installed")


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.fixture
def as_in_a_process_of_its_own():
    """What a page's code may change, put back: the drop-in's finder and modules, the environment."""
    before = {*sys.meta_path}, {*sys.modules}
    with mock.patch.dict(os.environ):
        yield
    for finder in [*sys.meta_path]:
        if finder not in before[0] and type(finder).__module__.startswith("fastnet."):
            sys.meta_path.remove(finder)
    for name in {*sys.modules} - before[1]:
        if name.partition(".")[0] == "layers":
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("as_in_a_process_of_its_own")
def test_the_code_of_a_page_runs_as_written(page, tmp_path, monkeypatch):
    import matplotlib

    found = blocks(text_of(page))
    run = [block for block in found if not block.mark.startswith("not run")]
    def needs(block, package):
        return re.search(rf"^\s*(import|from) {package}\b", block.text, re.MULTILINE)

    for package in NEEDS:
        if any(needs(block, package) for block in run):
            pytest.importorskip(package)
    if any(block.language in ("sh", "console") for block in run) and (os.name == "nt" or not shutil.which("bash")):
        pytest.skip("needs a shell")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    matplotlib.use("Agg")
    runner = Runner(page)
    for block in found:
        if not (needs(block, "torch") and not importlib.util.find_spec("torch")):  # the page's other blocks do without
            runner.run(block)


def test_the_readme_is_short_and_the_glossary_too():
    assert len(text_of("README.md").splitlines()) < 100
    assert len(re.findall(r"^: ", text_of("docs/glossary.md"), re.MULTILINE)) <= 10


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_or_says_why_not(page):
    for block in blocks(text_of(page)):
        commands = re.search(r"^\s*(\$|make|pip|python3?|fastnet|git|pytest)\b", block.text, re.MULTILINE)
        runs = block.language in ("python", "sh", "console", "new") or block.language.startswith("{")
        assert runs or block.mark or (block.language == "" and not commands), f"{page}:{block.line}"


@IN_SOURCES
@pytest.mark.parametrize("page", ["kernels/README.md", "bench/README.md", "fastnet/gate/README.md", "CONTRIBUTING.md"])
def test_files_that_a_readme_names_exist(page):
    for span in set(code_spans(text_of(page))):
        if re.fullmatch(r"[\w./-]+\.(py|toml|md|json)", span) and not span.startswith(("layers", "DATE")):
            near = [ROOT / span, (ROOT / page).parent / span, ROOT / "kernels" / span]
            assert any(path.exists() for path in near) or span in GIVEN, f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_a_page_names_exist(page):
    """Also those in a sentence and those that are too long to run: modules, targets and options are known."""
    makefile = ROOT / "Makefile"
    targets = set(re.findall(r"^([\w-]+):", makefile.read_text(), re.MULTILINE)) if makefile.exists() else None
    for span in code_spans(text_of(page)):
        words = span.split(" #")[0].split()
        while words and re.fullmatch(r"[A-Z_0-9]+=\S*", words[0]):
            words = words[1:]
        if words[:1] == ["make"]:
            named = [word for word in words[1:] if not re.search(r"[=.]", word)]
            assert targets is None or set(named) <= targets, span
        elif words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("bench", "fastnet", "tests"):
            assert importlib.util.find_spec(words[2]), span
        elif words[:1] == ["fastnet"] and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
            assert known_command(span.split(" #")[0].split(" | ")[0]), f"{page}: {span}"


def known_command(command):
    """Whether the parsers of ``fastnet`` know its options. What they print with --help names each of them."""
    words = [word for word in shlex.split(command.replace("'", " ")) if word not in ("...", "…")][1:]
    sub = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
    text = help_of(sub[0], *(sub[1:] if sub[0] == "data" else ()))
    options = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return all(re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text) for option in options)


def help_of(*words):
    from fastnet.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return out.getvalue()


def test_every_command_is_on_the_page_of_commands():
    page = text_of("docs/commands.md")
    listed = re.search(r"COMMAND\n(.*)", help_of(), re.DOTALL)[1]
    names = re.findall(r"^    ([a-z]+)\b", listed, re.MULTILINE)
    assert len(names) >= 8
    for name in names:
        assert f"fastnet {name}" in page, name


@IN_SOURCES
def test_every_environment_variable_is_on_its_page():
    """Variables that the code reads are documented; those that processes of fastnet pass to each other are not for users."""
    page = text_of("docs/environment.md")
    internal = {"FASTNET_DROPIN", "FASTNET_DROPIN_ANSWERS", "FASTNET_GATE_MARKED", "FASTNET_GATE_METRICS", "FASTNET_GATE_NOTES",
                "FASTNET_GATE_ONLY", "FASTNET_GATE_PADDING", "FASTNET_GATE_REPOSITORY", "FASTNET_GATE_TREE", "FASTNET_GATE_TURNS"}
    files = [path for folder in ("fastnet", "kernels", "bench", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    read = {name for path in [*files, ROOT / "setup.py"] if path.exists() and path.name != "test_docs.py"
            for name in re.findall(r"\bFASTNET_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8"))}
    assert not {name for name in read - internal if f"`{name}`" not in page}
    assert not {name for name in re.findall(r"FASTNET_[A-Z0-9_]+", page) if name not in read | internal}


@pytest.mark.parametrize("module", [name.removesuffix(".__init__") for name in EXAMPLES])
def test_examples_in_docstrings(module):
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        pytest.skip(str(error))
    result = doctest.testmod(imported)
    assert result.attempted > 0
    assert result.failed == 0


def shown(cell):
    """What a cell shows: its texts, and how many pictures."""
    outputs = [o for o in cell.get("outputs", ()) if o.get("name") != "stderr"]  # which has a line about compiling
    texts = ["".join(o.get("text", ())) + "".join(o.get("data", {}).get("text/plain", "")) * ("image/png" not in o.get("data", {}))
             for o in outputs]
    return "".join(texts), sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_print_what_is_stored(name, tmp_path):
    """The same words and pictures, and the same numbers up to rounding; timings only have the same words."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    stored = [shown(cell) for cell in notebook.cells]
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])})
    for cell, (text, pictures) in zip(notebook.cells, stored):
        now, drawn = shown(cell)
        assert drawn == pictures
        same = same_words if "timing" in cell.metadata.get("tags", ()) else same_up_to_rounding
        assert same(text, now), f"stored:\n{text}\nnow:\n{now}"


def test_every_module_a_user_sees_is_in_the_reference():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    for name in fastnet.__all__:
        if name != "__version__":
            assert re.search(rf"fastnet\.{name}\n", pages), f"docs/api does not mention fastnet.{name}"
    for name in fastnet.sweep.__all__:
        assert re.search(rf"fastnet\.sweep\.{name}\n", pages), f"docs/api does not mention fastnet.sweep.{name}"
    kernels = (ROOT / "docs" / "api" / "kernels.md").read_text(encoding="utf-8")
    public = importlib.import_module("fastnet.kernels")
    naive = importlib.import_module("fastnet.kernels.naive")
    modules = [importlib.import_module(f"fastnet.kernels.{info.name}") for info in pkgutil.iter_modules(public.__path__)]
    for name, value in vars(naive).items():
        if getattr(value, "__module__", "") == naive.__name__ and any(hasattr(module, name) for module in modules
                                                                      if module is not naive):
            assert re.search(rf"\.{name}\n", kernels), f"docs/api/kernels.md does not mention {name}"
