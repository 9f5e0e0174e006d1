"""A small sweep that all tests of fastnet.sweep share."""
import itertools
import json
import re

import numpy as np

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot

RATES = [0.02, 0.3, 1e4]  # slow, good, diverges


def network(*widths, dtype=np.float32):
    def build(rng):
        layers = []
        for n_i, n_o in itertools.pairwise(widths):
            layers += [FullLayer(n_i, n_o, dtype, rng), ReluLayer()]
        return Sequential((*layers[:-1], SoftMaxLayer()), loss=CrossEntropyLayer())

    return build


build = network(12, 17, 3)


def data(n=70, seed=0, dtype=np.float32):
    """x, one-hot y, and labels of three overlapping clouds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.normal(size=(n, 12)) + 0.7 * rng.normal(size=(3, 12))[labels]
    return x.astype(dtype), one_hot(labels, 3).astype(dtype), labels


def small(**more):
    """Arguments of lr_sweep: 3 rates, 2 seeds, 4 epochs; with validation and test data."""
    x, y, labels = data()
    arguments = dict(build=build, x=x[:50], y=y[:50], lrs=RATES, epochs=4, batch_size=16, seeds=2,
                     validation=(x[50:60], labels[50:60]), test=(x[60:], labels[60:]), progress=False)
    return arguments | more


NUMBERS = ("losses", "val_losses", "val_accuracies", "accuracies", "test_losses", "status", "diverged_in")


def assert_same(result, expected):
    """The same to the bit, but for times."""
    for name in NUMBERS:
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)


def without_times(path):
    """A journal, line by line, but for times."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
        line.pop("check")
    return lines


def trial_lines(path):
    """The lines of trials, as `without_times` gives them."""
    return [line for line in without_times(path) if "trial" in line]


def case(value):
    """The name of a case: that of another process is the same, which an address in memory is not."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))
