"""The cache of compiled kernels: found again, made anew after an edit, whole after a stampede, done without."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE = """
import numpy as np
from fastnet.kernels.relu import relu_forward
from fastnet.kernels import _jit
y = np.empty(5, {dtype})
relu_forward(y, np.array([-2, -1, 0, 1, 2], {dtype}))
assert (y == [0, 0, 0, 1, 2]).all()
from fastnet.kernels import relu
misses = sum(sum(d.stats.cache_misses.values()) for d in vars(relu).values() if hasattr(d, "stats"))
print(misses, _jit.CACHE)
"""


def start(root=ROOT, dtype="np.float64", **environment):
    env = {**os.environ, "PYTHONPATH": str(root), **environment}
    env = {name: value for name, value in env.items() if value}
    return subprocess.Popen([sys.executable, "-c", USE.format(dtype=dtype)], env=env, text=True, cwd=root,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def outcome(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    misses, folder = out.split(maxsplit=1)
    return int(misses), folder.strip(), err


def test_a_second_process_compiles_nothing(tmp_path):
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] > 0
    assert outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))[0] == 0


def test_an_edit_of_any_kernel_file_is_noticed(tmp_path):
    for folder in ("fastnet", "kernels"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _, before, _ = outcome(start(tmp_path, FASTNET_CACHE_DIR=str(tmp_path / "cache")))
    with open(tmp_path / "kernels" / "sgd.py", "a") as file:
        file.write("\n# an edit in another file\n")
    misses, after, _ = outcome(start(tmp_path, FASTNET_CACHE_DIR=str(tmp_path / "cache")))
    assert misses > 0 and after != before


def test_eight_cold_processes_at_once(tmp_path):
    dtypes = ("np.float32", "np.float64") * 4
    for process in [start(dtype=dtype, FASTNET_CACHE_DIR=str(tmp_path)) for dtype in dtypes]:
        outcome(process)
    for dtype in dtypes[:2]:
        assert outcome(start(dtype=dtype, FASTNET_CACHE_DIR=str(tmp_path)))[0] == 0


@pytest.mark.skipif(os.name == "nt", reason="folders that cannot be made by a path below a file")
def test_no_home_and_no_place_to_write(tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "below")
    used = outcome(start(FASTNET_CACHE_DIR=nowhere, NUMBA_CACHE_DIR="", HOME=nowhere, XDG_CACHE_HOME=nowhere,
                         TMPDIR=str(tmp_path)))
    assert used[1].startswith(str(tmp_path / "fastnet-"))
    blocked = USE.format(dtype="np.float32").replace("import numpy as np", f"""
import numpy as np, tempfile, platformdirs
tempfile.gettempdir = platformdirs.user_cache_dir = lambda *a, **k: {nowhere!r}""", 1)
    result = subprocess.run([sys.executable, "-W", "default", "-c", blocked], text=True, capture_output=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": nowhere, "NUMBA_CACHE_DIR": nowhere})
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[1] == "None"
    assert result.stderr.count("no folder for compiled kernels can be written") == 1


def test_the_command_shows_and_empties_the_cache(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FASTNET_CACHE_DIR": str(tmp_path)}
    outcome(start(FASTNET_CACHE_DIR=str(tmp_path)))

    def command(*arguments):
        return subprocess.run([sys.executable, "-m", "fastnet", "cache", *arguments], env=environment, text=True,
                              capture_output=True, check=True).stdout

    assert str(tmp_path) in command() and "0 compiled functions" not in command()
    assert "Removed the compiled kernels of 1 versions" in command("--clear")
    assert "0 compiled functions" in command()
