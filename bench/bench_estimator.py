"""``fastnet.estimator.MLPClassifier`` beside scikit-learn's own: same parameters, same losses."""
import warnings

import numpy as np
import pytest

from bench.harness import peers
from bench.harness.race import sizes

EPOCHS = 4
# name: number of samples, widths, mini-batch
JOBS = sizes(("digits", 1600, (64, 100, 10), 200), ("mnist", 5000, (784, 100, 10), 200),
             ("course", 2500, (3072, 500, 5), 125), tiny=("tiny", 60, (64, 8, 10), 20))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job[0])
def test_fit(race, job, dtype):
    sklearn = pytest.importorskip("sklearn", minversion="1.6")
    from sklearn import datasets, neural_network

    from fastnet import estimator

    name, n, widths, batch_size = job
    if widths[0] == 64:
        x, labels = datasets.load_digits(return_X_y=True)
        x, labels = (x[:n] / 16).astype(dtype), labels[:n]
    else:
        x, t, _ = peers.workload(n, widths, np.dtype(dtype))
        labels = t.argmax(axis=1)

    def contender(module, x=x):
        classifier = module.MLPClassifier(widths[1:-1], solver="sgd", momentum=0, alpha=0, learning_rate_init=0.1,
                                          batch_size=batch_size, max_iter=EPOCHS, tol=0, random_state=0)

        def run():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that more epochs would have helped
                return np.array(classifier.fit(x, labels).loss_curve_)
        return run

    race({"fastnet": contender(estimator), "scikit-learn": contender(neural_network)},
         expected=contender(neural_network, x.astype(float))(), tolerance=1e-4, kernel="MLPClassifier.fit",
         shape=f"{name}: {n}x{'-'.join(map(str, widths))}, batch {batch_size}, {EPOCHS} epochs", dtype=dtype,
         flops=EPOCHS * peers.plain_flops(n, widths), rounds=5, version=sklearn.__version__)
