"""Making and reading data."""
import numpy as np
import pytest

from bench.harness.race import sizes
from fastnet import one_hot
from fastnet.dataset import from_npz, synthetic


@pytest.mark.parametrize("n", sizes(250, 1000, tiny=10))
def test_synthetic(benchmark, n):
    benchmark.extra_info.update(kernel="synthetic", shape=f"{n} images", dtype="float32")
    (x, _), _ = benchmark.pedantic(synthetic, args=(1,), rounds=sizes(5, tiny=1)[0],
                                   kwargs={"n_train": n, "n_test": 10, "dtype": np.float32}, warmup_rounds=1)
    assert x.shape == (n, 3072)


@pytest.mark.parametrize("n", sizes(2500, tiny=10))
def test_one_hot(race, rng, n):
    labels = rng.integers(0, 100, n)
    race({"fastnet": lambda: one_hot(labels, 100), "numpy": lambda: np.eye(100)[labels]}, expected=np.eye(100)[labels],
         kernel="one_hot", shape=f"{n}x100", dtype=np.float64, nbytes=labels.nbytes + n * 100 * 8)


@pytest.mark.parametrize("n", sizes(1000, tiny=10))
def test_npz(race, rng, tmp_path, n):
    """A file of one's own, read, checked and converted, beside reading and converting its training images alone."""
    file = tmp_path / "data.npz"
    x, y = rng.integers(0, 256, (n, 3072), np.uint8), rng.integers(0, 5, n)
    np.savez(file, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    race({"fastnet": lambda: from_npz(file, np.float32)[0][0],
          "numpy": lambda: (np.load(file)["x_train"] / 255 - 0.5).astype(np.float32)},
         expected=x / 255 - 0.5, tolerance=1e-6, kernel="from_npz", shape=f"{n}x3072", dtype=np.float32,
         nbytes=5 * x.nbytes)
