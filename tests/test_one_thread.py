"""One model, or one estimator, in the hands of several threads: calls wait for each other, and nobody waits for a fit."""
import copy
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy_loop import clusters, network

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer

BUSY = "another thread is training this model, and only one thread at a time can use a model. Give each thread its own"


class Slow:
    """A user's layer that remembers its input, and whose calls other threads can come between."""

    def forward(self, x):
        self.x = x
        threading.Event().wait(0.001)
        assert self.x is x
        return x

    def backward(self, dy):
        return dy


def models():
    plain = network((6, 7, 3))
    return {"compiled": plain, "user's layer": Sequential((*plain.layers[:1], Slow(), *plain.layers[1:]), CrossEntropyLayer())}


def at_once(calls, workers=8):
    """The results of calls that several threads make, begun together."""
    barrier = threading.Barrier(workers)

    def work(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(workers) as pool:
        return [future.result(timeout=60) for future in [pool.submit(work, call) for call in calls]]


@pytest.mark.parametrize("name", models())
def test_predictions_at_once(name):
    model, (x, t) = models()[name], clusters(400, 6, 3)
    p, evaluation = model.predict_proba(x), model.evaluate(x, t)
    calls = [lambda i=i: [model.predict_proba(x[i:]) for _ in range(5)] for i in range(7)]
    *results, evaluations = at_once([*calls, lambda: [model.evaluate(x, t) for _ in range(5)]])
    for i, found in enumerate(results):
        for probabilities in found:
            np.testing.assert_allclose(probabilities, p[i:], rtol=1e-12)
    assert all(found == evaluation for found in evaluations)


@pytest.mark.parametrize("name", models())
def test_all_short_calls_at_once(name):
    """Each is whole; what they train together is finite, and every step was taken."""
    model, (x, t) = models()[name], clusters(64, 6, 3)

    def work():
        for _ in range(5):
            model.train_on_batch(x[:32], t[:32], 0.01)
            model.test_on_batch(x, t)
            model.forward(x, t)
            model.predict(x)
            model.backward()
            model.update_param(0.001)
            model.score(x, t)

    before = model.layers[0].W.copy()
    at_once([work] * 8)
    assert np.isfinite(model.layers[0].W).all()
    assert not np.array_equal(model.layers[0].W, before)
    assert model.test_on_batch(x, t) == pytest.approx(copy.deepcopy(model).test_on_batch(x, t))


def test_nobody_waits_for_a_fit():
    model, (x, t) = network((6, 7, 3)), clusters(64, 6, 3)
    calls = [lambda: model.predict(x), lambda: model.fit(x, t, 1), lambda: model.partial_fit(x, t, 0.1),
             lambda: model.train_on_batch(x, t, 0.1), lambda: model.forward(x), lambda: model.backward(),
             lambda: model.update_param(0.1), lambda: model.evaluate(x, t), lambda: model.save("nowhere")]
    seen = []

    def callback(report):
        """It waits for other threads, which ask for the model; and uses the model itself."""
        model.predict(x)
        model.test_on_batch(x, t)
        with ThreadPoolExecutor(len(calls)) as pool:
            seen.extend(str(future.exception(timeout=60)) for future in [pool.submit(call) for call in calls])

    losses = model.fit(x, t, 2, 0.1, callbacks=callback)
    assert np.isfinite(losses).all()
    assert len(seen) == 2 * len(calls)
    assert all(BUSY in text for text in seen), seen
    assert seen[0].startswith("Sequential.predict: ")
    assert len(model.predict(x)) == 64


def test_a_failed_call_gives_the_lock_back():
    model, (x, t) = network((6, 7, 3)), clusters(64, 6, 3)
    for call in (lambda: model.fit(x.T, t), lambda: model.predict(x.T), lambda: model.partial_fit(x, t, -1)):
        with pytest.raises(ValueError, match="Sequential"):
            call()

    def interrupt(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, t, callbacks=interrupt)
    assert at_once([lambda: len(model.predict(x))], 1) == [64]


def test_copies_are_free():
    model, (x, t) = network((6, 7, 3)), clusters(64, 6, 3)
    copies = []

    def callback(report):
        copies[:] = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        assert at_once([lambda c=c: len(c.predict(x)) for c in copies], 2) == [64, 64]

    model.fit(x, t, 1, callbacks=callback)
    assert len(copies) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_made_by_fork_while_a_thread_trains():
    model, (x, t) = network((6, 7, 3)), clusters(64, 6, 3)
    inside, forked = threading.Event(), threading.Event()

    def callback(report):
        inside.set()
        forked.wait(60)

    thread = threading.Thread(target=lambda: model.fit(x, t, 1, callbacks=callback))
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(model.predict(x)) == 64 else 1)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_one_estimator_in_several_threads():
    pytest.importorskip("sklearn", minversion="1.6")
    from fastnet.estimator import MLPClassifier

    x, t = clusters(300, 6, 3)
    y = t.argmax(axis=1)
    classifier = MLPClassifier((7,), solver="sgd", random_state=0, max_iter=5, tol=0, learning_rate_init=0.1)
    with pytest.warns(Warning, match="max_iter"):
        classifier.fit(x, y)
    p = classifier.predict_proba(x)
    for found in at_once([lambda: classifier.predict_proba(x)] * 8):
        np.testing.assert_allclose(found, p, rtol=1e-12)
    at_once([lambda: [classifier.partial_fit(x, y) for _ in range(3)]], 1)
    errors = []

    def press(self, *given, **options):
        with ThreadPoolExecutor(2) as pool:
            errors.extend(pool.submit(call, x, *rest).exception(timeout=60)
                          for call, rest in ((classifier.predict, ()), (classifier.partial_fit, (y,))))
        return original(self, *given, **options)

    original = MLPClassifier._train
    MLPClassifier._train = press
    try:
        classifier.partial_fit(x, y)
    finally:
        MLPClassifier._train = original
    assert [str(error).partition(":")[0] for error in errors] == ["MLPClassifier.predict_proba", "MLPClassifier.partial_fit"]


def test_layers_of_two_models_at_once():
    """Models of their own never wait for each other."""
    x, t = clusters(64, 6, 3)
    mine = [Sequential((FullLayer(6, 5, rng=i), ReluLayer(), FullLayer(5, 3, rng=9), SoftMaxLayer()), CrossEntropyLayer())
            for i in range(8)]
    alone = [copy.deepcopy(model).fit(x, t, 5, 0.1, 8) for model in mine]
    for losses, right in zip(at_once([lambda m=m: m.fit(x, t, 5, 0.1, 8) for m in mine]), alone, strict=True):
        assert np.array_equal(losses, right)
