"""What the drop-in serves from the folder itself, in which processes, and what it says."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastnet

ROOT = Path(fastnet.__file__).parent.parent


@pytest.fixture
def course(tmp_path):
    """Writes files into a folder of its own, and runs Python there."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(*arguments, ok=True, **environment):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FASTNET_")}
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env={**clean, "PYTHONPATH": str(ROOT), **environment},
                              capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done

    return write, run


FOLDER = {
    "layers/__init__.py": """
from .full import FullLayer, Counter
from .dropout import Dropout as OwnDropout
from . import sweep
from layers.tools import *
try:
    from tools import tool as old_tool
except ImportError:
    pass
import numpy as np
RATE = 0.5
def helper():
    return FullLayer
if True:
    late = "late"
raise SystemExit("the whole package was run")
""",
    "layers/full.py": """
import numpy as np
RUN = []
class FullLayer:
    pass
class Counter:
    def __init__(self):
        RUN.append(1)
def twice(x):
    return 2 * np.asarray(x)
""",
    "layers/dropout.py": "from .relu import ReluLayer\nfrom .tools import tool\nclass Dropout(ReluLayer):\n    pass\n",
    "layers/sweep.py": "mine = True\n",
    "layers/gradcheck.py": "mine = True\n",
    "layers/tools.py": "def tool():\n    return 'own'\n",
    "layers/broken.py": "import a_module_that_is_not_there\n",
    "layers/softmax.py": "import cStringIO\ndef temperature(x):\n    return x\n",
    "layers/dataset.py": "def old():\n    print `1`\ndef fer2013():\n    exec 'x'\n",
}

NAMES = """
import importlib
import os
import pickle
import fastnet
import layers
from layers import FullLayer, OwnDropout, sweep, Counter, old_tool
from layers.full import *
from layers.full import twice as again
import layers.full, layers.gradcheck

assert FullLayer is fastnet.FullLayer is layers.full.FullLayer, "the course's names are fastnet's"
assert issubclass(OwnDropout, fastnet.ReluLayer) and OwnDropout.__module__ == "layers.dropout"
assert sweep.mine and layers.gradcheck.mine, "a module of one's own, though fastnet has one of that name"
assert twice([1, 2]).tolist() == [2, 4] and again is twice and np.pi > 3
counter = pickle.loads(pickle.dumps(Counter()))
assert type(counter) is Counter is layers.full.Counter and layers.full.RUN == [1]
assert layers.tools.tool() == old_tool() == "own"
assert {"FullLayer", "OwnDropout", "RATE", "helper", "late"} <= set(layers.__all__) and "Counter" in layers.full.__all__
assert not hasattr(layers, "np") and not hasattr(layers.full, "nothing")
assert layers.get_num_threads() == fastnet.get_num_threads() and fastnet.gradcheck is not layers.gradcheck

assert os.path.samefile(layers.__file__, "layers/__init__.py") and os.path.samefile(layers.dataset.__file__, "layers/dataset.py")
assert layers.full.__file__ == fastnet.full.__file__
for module in (layers, layers.full, layers.dataset):
    assert importlib.reload(module) is module and layers.full.FullLayer is fastnet.FullLayer

def fails(statement, *words):
    try:
        exec(statement)
    except ImportError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(statement)

fails("from layers.softmax import temperature", "temperature is not one of fastnet's names", "softmax.py, which has it, fails", "cStringIO")
fails("from layers.softmax import nothing", "nothing")
fails("from layers import broken", "a_module_that_is_not_there")
fails("from layers.dataset import fer2013", "dataset.py, which has it, fails: SyntaxError")
from layers.softmax import SoftMaxLayer
from layers.dataset import onehot, scale, cifar100
try:
    layers.RATE
except SystemExit as error:
    assert str(error) == "the whole package was run", "only for a name that it makes itself"
else:
    raise AssertionError
"""


def test_names_that_only_the_folder_has(course, tmp_path):
    write, run = course
    write({**FOLDER, "names.py": NAMES})
    stderr = run("-m", "fastnet.dropin", "names.py").stderr
    for line in (
        f"'layers' is fastnet, not {tmp_path / 'layers'}",
        f"layers.dropout is {tmp_path / 'layers' / 'dropout.py'}",
        f"Counter of layers.full comes from {tmp_path / 'layers' / 'full.py'}",
    ):
        assert stderr.count(f"fastnet.dropin: {line}\n") == 1


CHILD = "from layers import FullLayer; import sys; print(FullLayer.__module__, end=' ')"
PROCESSES = f"""
import concurrent.futures, multiprocessing, os, subprocess, sys
import layers
from layers.own import Own

def work(x):
    from layers.full import FullLayer
    return FullLayer.__module__, type(x).__module__

if __name__ == "__main__":
    for method in multiprocessing.get_all_start_methods():
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            assert pool.submit(work, Own()).result() == ("fastnet.full", "layers.own"), method
    sys.stdout.flush()
    code = {CHILD!r}
    subprocess.run([sys.executable, "-c", code], check=True)
    subprocess.run([sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", code], check=True)
    subprocess.run([sys.executable, "-E", "-c", "import layers.full; print(layers.full.__file__, end=' ')"], check=True)
    os.environ["FASTNET_DROPIN"] = "another installation"
    subprocess.run([sys.executable, "-c", "import layers.full, sys; print(layers.full.__file__, 'fastnet' in sys.modules)"], check=True)
"""


