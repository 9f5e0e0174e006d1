"""Random stacks of all exported layers train, predict and are saved as a plain NumPy network does; `stacks` draws them.

A failure names the seed: ``stacks.case(seed)`` makes that case again. FASTNET_CASES=100000 runs as many, for a night.
"""
import contextlib
import copy
import functools
import warnings

import numpy as np
import pytest
import stacks

import fastnet
from fastnet.training.eligibility import unsupported_reason

PARTS = 10
TOLERANCE = {4: 2e-3, 8: 1e-7}


@contextlib.contextmanager
def quiet():
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Drift:
    """How far rounding errors alone take a case: by a random draw of them in all that layers compute, ten times.

    Adam and RMSprop divide a gradient by its own size: one that would be 0, such as that of a bias which batch normalisation
    removes again, consists of rounding errors, which they make as large as the others. So do several batch normalisations in
    a row, and single samples at a large rate. It is computed when a case is not right without it.
    """

    def __init__(self, case, network, options):
        self.case, self.network, self.options = case, network, options

    @functools.cached_property
    def drawn(self):
        """Networks trained with rounding errors."""
        others = []
        for seed in range(10):
            others.append(stacks.Network(self.case.model, np.random.default_rng(seed), self.case.dtype))
            others[-1].fit(self.case.x.astype(float), self.case.t.astype(float), **self.options)
        return others

    def farthest(self, value):
        """The largest differences of a value of networks, an array."""
        expected = value(self.network)
        return np.fmax.reduce([np.abs(value(other) - expected) for other in self.drawn] + [np.zeros_like(expected)])

    @functools.cached_property
    def losses(self):
        return self.farthest(lambda network: np.array(network.losses))

    @functools.cached_property
    def batch_losses(self):
        return self.farthest(lambda network: np.array(network.batch_losses))

    @functools.cached_property
    def parameters(self):
        return [self.farthest(lambda network: named(network)[place]).max(initial=0)  # noqa: B023
                for place in range(len(named(self.network)))]

    @functools.cached_property
    def y(self):
        return self.farthest(lambda network: network.output(self.case.x.astype(float), training=False)).max(initial=0)

    def loss_of(self, network):
        """The loss of what a trained network predicts; in the dtype of the case, a probability of 1e-50 is 0."""
        y = network.output(self.case.x.astype(float), training=False)
        return network.loss.forward(y.astype(self.case.dtype).astype(float), self.case.t.astype(float))

    @functools.cached_property
    def loss(self):
        return float(self.farthest(lambda network: np.array(self.loss_of(network))))


def named(network):
    """All learned arrays of a reference, in order."""
    return [value for layer in network.layers for value, _ in (layer.learned() if network.steps else {}).values()]


