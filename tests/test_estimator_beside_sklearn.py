"""Our MLPClassifier beside scikit-learn's, with random parameters on random data.

What is drawn: 3 to 6 classes, 12 to 120 samples, of labels of any kind; no, one, two or three hidden layers of 1 to 12 units;
each activation, solver and schedule that both have; batches from 1 to more than all samples; shuffled or not; momentum, an L2
penalty and early stopping; `fit`, then some `partial_fit` on parts of the data, or a second `fit`; weights written to. The
random stacks of `stacks` are drawn as well, as far as scikit-learn has such networks: the data, the widths of the fully
connected layers, the first activation, and how they are trained.

Left out is what differs by design, see the notes of the class: a penalty or a loss with a smaller last batch, velocities under
a changing rate. Of Adam, whose epsilon is added elsewhere, losses and probabilities are compared, more loosely.
"""
import warnings

import numpy as np
import pytest
import stacks

pytest.importorskip("sklearn", minversion="1.6")

import sklearn
from sklearn import neural_network

from fastnet.estimator import MLPClassifier

CASES = max(60, stacks.CASES // 16)
PARTS = 4
SCORES_TEXTS = tuple(map(int, sklearn.__version__.split(".")[:2])) > (1, 6)  # 1.6's early stopping fails on labels that are texts


class Case:
    """The parameters, the data and what is done with them, of a seed."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        self.classes = int(rng.integers(3, 7))
        n, features = int(rng.integers(4 * self.classes, 121)), int(rng.integers(1, 9))
        labels = np.concatenate([np.arange(self.classes).repeat(2), rng.integers(0, self.classes, n - 2 * self.classes)])
        names = (np.arange(self.classes), 3 * np.arange(self.classes) - 4, np.array([f"class {k}" for k in range(self.classes)]))
        self.y = names[rng.integers(3)][rng.permutation(labels)]
        self.x = rng.standard_normal((n, features)) + 0.5 * rng.standard_normal((self.classes, features))[labels]
        self.options = {
            "hidden_layer_sizes": tuple(int(width) for width in rng.integers(1, 13, rng.integers(0, 4))),
            "activation": self.one_of("identity", "tanh", "relu", "logistic"), "solver": self.one_of("sgd", "sgd", "adam"),
            "learning_rate": self.one_of("constant", "invscaling", "adaptive"), "power_t": float(rng.uniform(0, 0.6)),
            "learning_rate_init": float(10 ** rng.uniform(-4, -1.5)), "batch_size": self.one_of("auto", 1, 7, n // 2, n, 2 * n),
            "momentum": float(self.one_of(0, 0.5, 0.9)), "nesterovs_momentum": bool(rng.integers(2)), "shuffle": bool(rng.integers(2)),
            "alpha": float(self.one_of(0, 1e-4, 0.1)), "max_iter": int(rng.integers(1, 12)), "random_state": seed,
            "tol": float(self.one_of(0, 1e-3, 0.1)), "n_iter_no_change": int(rng.integers(1, 4)),
            "early_stopping": bool(rng.random() < 0.2), "warm_start": bool(rng.random() < 0.1),
        }
        if self.options["early_stopping"] and self.y.dtype.kind == "U" and not SCORES_TEXTS:
            self.y = np.unique(self.y, return_inverse=True)[1]
        self.compare_what_is_alike()

    @classmethod
    def of_stack(cls, seed):
        """What the random stack of a seed becomes for scikit-learn."""
        stack, case = stacks.case(seed), cls.__new__(cls)
        case.rng, case.classes, o = np.random.default_rng(seed), max(3, stack.t.shape[1]), stack.options
        times = -(-4 * case.classes // len(stack.x))
        case.x = np.tile(stack.x.reshape(len(stack.x), -1).astype(float), (times, 1))
        case.y = (np.argmax(stack.t, axis=1).repeat(times) + np.arange(len(case.x))) % case.classes
        names = {"ReluLayer": "relu", "TanhLayer": "tanh", "SigmoidLayer": "logistic"}
        kinds = [names[kind] for kind in (type(layer).__name__ for layer in stack.model.layers) if kind in names]
        widths = [layer.n_o for layer in stack.model.layers if type(layer).__name__ == "FullLayer"]
        case.options = {
            "hidden_layer_sizes": tuple(widths[:3]), "activation": (kinds or ["identity"])[0],
            "solver": "adam" if o.get("optimizer") == "adam" else "sgd", "learning_rate": "constant", "power_t": 0.5,
            "learning_rate_init": float(np.ravel(o["lr"])[0]), "batch_size": o["batch_size"], "momentum": o.get("momentum", 0.0),
            "nesterovs_momentum": o.get("nesterov", False), "shuffle": o.get("shuffle", False),
            "alpha": o.get("weight_decay", 0.0), "max_iter": o["epochs"], "random_state": seed, "tol": 0.0,
            "n_iter_no_change": 50, "early_stopping": False, "warm_start": False}
        case.compare_what_is_alike()
        return case

    def compare_what_is_alike(self):
        """Leave out what differs by design."""
        o, self.by_loss, n = self.options, True, len(self.x)
        if o["learning_rate"] != "constant" and o["solver"] == "sgd":
            o["momentum"] = 0.0
        if o["early_stopping"]:
            o["validation_fraction"] = 0.3
        if o["warm_start"] and o["solver"] == "sgd":
            o["momentum"] = 0.0
        if not self.whole_batches(n - int(np.ceil(0.3 * n)) if o["early_stopping"] else n):
            o["alpha"] = 0.0
            self.by_loss = False
        self.adam = o["solver"] == "adam"
        if self.adam:  # tiny gradients feel where its epsilon is added: those of a ReLU that is nearly never on, above all
            o["activation"] = self.one_of("identity", "tanh")
            o["batch_size"] = max(7, o["batch_size"]) if o["batch_size"] != "auto" else "auto"
            o["alpha"] = 0.0
        if (o["alpha"] or self.adam or not self.by_loss) and not o["early_stopping"]:
            o["tol"], o["n_iter_no_change"] = 0.0, 50  # losses that are not equal do not decide when to stop

    def one_of(self, *values):
        return values[self.rng.integers(len(values))]

    def whole_batches(self, n):
        size = self.options["batch_size"]
        return n % (min(200, n) if size == "auto" else min(size, n)) == 0


def close(ours, theirs, adam, what):
    tolerance = 1e-2 if adam else 1e-8
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=what)


def compare(case, ours, theirs, n):
    for name in () if case.adam else ("coefs_", "intercepts_"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            close(mine, other, case.adam, name)
    close(ours.predict_proba(case.x), theirs.predict_proba(case.x), case.adam, "predict_proba")
    for name in ("t_", "n_iter_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert np.array_equal(ours.classes_, theirs.classes_)
    assert len(ours.loss_curve_) == len(theirs.loss_curve_)
    if n and not case.options["alpha"] and case.whole_batches(n):
        close(ours.loss_curve_, theirs.loss_curve_, case.adam, "loss_curve_")
        close(ours.loss_, theirs.loss_, case.adam, "loss_")
        if not case.options["early_stopping"]:
            close(ours.best_loss_, theirs.best_loss_, case.adam, "best_loss_")
    if case.options["early_stopping"] and not case.adam:
        close(ours.validation_scores_, theirs.validation_scores_, False, "validation_scores_")
        close(ours.best_validation_score_, theirs.best_validation_score_, False, "best_validation_score_")


def run(case, seed):
    x, y, options = case.x, case.y, case.options
    both = MLPClassifier(**options), neural_network.MLPClassifier(**options)
    epochs_decide = (options["tol"] > 0 or options["early_stopping"]) and case.adam  # a difference of 1e-4 may stop one
    if epochs_decide:
        both = tuple(c.set_params(tol=0, early_stopping=False, n_iter_no_change=50) for c in both)
        options.update(both[0].get_params())
    n = len(x) - int(np.ceil(0.3 * len(x))) if options["early_stopping"] else len(x)
    partial = not options["early_stopping"] and case.rng.random() < 0.5
    if partial:  # scikit-learn's wants all classes in each part after a warm start
        both = tuple(c.set_params(warm_start=False) for c in both)
    for c in both:
        if partial and seed % 2:
            c.partial_fit(x, y, classes=np.unique(y))
        else:
            c.fit(x, y)
    compare(case, *both, n)
    if case.rng.random() < 0.3:
        W = case.rng.standard_normal(both[0].coefs_[0].shape)
        for c in both:
            c.coefs_[0] = W.copy()
            c.intercepts_[-1][:] = 0.25
    if partial:
        case.options["alpha"] = both[0].set_params(alpha=0).alpha
        both[1].set_params(alpha=0)
        for part in np.array_split(case.rng.permutation(len(x)), int(case.rng.integers(1, 4))):
            for c in both:
                c.partial_fit(x[part], y[part])
        compare(case, *both, 0)
    elif not case.adam or not options["warm_start"]:
        for c in both:
            c.fit(x, y)
        compare(case, *both, n)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("drawn", [Case, Case.of_stack], ids=["parameters", "stacks"])
def test_random_parameters_and_data(drawn, part):
    for seed in range(part, CASES, PARTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                run(drawn(seed), seed)
            except Exception as error:
                raise AssertionError(f"{drawn.__name__}({seed}).options: {drawn(seed).options}") from error


def test_what_is_drawn():
    of_stacks = [Case.of_stack(seed).options for seed in range(60)]
    for name in ("activation", "solver", "shuffle", "momentum", "hidden_layer_sizes", "nesterovs_momentum"):
        assert len({options[name] for options in of_stacks}) >= 2, name
    cases = [Case(seed) for seed in range(200)]
    for name in ("activation", "solver", "learning_rate", "shuffle", "early_stopping", "warm_start", "momentum", "alpha"):
        assert len({case.options[name] for case in cases}) >= 2, name
    assert {len(case.options["hidden_layer_sizes"]) for case in cases} == {0, 1, 2, 3}
    assert sum(case.whole_batches(len(case.x)) for case in cases) > 60
