"""lr_sweep: its trials are single fits, to the bit; divergence; what it refuses; Ctrl-C and failures."""
import copy
import signal
import threading
import warnings

import numpy as np
import pytest
from fastnet.kernels.runtime.pool import get_num_threads, set_num_threads

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.sweep import SweepError, lr_sweep
from fastnet.sweep.run import shared as shared_module
from tests.sweeps import RATES, assert_same, build, case, data, network, small


@pytest.fixture(scope="module")
def result():
    return lr_sweep(**small())


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"momentum": 0.9}, {"weight_decay": 0.5}], ids=str)
@pytest.mark.parametrize("engine", ["layers", "fused", "gram", "windows"])
def test_trials_are_single_fits_to_the_bit(engine, options):
    arguments = small(engine=engine, lrs=[0.02, 0.3], **options)
    result = lr_sweep(**arguments)
    x, y, validation, (x_test, y_test) = (arguments[k] for k in ("x", "y", "validation", "test"))
    for i, lr in enumerate(result.lrs):
        for j, seed in enumerate(result.seeds):
            model = build(np.random.default_rng(seed))
            fit_options = {**options, **({"rng": seed} if "shuffle" in options else {})}
            losses = model.fit(x, y, 4, lr, 16, engine=engine, validation=validation, **fit_options)
            assert model.history.engine == engine
            np.testing.assert_array_equal(result.losses[i, j], losses)
            np.testing.assert_array_equal(result.val_losses[i, j], model.history.val_losses)
            np.testing.assert_array_equal(result.val_accuracies[i, j], model.history.val_accuracies)
            test = model.evaluate(x_test, y_test)
            np.testing.assert_allclose(result.test_losses[i, j], test.loss, rtol=1e-5)
            assert result.accuracies[i, j] == test.accuracy


@pytest.mark.parametrize("batch_size, n, epochs", [(1, 5, 2), (7, 50, 1), (50, 50, 3), (64, 50, 2), (16, 33, 2)])
def test_single_fits_to_the_bit_at_awkward_sizes(batch_size, n, epochs):
    x, y, _ = data()
    result = lr_sweep(build, x[:n], y[:n], [0.1], epochs, batch_size, seeds=[3], engine="gram")
    losses = build(np.random.default_rng(3)).fit(x[:n], y[:n], epochs, 0.1, batch_size, engine="gram")
    np.testing.assert_array_equal(result.losses[0, 0], losses)


def test_strong_decay_rescales_where_a_fit_does():
    arguments = small(engine="gram", lrs=[0.3], seeds=1, weight_decay=1.5, epochs=12, validation=None, test=None)
    losses = build(np.random.default_rng(0)).fit(arguments["x"], arguments["y"], 12, 0.3, 16, engine="gram", weight_decay=1.5)
    np.testing.assert_array_equal(lr_sweep(**arguments).losses[0, 0], losses)


def test_shapes_and_status(result):
    assert result.losses.shape == result.val_losses.shape == result.val_accuracies.shape == (3, 2, 4)
    assert result.accuracies.shape == result.test_losses.shape == result.seconds.shape == (3, 2)
    assert (result.status == [["done"] * 2, ["done"] * 2, ["diverged"] * 2]).all()
    assert result.finished == 6 and (result.seconds > 0).all()
    assert set(result.engines.values()) <= {"layers", "fused", "gram", "windows"}


def test_a_diverged_trial_stops_at_once(result):
    assert (result.diverged_in[2] == 1).all() and (result.diverged_in[:2] == 0).all()
    assert np.isnan(result.losses[2, :, 1:]).all()
    assert np.isfinite(result.accuracies[2]).all()  # evaluated as it is


def test_diverged_by_a_finite_loss():
    jumps = lr_sweep(**small(lrs=[0.3, 3.0], diverged_above=1e-3))
    assert (jumps.status == "diverged").all() and np.isfinite(jumps.losses[:, :, 0]).all()


def test_results_do_not_depend_on_threads(result):
    before = get_num_threads()
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            assert_same(lr_sweep(**small()), result)
    finally:
        set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
def test_one_gram_matrix_and_first_outputs_once_a_seed(monkeypatch):
    made = {"gram_matrix": 0, "first_outputs": 0}

    def counted(name, original):
        def function(*arguments):
            made[name] += 1
            return original(*arguments)
        return function

    for name in made:
        monkeypatch.setattr(shared_module, name, counted(name, getattr(shared_module, name)))
    lr_sweep(**small(engine="gram", lrs="0.01:0.1:log5", seeds=3))
    assert made == {"gram_matrix": 1, "first_outputs": 2 + 3 * 3}  # X' X.T twice; X W.T and two X' W.T a seed