def close(found, expected, dtype, drift=0.0):
    """Whether arrays agree to rounding, amplified by some steps of training; nothing is asked of numbers after a NaN."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if not np.isfinite(expected).all() or np.abs(expected).max(initial=0) > 1e6:
        return True
    size = max(1.0, np.abs(expected).max(initial=0))
    return bool(np.all(np.abs(found - expected) <= TOLERANCE[dtype.itemsize] * size + 20 * drift))


def in_range(losses):
    """Whether a training is still one: far away, float32 overflows before the reference does."""
    return bool(np.isfinite(losses).all() and np.abs(losses).max(initial=0) <= 1e6)


def same_losses(found, expected, dtype, drift=None, samples=0):
    """Up to the first that is not a number or far away; not a number in both from there on.

    Where one of so many samples may have a probability that is 0 in the dtype, the loss may be infinite, and NaN after that.
    """
    for place, (one, other) in enumerate(zip(found, expected, strict=False)):
        if not np.isfinite(one) and samples * other > -np.log(np.finfo(dtype).smallest_subnormal):
            return True
        if not np.isfinite(other) or abs(other) > 1e6:
            return not np.isfinite(one) or abs(one) > 1e3
        if not close(one, other, dtype) and (drift is None or not close(one, other, dtype, drift()[place])):
            return False
    return len(found) == len(expected)


def same_parameters(model, network, dtype, drift):
    pairs = [(getattr(layer, name), value) for layer, reference in zip(model.layers, network.layers, strict=True)
             for name, (value, _) in (reference.learned() if network.steps else {}).items()]
    return all(close(np.reshape(a, np.shape(b)), b, dtype) or close(np.reshape(a, np.shape(b)), b, dtype, drift.parameters[place])
               for place, (a, b) in enumerate(pairs))


def engines(model, case):
    """The engines that may train it: the compiled ones must, where nothing keeps them from it."""
    with quiet():
        plan = copy.deepcopy(model).explain(case.x, case.t, case.options["epochs"], case.options["batch_size"],
                                            **{k: v for k, v in case.options.items() if k in (
                                                "momentum", "weight_decay", "optimizer", "shuffle", "nesterov")})
    return [e.name for e in plan.estimates if e.refused is None]


def faults(seed):
    """What is wrong in the case of a seed."""
    case = stacks.case(seed)
    x, t = case.x.astype(float), case.t.astype(float)
    with quiet():
        network = stacks.Network(case.model)
        expected = network.fit(x, t, **case.options)
        drift = Drift(case, network, case.options)
        for engine in engines(case.model, case):
            model = copy.deepcopy(case.model)
            losses = model.fit(case.x, case.t, engine=engine, on_divergence="ignore", **case.options)
            if not same_losses(losses, expected, case.dtype, lambda: drift.losses, len(x)):
                yield f"{engine}: losses {losses}, not {expected}"
            elif not in_range(expected) or not in_range(losses):
                continue
            elif not same_parameters(model, network, case.dtype, drift):
                yield f"{engine}: other parameters"
            else:
                yield from wrong_outputs(engine, model, case, network, drift)
        yield from wrong_batches(case, x, t)


def wrong_batches(case, x, t):
    """What train_on_batch does beside the reference, batch after batch."""
    options = {name: case.options[name] for name in ("epochs", "lr", "batch_size")}
    model, network = copy.deepcopy(case.model), stacks.Network(case.model)
    network.fit(x, t, **options)
    drift = Drift(case, network, options)
    losses = [model.train_on_batch(case.x[rows], case.t[rows], rate) for rate, rows in network.batches]
    if not same_losses(losses, network.batch_losses, case.dtype, lambda: drift.batch_losses, len(x)):
        yield f"train_on_batch: losses {losses}, not {network.batch_losses}"
    elif in_range(network.batch_losses) and in_range(losses) and not same_parameters(model, network, case.dtype, drift):
        yield "train_on_batch: other parameters"


def wrong_outputs(engine, model, case, network, drift):
    """What predict, predict_proba and evaluate of a trained model say beside its reference."""
    y, found = network.output(case.x.astype(float), training=False), model.eval().forward(case.x)
    if not np.isfinite(y).all():
        return
    far = 0.0 if close(found, y, case.dtype) else drift.y
    if not close(found, y, case.dtype, far):
        yield f"{engine}: other outputs"
    ordered, rounding = np.sort(y, axis=1), TOLERANCE[case.dtype.itemsize] * max(1.0, np.abs(y).max(initial=0)) + 20 * far
    clear = ordered[:, -1] - ordered[:, -2] > 2 * rounding if y.shape[1] > 1 else np.ones(len(y), bool)
    if not np.array_equal(model.predict(case.x)[clear], y.argmax(axis=1)[clear]):
        yield f"{engine}: other predictions"
    loss, evaluated = drift.loss_of(network), model.evaluate(case.x, case.t).loss
    if (np.isfinite(loss) and not close(evaluated, loss, case.dtype) and drift.y < 1e-4
            and not close(evaluated, loss, case.dtype, drift.loss)):
        yield f"{engine}: evaluate finds another loss"


@pytest.mark.parametrize("part", range(PARTS))
def test_random_stacks_train_as_a_plain_network(part):
    wrong = [f"stacks.case({seed}): {fault}\n    {stacks.case(seed)}" for seed in range(part, stacks.CASES, PARTS)
             for fault in faults(seed)]
    assert not wrong, "\n".join(wrong[:20])


def test_what_is_drawn():
    """All exported layers and losses, at the beginning, in the middle and at the end; most cases can be compiled."""
    first, last, seen, losses, compiled = set(), set(), set(), set(), 0
    for seed in range(400):
        case = stacks.case(seed)
        kinds = [type(layer) for layer in case.model.layers]
        first.add(kinds[0])
        last.add(kinds[-1])
        seen.update(kinds)
        losses.add(type(case.model.loss))
        compiled += unsupported_reason(case.model, case.x.shape[1:]) is None
    assert seen == first == set(stacks.LAYERS)
    assert last >= {kind for kind in stacks.LAYERS if not hasattr(kind, "takes_images_only")} - {
        fastnet.ConvLayer, fastnet.MaxPoolLayer, fastnet.AveragePoolLayer}
    assert losses == set(stacks.LOSSES)
    assert compiled > 160


def test_sweeps_and_files_of_random_stacks(tmp_path):
    """A sweep's trials have the losses of the plain network; a saved and loaded model gives the same bits."""
    done = 0
    for seed in range(max(40, stacks.CASES // 25)):
        case = stacks.case(seed)
        path = tmp_path / "model.safetensors"
        case.model.save(path)
        with quiet():
            try:
                loaded, given = fastnet.load(path).predict_proba(case.x), case.model.predict_proba(case.x)
            except ValueError:
                continue
            assert np.array_equal(loaded, given, equal_nan=True), case
            options = {k: v for k, v in case.options.items() if k in ("epochs", "batch_size", "momentum", "weight_decay",
                                                                           "nesterov")}
            network = stacks.Network(case.model)
            if not any(reference.W.size for reference in network.layers if hasattr(reference, "W")):
                continue
            expected = network.fit(case.x.astype(float), case.t.astype(float), lr=0.02, **options)
            if not np.isfinite(expected).all():
                continue
            result = fastnet.sweep.lr_sweep(lambda seed: copy.deepcopy(case.model), case.x, case.t, [0.02, 0.04],  # noqa: B023
                                            seeds=1, diverged_above=1e9, **options)
            assert same_losses(result.losses[0, 0], expected, case.dtype), case
            done += 1
    assert done > 10
