"""The examples of sweeps of other frameworks run, and find a rate that learns."""
import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("name, package", [("sweep_sklearn", "sklearn"), ("sweep_torch", "torch")])
def test_examples(name, package, capsys):
    pytest.importorskip(package)
    result = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](epochs=4, seeds=2)
    assert "<- suggested" in capsys.readouterr().out and result.suggestion().learned
    assert np.nanmax(result.final("test_accuracy")) > 0.7 and (result.status == "stopped").any() and result.cost < 0.8