def test_several_builders_share_and_equal_single_ones():
    both = lr_sweep(**small(build={"narrow": network(12, 9, 3), "deep": network(12, 20, 8, 3)}, engine="gram"))
    assert both.losses.shape == (2, 3, 2, 4) and both.names == ("narrow", "deep")
    for i, widths in enumerate([(12, 9, 3), (12, 20, 8, 3)]):
        single = lr_sweep(**small(build=network(*widths), engine="gram"))
        np.testing.assert_array_equal(both.losses[i], single.losses)
        np.testing.assert_array_equal(both.accuracies[i], single.accuracies)


def test_a_builder_may_ignore_its_generator():
    def careless(rng):
        return Sequential((FullLayer(12, 3), SoftMaxLayer()), loss=CrossEntropyLayer())

    np.random.seed(5)
    expected = np.random.get_state()[1].copy()
    first, second = lr_sweep(**small(build=careless)), lr_sweep(**small(build=careless))
    assert_same(first, second)
    assert not np.array_equal(first.losses[0, 0], first.losses[0, 1])  # the seeds differ
    np.testing.assert_array_equal(np.random.get_state()[1], expected)


def test_layers_of_a_user_train_layer_by_layer():
    class Scale:
        def forward(self, x):
            return 0.5 * x

        def backward(self, y_grad):
            return 0.5 * y_grad

    def with_scale(rng):
        return Sequential((Scale(), FullLayer(12, 3, np.float32, rng), SoftMaxLayer()), loss=CrossEntropyLayer())

    result = lr_sweep(**small(build=with_scale, lrs=[0.1, 0.3]))
    x, y = small()["x"], small()["y"]
    assert result.engines == {"": "layers"}
    losses = with_scale(np.random.default_rng(1)).fit(x, y, 4, 0.3, 16, engine="layers")
    np.testing.assert_array_equal(result.losses[1, 1], losses)


def test_inputs_are_left_alone_and_may_be_odd():
    arguments = small()
    before = copy.deepcopy((arguments["x"], arguments["y"]))
    expected = lr_sweep(**arguments)
    np.testing.assert_array_equal(arguments["x"], before[0])
    for x in (np.asfortranarray(before[0]), before[0].astype(">f4"), before[0].astype(np.float64)):
        x.flags.writeable = False
        assert_same(lr_sweep(**small(x=x)), expected)


def test_a_memory_map_is_trained_on_by_the_fused_engine(tmp_path):
    arguments = small(engine="fused")
    expected = lr_sweep(**arguments)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=arguments["x"].shape)
    mapped[:] = arguments["x"]
    assert_same(lr_sweep(**small(engine="fused", x=mapped)), expected)


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong, error, words", [
    ({"build": 3}, TypeError, "must be a function that builds a network"),
    ({"build": build(np.random.default_rng(0))}, TypeError, "def build"),
    ({"build": {}}, ValueError, "empty dict"),
    ({"build": {3: build}}, TypeError, "must be names"),
    ({"build": lambda rng: None}, TypeError, "must return a fastnet.Sequential, got None"),
    ({"build": {"a": build, "b": lambda rng: 3}}, TypeError, r"build\['b'\] must return"),
    ({"build": network(11, 3)}, ValueError, "x must have shape"),
    ({"build": network(12, 4)}, ValueError, "y must have shape"),
    ({"build": {"a": build, "b": network(12, 3, dtype=np.float64)}}, TypeError, "several dtypes"),
    ({"x": small()["x"][:49]}, ValueError, "y must have shape"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    ({"batch_size": 1.5}, TypeError, "batch_size must be a whole number"),
    ({"engine": "magic"}, ValueError, "engine must be one of"),
    ({"validation": 3}, TypeError, "validation must be a pair"),
    ({"validation": (small()["x"][:5, :3], [0] * 5)}, ValueError, "validation: x must have shape"),
    ({"test": (small()["x"][:2], [0, 7])}, ValueError, "labels must lie between 0 and 2"),
    ({"momentum": 1.0}, ValueError, "momentum"),
    ({"diverged_above": 0}, ValueError, "diverged_above"),
    ({"executor": 3}, TypeError, "client.get_executor"),
    ({"lrs": [0.1, -1]}, ValueError, "above 0"),
    ({"budget": 0}, ValueError, "budget must be a number of epochs"),
    ({"budget": "5 weeks"}, ValueError, "budget must be a number of epochs"),
    ({"seeds": 0}, ValueError, "seeds"),
], ids=case)
def test_wrong_arguments(wrong, error, words):
    with pytest.raises(error, match=words):
        lr_sweep(**small(**wrong))