def test_processes_that_a_script_starts(course, tmp_path):
    write, run = course
    write({
        "layers/full.py": "FullLayer = None\n", "layers/own.py": "class Own:\n    pass\n", "processes.py": PROCESSES,
        "site/sitecustomize.py": "import os\nos.environ['NEXT'] = os.environ.get('NEXT', '') + '+'\n",
        "next.py": "import layers, os, subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"NEXT\"])'])\n",
    })
    done = run("-m", "fastnet.dropin", "processes.py")
    local = str(tmp_path / "layers" / "full.py")
    assert done.stdout.split() == ["fastnet.full", "fastnet.full", local, local, "False"]
    assert done.stderr.count("'layers' is fastnet") == 1, "said once, not by every process"
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    assert run("-m", "fastnet.dropin", "next.py", PYTHONPATH=path).stdout.strip() == "++", "the installation's own is imported too"


def test_a_script_that_never_imports_layers_is_told(course, tmp_path):
    write, run = course
    write({
        "nets/full.py": "class FullLayer:\n    pass\n", "script.py": "from nets.full import FullLayer\n",
        "test/test_nothing.py": "def test_nothing():\n    pass\n", "quiet.py": "import layers\n",
        "bare/full.py": "FullLayer = 1\n", "bare/script.py": "from full import FullLayer\nassert FullLayer == 1\n",
    })
    note = "did not import 'layers' (its FullLayer is that of {}), so this process did not use fastnet"
    assert f"script.py {note.format(tmp_path / 'nets' / 'full.py')}" in run("-m", "fastnet.dropin", "script.py").stderr
    assert note.format(tmp_path / "bare" / "full.py") in run("-m", "fastnet.dropin", "bare/script.py").stderr, "not the course's folder"
    assert "never" not in run("-m", "fastnet.dropin", "quiet.py").stderr
    assert "no test imported 'layers', so none ran on fastnet" in run("-m", "pytest", "-p", "fastnet.dropin", "test").stdout


def test_a_script_of_python_2_is_told_so_below_the_traceback(course, tmp_path):
    write, run = course
    write({"old.py": "import layers\nprint 'loss'\n", "calls.py": "import layers, old\n", "typo.py": "import layers\nx = (1\ny = 2\n",
           "division.py": "import layers\nlist(range(5 / 2))\n", "wrong.py": "import layers\nraise ValueError('sizes')\n"})
    for script, file in (("old.py", "old.py"), ("calls.py", str(tmp_path / "old.py"))):
        last = run("-m", "fastnet.dropin", script, ok=False).stderr.splitlines()[-1 if script != "old.py" else -2]
        assert "line 2: this is Python 2; translate the file once, with 2to3 or futurize" in last and file in last, last
    lines = run("-m", "fastnet.dropin", "division.py", ok=False).stderr.splitlines()
    assert lines[-1].endswith("division.py, line 2: in Python 3, / gives a float: write // where a whole number is meant")
    assert not any("_command.py" in line or "runpy" in line for line in lines), "the script's own frames alone"
    assert "Python 2" not in run("-m", "fastnet.dropin", "typo.py", ok=False).stderr
    assert run("-m", "fastnet.dropin", "wrong.py", ok=False).stderr.splitlines()[-1] == "ValueError: sizes"


def test_classes_are_asked_for_on_the_command_line(course):
    write, run = course
    write({"script.py": "import os, sys\nimport layers\nprint(os.environ['FASTNET_CLASSES'], sys.argv[1:])\n"})
    done = run("-m", "fastnet.dropin", "--classes", "4,images", "script.py", "--classes", "7")
    assert done.stdout.strip() == "4,images ['--classes', '7']"
    assert "got 'six'" in run("-m", "fastnet.dropin", "--classes", "six", "script.py", ok=False).stderr


def test_the_names_that_unittest_no_longer_has(course):
    write, run = course
    write({
        "layers/full.py": "class FullLayer:\n    def __init__(self, n_i, n_o):\n        self.n_o = n_o\n", "sitecustomize.py": "import unittest\nfor name in ('assertAlmostEquals', 'assertEquals'):\n"
        "    if hasattr(unittest.TestCase, name):\n        delattr(unittest.TestCase, name)\n",  # Python 3.12 on any Python
        "test/test_old.py": "import unittest\nfrom layers.full import FullLayer\nclass TestOld(unittest.TestCase):\n"
        "    def test_old(self):\n        self.assertAlmostEquals(1.0, 1.0 + 1e-9)\n        self.assertEquals(FullLayer(2, 1).n_o, 1)\n",
    })
    path = os.pathsep.join([".", str(ROOT)])
    assert "AttributeError" in run("-m", "unittest", "discover", "test", ok=False, PYTHONPATH=path).stderr
    assert "OK" in run("-m", "fastnet.dropin", "-m", "unittest", "discover", "test", PYTHONPATH=path).stderr


def test_a_source_nested_too_deeply_does_not_stop_the_script(course):
    """What Python's own parser gives up on is left to whoever runs that file."""
    write, run = course
    deep = "x = " + "1+" * 30_000 + "1\n"
    write({"layers/full.py": deep, "script.py": "from layers.full import FullLayer\nprint(FullLayer.__module__)\n"})
    assert run("-m", "fastnet.dropin", "script.py").stdout.strip() == "fastnet.full"
