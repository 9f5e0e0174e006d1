"""How kernels are compiled, and what is said where they cannot be."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["full", "kernels.gemm"])
def test_without_the_compiler_there_is_a_clear_error(name, tmp_path):
    result = subprocess.run([sys.executable, "-c", f"import fastnet.{name}"], text=True, capture_output=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1",
                                 "FASTNET_CACHE_DIR": str(tmp_path)})
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("ImportError: fastnet's kernels are compiled by Numba, which "
                                                     "NUMBA_DISABLE_JIT has turned off here: unset it")