def test_the_same_network_twice_is_refused():
    model = build(np.random.default_rng(0))
    with pytest.raises(ValueError, match="same network twice"):
        lr_sweep(**small(build=lambda rng: model, seeds=1))
    shared = FullLayer(12, 3, np.float32)
    with pytest.raises(ValueError, match=r"same layer FullLayer.* twice"):
        lr_sweep(**small(build=lambda rng: Sequential((shared, SoftMaxLayer()), loss=CrossEntropyLayer()), seeds=1))


def test_weights_that_a_seed_does_not_decide_are_refused():
    with pytest.raises(ValueError, match="different weights for the same seed"):
        lr_sweep(**small(build=lambda rng: build(np.random.default_rng())))


def test_an_engine_that_cannot_is_refused():
    def odd(rng):
        return Sequential((ReluLayer(), FullLayer(12, 3, np.float32, rng), SoftMaxLayer()), loss=CrossEntropyLayer())

    with pytest.raises(ValueError, match="cannot train this"):
        lr_sweep(**small(build=odd, engine="gram"))


# --- ends before the end -----------------------------------------------------------------------------------------------


class Failing:
    """A layer that fails, or presses Ctrl-C, in its nth forward pass."""

    passes = 0

    def __init__(self, after, action):
        self.after, self.action = after, action

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        Failing.passes += 1
        if Failing.passes == self.after:
            self.action()
        return x

    def backward(self, y_grad):
        return y_grad


def disturbed(after, action):
    Failing.passes = 0

    def failing(rng):
        return Sequential((Failing(after, action), FullLayer(12, 3, np.float32, rng), SoftMaxLayer()), loss=CrossEntropyLayer())

    return small(build=failing, lrs=[0.1, 0.2, 0.3], seeds=1, validation=None, test=None)


def test_a_failing_trial_keeps_the_finished_ones():
    def fail():
        raise MemoryError("no more")

    with pytest.raises(SweepError, match=r"rate 0\.2, seed 0 failed: MemoryError: no more\. 1 of 3") as caught:
        lr_sweep(**disturbed(20, fail))  # 4 epochs of 4 batches: in the second trial
    assert caught.value.result.status.tolist() == [["done"], ["missing"], ["missing"]]
    assert np.isfinite(caught.value.result.losses[0]).all() and np.isnan(caught.value.result.losses[1]).all()


def test_ctrl_c_returns_what_is_finished():
    with pytest.warns(RuntimeWarning, match="interrupted; 1 of 3 trials are finished"):
        result = lr_sweep(**disturbed(20, lambda: (signal.raise_signal(signal.SIGINT), threading.Event().wait(0.3))))
    assert result.status.tolist() == [["done"], ["missing"], ["missing"]]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sweeps_in_two_threads(result):
    found = []
    threads = [threading.Thread(target=lambda: found.append(lr_sweep(**small()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in found:
        assert_same(other, result)


def test_the_progress_line(capsys):
    lr_sweep(**small(progress=True))
    line = capsys.readouterr().err
    assert "6/6" in line and "2 diverged" in line and "best accuracy" in line and str(RATES[1]) in line


def test_progress_without_an_error_stream(monkeypatch, result):
    monkeypatch.setattr("sys.stderr", None)
    assert_same(lr_sweep(**small(progress=True)), result)


def test_a_budget_counts_what_resume_finds(tmp_path):
    options = small(lrs="0.01:0.3:log6", seeds=5, resume=tmp_path / "sweep.jsonl")
    assert lr_sweep(**options, budget=40).epochs_run.sum() == 40
    assert lr_sweep(**options, budget=40).epochs_run.sum() == 40
    assert lr_sweep(**options, budget=60).epochs_run.sum() == 60
    schedules = {"constant": "constant", "late": lambda epoch: 1.0 if epoch < 3 else 0.1}
    for budget in (3, 7, 8, 30, 41):
        found = lr_sweep(**options | {"resume": None, "schedule": schedules}, budget=budget).epochs_run.sum()
        assert budget - 4 < found <= budget


@pytest.mark.parametrize("search", ["grid", "halving"])
def test_a_budget_is_never_exceeded(search):
    for budget in (5, 30, 41):
        result = lr_sweep(**small(lrs="0.01:0.3:log6", seeds=5, search=search, budget=budget))
        assert budget - 4 < result.epochs_run.sum() <= budget or (search == "halving" and result.epochs_run.sum() < budget)
        assert f"budget of {budget}" in repr(result)


def test_no_warnings_while_it_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lr_sweep(**small())
