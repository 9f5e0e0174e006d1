"""Layers that a student's folder has beside the course's: the drop-in and `fastnet check` run them as they are.

fastnet has modules and classes of the same names (dropout, batch_norm, sigmoid, average_pool), with other arguments.
"""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_check import SCRIPTS, layers, rows_of  # noqa: F401 - a fixture

import fastnet
from fastnet.check._command import examine

ROOT = Path(fastnet.__file__).parent.parent

OWN = {
    "dropout.py": """
import numpy as np

class DropoutLayer(object):
    def __init__(self, keep=0.5):
        self.keep, self.training, self.calls = keep, True, 0

    def forward(self, x):
        if not self.training:
            self.mask = np.ones_like(x)
        else:
            self.calls += 1
            self.mask = (np.arange(x.size).reshape(x.shape) % 5 > 0) / self.keep
        return x * self.mask

    def backward(self, y_grad):
        return y_grad * self.mask

    def update_param(self, lr):
        pass
""",
    "batchnorm.py": """
import numpy as np

class BatchNormLayer(object):
    def __init__(self, width):
        self.gamma, self.beta, self.mean, self.training = np.ones((1, width)), np.zeros((1, width)), 0.0, True

    def forward(self, x):
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(axis=0)
        self.x = x
        return self.gamma * (x - self.mean) + self.beta

    def backward(self, y_grad):
        self.gamma_step, self.beta_step = np.sum(y_grad * (self.x - self.mean), axis=0), y_grad.sum(axis=0)
        return y_grad * self.gamma

    def update_param(self, lr):
        self.gamma = self.gamma - lr * self.gamma_step
        self.beta = self.beta - lr * self.beta_step
""",
    "sigmoid.py": """
import numpy as np

class SigmoidLayer(object):
    def forward(self, x):
        self.y = 1 / (1 + np.exp(-2 * x))
        return self.y

    def backward(self, y_grad):
        return 2 * y_grad * self.y * (1 - self.y)

    def update_param(self, lr):
        pass
""",
}
COURSE = {f"{stem}.py": f"class {name}: pass\n" for stem, name in (
    ("full", "FullLayer"), ("softmax", "SoftMaxLayer"), ("cross_entropy", "CrossEntropyLayer"))}

SCRIPT = """
import numpy as np
import fastnet
%s
assert FullLayer is fastnet.FullLayer and CrossEntropyLayer is fastnet.CrossEntropyLayer
assert DropoutLayer is not fastnet.DropoutLayer and SigmoidLayer is not fastnet.SigmoidLayer
assert {k.__module__ for k in (DropoutLayer, BatchNormLayer, SigmoidLayer)} == {"layers.dropout", "layers.batchnorm", "layers.sigmoid"}
rng = np.random.RandomState(0)
x, y = rng.randn(40, 6), np.eye(3)[np.arange(40) %% 3]

def network():
    np.random.seed(1)
    return fastnet.Sequential([FullLayer(6, 8), BatchNormLayer(8), SigmoidLayer(), DropoutLayer(keep=0.8), FullLayer(8, 3),
                               SoftMaxLayer()], CrossEntropyLayer())

model, other = network(), network()
losses = model.fit(x, y, epochs=3, lr=0.2, batch_size=16)
expected = []
for epoch in range(3):
    of_batches = []
    for first in range(0, 40, 16):
        of_batches.append(other.forward(x[first:first + 16], y[first:first + 16]))
        other.backward()
        other.update_param(0.2)
    expected.append(np.mean(of_batches))
assert np.allclose(losses, expected, rtol=1e-12), (losses, expected)
assert model.layers[3].calls == 9 and np.allclose(model.layers[1].gamma, other.layers[1].gamma) and model.layers[1].gamma.std() > 0
p = model.predict_proba(x)
assert model.layers[3].calls == 9, "prediction drops nothing"
assert np.allclose(p, other.eval().forward(x))
"""
IMPORTS = {
    "the package": ("from .dropout import DropoutLayer\nfrom .batchnorm import BatchNormLayer\nfrom .sigmoid import SigmoidLayer\n"
                    "from .full import FullLayer\n",
                    "from layers import FullLayer, SoftMaxLayer, CrossEntropyLayer, DropoutLayer, BatchNormLayer, SigmoidLayer"),
    "modules": ("", "from layers.full import FullLayer\nfrom layers.softmax import SoftMaxLayer\nfrom layers.cross_entropy import "
                "CrossEntropyLayer\nfrom layers.dropout import DropoutLayer\nfrom layers.batchnorm import BatchNormLayer\n"
                "from layers.sigmoid import SigmoidLayer"),
    "stars": ("from .dropout import *\nfrom .batchnorm import *\nfrom .sigmoid import *\n", "from layers import *"),
}


@pytest.mark.parametrize("way", IMPORTS)
def test_the_drop_in_keeps_them(way, tmp_path):
    package, imports = IMPORTS[way]
    (tmp_path / "layers").mkdir()
    for name, text in ({"__init__.py": package} | COURSE | OWN).items():
        (tmp_path / "layers" / name).write_text(text)
    (tmp_path / "run.py").write_text(SCRIPT % imports)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FASTNET_")}
    done = subprocess.run([sys.executable, "-m", "fastnet.dropin", "run.py"], cwd=tmp_path, capture_output=True, text=True,
                          env={**clean, "PYTHONPATH": str(ROOT)}, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_leaves_them_alone(layers):  # noqa: F811
    """Also where the folder's own Sequential imports them, and where they are wrong."""
    sequential = (SCRIPTS / "layers" / "sequential.py").read_text()
    mine = "from .dropout import DropoutLayer\nfrom .batchnorm import BatchNormLayer as Norm\n"
    mine += "assert DropoutLayer(keep=0.5).keep == 0.5 and Norm(width=3).training\n"
    broken = {"average_pool.py": "class AveragePoolLayer:\n    def forward(self, x):\n        return 17\n"}
    right, folder = layers(name="right"), layers(
        OWN | broken | {"sequential.py": mine + sequential, "dropout.py": OWN["dropout.py"] + "Dropout = DropoutLayer\n"}, name="mine")
    expected, report = rows_of(examine(right)), rows_of(examine(folder))
    assert {stem: row["verdict"] for stem, row in report.items()} == {stem: row["verdict"] for stem, row in expected.items()}
