"""Which learning rate for scikit-learn's MLPClassifier? `fastnet.sweep` runs any training function.

    pip install scikit-learn
    python examples/sweep_sklearn.py
"""
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from fastnet.sweep import sweep

X, Y = load_digits(return_X_y=True)
X = X / 16 - 0.5
ORDER = np.random.default_rng(0).permutation(len(X))
TRAIN, HELD_OUT, TEST = ORDER[:800], ORDER[800:1200], ORDER[1200:]


def train(trial):
    """Yield the numbers of each epoch, and at the end the test accuracy, which is only reported."""
    model = MLPClassifier((32,), solver="sgd", learning_rate_init=trial.lr, momentum=trial.params["momentum"],
                          random_state=trial.seed)
    for _ in range(trial.epochs):
        try:
            model.partial_fit(X[TRAIN], Y[TRAIN], classes=range(10))
        except ValueError:  # scikit-learn raises it when weights are not finite
            yield {"loss": np.nan, "val_accuracy": np.nan}
            return
        # one value per sample, so that errors take the samples into account
        yield {"loss": model.loss_, "val_accuracy": model.predict(X[HELD_OUT]) == Y[HELD_OUT]}
    yield {"test_accuracy": model.score(X[TEST], Y[TEST])}


def main(epochs=20, seeds=3):
    """Print the table, and return the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of rates that diverge
        result = sweep(train, lrs="1e-3:10:log9", epochs=epochs, seeds=seeds, params={"momentum": [0.0, 0.9]},
                       metric=("val_accuracy", "max"), search="halving")
    print(result)
    return result


if __name__ == "__main__":
    main()
