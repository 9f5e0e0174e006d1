"""The scikit-learn estimator: its checks, its losses beside scikit-learn's own, and its place among its tools."""
import itertools
import pickle
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn import datasets, exceptions, model_selection, neural_network, pipeline, preprocessing
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import fastnet
from fastnet.estimator import MLPClassifier

OPTIONS = {"hidden_layer_sizes": (20, 10), "solver": "sgd", "learning_rate_init": 0.1, "momentum": 0, "max_iter": 8, "alpha": 0,
           "tol": 0, "nesterovs_momentum": False, "random_state": 3, "batch_size": 100}


@pytest.fixture(autouse=True)
def no_word_about_convergence():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        yield


@pytest.fixture(scope="module")
def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return x[:800] / 16, y[:800]


@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_s_own_checks():
    for result in check_estimator(MLPClassifier(), on_fail=None):
        assert result["status"] == "passed" or result["check_name"] == "check_array_api_input", result


def test_dropout(digits):
    """The network is one with dropout layers behind the activations; the masks follow random_state and go on."""
    x, y = digits
    options = {**OPTIONS, "dropout": 0.4, "activation": "tanh", "max_iter": 3}
    one, other, without = (MLPClassifier(**{**options, **changes}).fit(x, y) for changes in ({}, {}, {"dropout": 0.0}))
    assert [type(layer).__name__ for layer in one.model_.layers] == [
        "FullLayer", "TanhLayer", "DropoutLayer", "FullLayer", "TanhLayer", "DropoutLayer", "FullLayer", "SoftMaxLayer"]
    drops = [layer for layer in one.model_.layers if hasattr(layer, "rate")]
    assert [layer.rate for layer in drops] == [0.4, 0.4]
    assert drops[0].seed != drops[1].seed
    steps = 3 * -(-len(x) // 100)
    assert drops[0].calls == steps
    assert np.array_equal(one.predict_proba(x), other.predict_proba(x))
    assert one.loss_curve_ == other.loss_curve_ != without.loss_curve_
    assert np.array_equal(one.predict_proba(x), one.predict_proba(x))
    again = pickle.loads(pickle.dumps(one))
    for classifier in (one, again):
        classifier.partial_fit(x, y)
    assert drops[0].calls == steps + len(range(0, len(x), 100))
    assert np.array_equal(one.predict_proba(x), again.predict_proba(x))
    W = one.coefs_[0].copy()
    one.set_params(dropout=0.0)
    assert not any(hasattr(layer, "rate") for layer in one.model_.layers)
    assert np.array_equal(one.coefs_[0], W)
    seeds = {MLPClassifier(**{**options, "random_state": seed}).fit(x, y).model_.layers[2].seed for seed in (1, 2)}
    assert len(seeds) == 2
    for wrong in (1.0, -0.1, "half", None):
        with pytest.raises(ValueError, match="MLPClassifier: dropout must be at least 0 and below 1"):
            MLPClassifier(dropout=wrong).fit(x, y)


def test_dropout_trains_as_the_network_does_by_hand(digits):
    x, y = digits
    x, y = x[:200].astype(float), y[:200]
    classifier = MLPClassifier((12,), solver="sgd", dropout=0.3, max_iter=1, shuffle=False, batch_size=50, alpha=0, momentum=0,
                               learning_rate_init=0.1, random_state=0)
    state = np.random.RandomState(0)
    shapes = (x.shape[1], 12, len(np.unique(y)))
    model = []
    for n_i, n_o in itertools.pairwise(shapes):
        bound, full = np.sqrt(6 / (n_i + n_o)), fastnet.FullLayer(n_i, n_o)
        full.W, full.b = state.uniform(-bound, bound, (n_i, n_o)).T, state.uniform(-bound, bound, n_o)
        model.append(full)
    drop = fastnet.DropoutLayer(0.3, int(state.randint(1 << 31)))
    model = fastnet.Sequential((model[0], fastnet.ReluLayer(), drop, model[1], fastnet.SoftMaxLayer()), fastnet.CrossEntropyLayer())
    losses = model.fit(x, fastnet.one_hot(np.unique(y, return_inverse=True)[1]), 1, 0.1, 50)
    classifier.fit(x, y)
    np.testing.assert_allclose(classifier.loss_curve_, losses, rtol=1e-12)
    np.testing.assert_allclose(classifier.predict_proba(x), model.predict_proba(x), rtol=1e-10)


def both(digits, **changes):
    options = {**OPTIONS, **changes}
    return MLPClassifier(**options).fit(*digits), neural_network.MLPClassifier(**options).fit(*digits)


@pytest.mark.parametrize("changes", [
    {}, {"shuffle": False}, {"activation": "identity", "hidden_layer_sizes": 12},
    {"activation": "tanh"}, {"activation": "logistic"}, {"hidden_layer_sizes": ()},
    {"alpha": 0.1}, {"momentum": 0.9, "learning_rate_init": 0.01},
    {"momentum": 0.9, "learning_rate_init": 0.01, "nesterovs_momentum": True}, {"learning_rate": "invscaling", "power_t": 0.3},
    {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1, "max_iter": 30},
    {"tol": 0.3, "n_iter_no_change": 2}, {"batch_size": 1000}, {"batch_size": "auto"},
])
@pytest.mark.filterwarnings("ignore:.*clipped")
def test_trains_as_scikit_learn_does(digits, changes):
    ours, theirs = both(digits, **changes)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.t_ == theirs.t_
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-9)
    if not changes.get("alpha"):  # the penalty is not part of our loss
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
        assert ours.best_loss_ == pytest.approx(theirs.best_loss_)
    assert np.array_equal(ours.predict(digits[0]), theirs.predict(digits[0]))


@pytest.mark.parametrize("changes", [{}, {"learning_rate": "invscaling", "momentum": 0.9}, {"batch_size": 800}])
def test_adam_is_close_to_scikit_learn_s(digits, changes):
    """Which adds epsilon before the correction of the first steps, where tiny gradients feel it."""
    ours, theirs = both(digits, solver="adam", learning_rate_init=0.002, **changes)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-4)
    assert ours.model_.history.engine == "fused"


@pytest.mark.parametrize("changes", [{}, {"validation_fraction": 0.3}, {"momentum": 0.9, "learning_rate_init": 0.02}])
def test_stops_early_as_scikit_learn_does(digits, changes):
    x, y = digits
    ours, theirs = both((x[:700], y[:700]), early_stopping=True, n_iter_no_change=2, max_iter=60, batch_size=70, **changes)
    assert ours.validation_scores_ == theirs.validation_scores_
    assert ours.best_validation_score_ == theirs.best_validation_score_
    assert ours.best_loss_ is None
    assert ours.n_iter_ == theirs.n_iter_ < 60
    assert ours.score(x[700:], y[700:]) == theirs.score(x[700:], y[700:])  # with the weights of the best epoch
    for mine, other in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-9)


def test_labels_of_any_kind(digits):
    x, y = digits
    names = np.array([f"digit {k}" for k in range(10)])
    numbers, words = MLPClassifier(**OPTIONS).fit(x, y), MLPClassifier(**OPTIONS).fit(x, names[y])
    assert list(words.classes_) == list(names)
    assert np.array_equal(words.predict(x), names[numbers.predict(x)])
    assert words.score(x, names[y]) == numbers.score(x, y) == numbers.model_.score(x, y)


def test_two_classes_and_one(digits):
    x, y = digits
    classifier = MLPClassifier(**{**OPTIONS, "max_iter": 20}).fit(x, y < 5)
    assert classifier.predict_proba(x).shape == (len(x), 2)
    assert classifier.score(x, y < 5) > 0.9
    assert np.array_equal(MLPClassifier(**OPTIONS).fit(x, np.full(len(x), 7)).predict(x[:3]), [7, 7, 7])


def test_tables_keep_their_column_names(digits):
    pd = pytest.importorskip("pandas")
    x, y = digits
    table = pd.DataFrame(x, columns=[f"pixel {k}" for k in range(64)])
    classifier = MLPClassifier(**OPTIONS).fit(table, pd.Series(y).astype("category"))
    assert list(classifier.feature_names_in_) == list(table.columns)
    assert np.array_equal(classifier.predict(table), MLPClassifier(**OPTIONS).fit(x, y).predict(x))
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(table.rename(columns={"pixel 0": "other"}))


def test_float32_stays_float32(digits):
    classifier = MLPClassifier(**OPTIONS).fit(digits[0].astype(np.float32), digits[1])
    assert {w.dtype for w in classifier.coefs_} == {np.dtype(np.float32)}
    assert classifier.predict_proba(digits[0]).dtype == np.float32


def test_at_home_among_scikit_learn_s_tools(digits):
    x, y = digits
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), MLPClassifier(**{**OPTIONS, "max_iter": 30}))
    search = model_selection.GridSearchCV(steps, {"mlpclassifier__learning_rate_init": [1e-4, 0.1]}, cv=2).fit(x, y)
    assert search.best_params_ == {"mlpclassifier__learning_rate_init": 0.1}
    assert model_selection.cross_val_score(clone(steps), x, y, cv=3).mean() > 0.8
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(again.predict_proba(x), search.predict_proba(x))


def test_goes_on_where_it_was(digits):
    x, y = digits
    warm = MLPClassifier(**{**OPTIONS, "max_iter": 2, "warm_start": True, "shuffle": False})
    losses = [*warm.fit(x, y).loss_curve_]
    assert warm.fit(x, y).loss_curve_[:2] == losses
    once = MLPClassifier(**{**OPTIONS, "max_iter": 4, "shuffle": False}).fit(x, y)
    np.testing.assert_allclose(warm.loss_curve_, once.loss_curve_, rtol=1e-12)
    warm.set_params(early_stopping=True).fit(x, y)
    assert len(warm.validation_scores_) == 2
    assert warm.best_loss_ is None
    step = MLPClassifier(**{**OPTIONS, "shuffle": False})
    for _ in range(4):
        step.partial_fit(x, y, classes=range(10))
    np.testing.assert_allclose(step.loss_curve_, once.loss_curve_, rtol=1e-12)
    with pytest.raises(ValueError, match=r"labels .*, not among the classes"):
        step.partial_fit(x[:2], [3, 11])


def test_says_what_it_does(digits, capsys):
    MLPClassifier(**{**OPTIONS, "verbose": True, "max_iter": 2}).fit(*digits)
    assert re.fullmatch(r"Iteration 1, loss = \d\.\d{8}\nIteration 2, loss = \d\.\d{8}\n", capsys.readouterr().out)
    with pytest.warns(exceptions.ConvergenceWarning, match="the 2 epochs of max_iter are done"):
        MLPClassifier(**{**OPTIONS, "max_iter": 2}).fit(*digits)


def test_divergence_is_an_error(digits):
    with pytest.raises(ValueError, match=r"diverged in epoch .* scale them"):
        MLPClassifier(**OPTIONS).fit(digits[0] * 1e6, digits[1])


@pytest.mark.parametrize("name, value", [
    ("hidden_layer_sizes", (5, 0)), ("hidden_layer_sizes", 2.5), ("activation", "softsign"), ("solver", "lbfgs"), ("beta_1", 0.8), ("beta_2", 0.99), ("epsilon", 1e-7), ("alpha", -1),
    ("batch_size", 0), ("learning_rate", "cosine"), ("learning_rate_init", 0), ("power_t", "much"), ("max_iter", 0),
    ("momentum", 1), ("validation_fraction", 1.5), ("n_iter_no_change", 0), ("tol", -1),
])
def test_parameters_are_checked_when_fitting(digits, name, value):
    with pytest.raises(ValueError, match=f"MLPClassifier: {name} must be .*, got {re.escape(repr(value))}"):
        MLPClassifier(**{**OPTIONS, name: value}).fit(*digits)


def test_defaults_are_scikit_learn_s():
    theirs = neural_network.MLPClassifier().get_params()
    ours = MLPClassifier().get_params()
    assert ours.pop("dropout") == 0, "which scikit-learn does not have"
    for name, value in ours.items():
        assert theirs[name] == value, name


def test_what_partial_fit_cannot_do(digits):
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier(**OPTIONS).partial_fit(*digits)
    with pytest.raises(ValueError, match="early_stopping must be False"):
        MLPClassifier(**OPTIONS, early_stopping=True).partial_fit(*digits, classes=range(10))


def test_too_few_to_stop_by(digits):
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPClassifier(**OPTIONS, early_stopping=True, validation_fraction=0.01).fit(digits[0][:50], digits[1][:50])


# --- attributes that users write to ---------------------------------------------------------------------------------


def pair_of(digits, **changes):
    """Our estimator and scikit-learn's, trained alike."""
    return both(digits, **{"max_iter": 2, **changes})


def assert_equal(ours, theirs, x):
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-7, atol=1e-10)


def items(c, rng):
    c.coefs_[0] = rng.normal(size=(64, 20))
    c.intercepts_[-1] = rng.normal(size=10)


def whole_lists(c, rng):
    c.coefs_ = [rng.normal(size=w.shape) for w in c.coefs_]
    c.intercepts_ = [rng.normal(size=b.shape) for b in c.intercepts_]


def in_place(c, rng):
    c.coefs_[1] *= 0.5
    c.coefs_[0][:5] = 0
    c.intercepts_[0] += rng.normal(size=20)
    np.clip(c.coefs_[2], -0.1, 0.1, out=c.coefs_[2])


def lists_of_lists(c, rng):
    c.coefs_[0] = rng.integers(-1, 2, (64, 20))
    c.intercepts_[0] = np.zeros(20, int)


def another_list_s_items(c, rng):
    kept = c.coefs_
    c.coefs_ = kept
    kept[0] = rng.normal(size=(64, 20))
    kept[1][:] = 0.1


def kept_array(c, rng):
    W = rng.normal(size=(64, 20))
    c.coefs_[0] = W
    c.predict(np.zeros((1, 64)))
    W *= 2


def slices(c, rng):
    c.coefs_[:2] = [rng.normal(size=w.shape) for w in c.coefs_[:2]]


def other_widths(c, rng):
    """One item after the other, so that in between they do not fit each other."""
    for i, (n_i, n_o) in enumerate([(64, 7), (7, 12), (12, 10)]):
        c.coefs_[i] = rng.normal(size=(n_i, n_o))
        c.intercepts_[i] = rng.normal(size=n_o)


def average(c, rng):
    """Federated averaging, of this estimator with one of zeros."""
    c.coefs_ = [np.mean([w, np.zeros_like(w)], axis=0) for w in c.coefs_]
    c.intercepts_ = tuple(np.mean([b, b], axis=0) for b in c.intercepts_)


@pytest.mark.parametrize("change", [items, whole_lists, in_place, lists_of_lists, another_list_s_items, kept_array, slices,
                                    other_widths, average], ids=lambda f: f.__name__)
def test_weights_from_elsewhere(digits, change):
    """Written as public scripts write them: predictions and further training are those of scikit-learn."""
    x, y = digits
    ours, theirs = pair_of(digits)
    for c in (ours, theirs):
        change(c, np.random.default_rng(5))
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-9, atol=1e-12)
    assert np.array_equal(ours.predict(x), theirs.predict(x))
    if change is average:
        theirs.intercepts_ = list(theirs.intercepts_)
    if change is lists_of_lists:  # which scikit-learn cannot train
        theirs.coefs_[0], theirs.intercepts_[0] = theirs.coefs_[0].astype(float), theirs.intercepts_[0].astype(float)
    if change is other_widths:  # which scikit-learn cannot train
        assert [w.shape for w in ours.partial_fit(x, y).coefs_] == [(64, 7), (7, 12), (12, 10)]
        return
    for c in (ours, theirs):
        c.partial_fit(x, y)
        c.coefs_[0][0] = 0.25
    assert_equal(ours, theirs, x)
    again = pickle.loads(pickle.dumps(ours))
    assert_equal(again, theirs, x)
    ours.coefs_[0] = ours.coefs_[0] / 2  # an unfinished change is copied, too
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).coefs_[0], ours.coefs_[0])
    assert isinstance(ours.coefs_, list)
    assert ours.coefs_ is ours.coefs_


def test_weights_of_an_estimator_that_was_not_fitted(digits):
    x, y = digits
    ours, theirs = pair_of(digits)
    fresh = MLPClassifier(**OPTIONS)
    assert not hasattr(fresh, "coefs_")
    fresh.coefs_ = [w.copy() for w in theirs.coefs_]
    assert not hasattr(fresh, "intercepts_")
    with pytest.raises(exceptions.NotFittedError):
        fresh.predict(x)
    fresh.intercepts_ = [b.copy() for b in theirs.intercepts_]
    fresh.classes_, fresh.n_layers_, fresh.n_outputs_, fresh.out_activation_ = theirs.classes_, 4, 10, "softmax"
    np.testing.assert_allclose(fresh.predict_proba(x), theirs.predict_proba(x), rtol=1e-9)
    fresh.partial_fit(x, y)
    ours.partial_fit(x, y)
    np.testing.assert_allclose(fresh.coefs_[0], ours.coefs_[0], rtol=1e-9)


def test_other_attributes_that_are_written_to(digits):
    x, y = digits
    ours, theirs = pair_of(digits, learning_rate="invscaling")
    for c in (ours, theirs):
        c.classes_ = np.array([f"digit {k}" for k in range(10)])
    assert np.array_equal(ours.predict(x), theirs.classes_[theirs.predict_proba(x).argmax(axis=1)])
    for c in (ours, theirs):
        c.classes_ = np.arange(10)
        c.loss_curve_, c.best_loss_, c.t_ = [], np.inf, 3000
        c.set_params(activation="tanh")
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-9, atol=1e-12)
    ours.set_params(learning_rate="constant", activation="relu").partial_fit(x, y)
    assert ours.t_ == 3800
    assert len(ours.loss_curve_) == 1
    ours.model_.layers[0].W = np.full((20, 64), 0.01)
    assert np.all(ours.coefs_[0] == 0.01)
    ours.model_.layers[0].W[3] = 0.5
    assert np.all(ours.coefs_[0][:, 3] == 0.5)


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.coefs_.pop(), "coefs_ and intercepts_ must hold an array for each layer, got 2 and 3"),
    (lambda c: c.coefs_.__setitem__(1, np.ones((10, 20))), r"coefs_\[1\] must have shape \(20, n_out\), got \(10, 20\)"),
    (lambda c: c.coefs_.__setitem__(0, np.ones(64)), r"coefs_\[0\] must have shape \(n_features, n_out\), got \(64,\)"),
    (lambda c: c.intercepts_.__setitem__(0, np.ones(19)), r"intercepts_\[0\] must have shape \(20,\)"),
    (lambda c: (c.coefs_.__setitem__(2, np.ones((10, 3))), c.intercepts_.__setitem__(2, np.ones(3))),
     r"coefs_\[2\] must have 10 columns, one for each class, got \(10, 3\)"),
])
def test_weights_that_do_not_fit(digits, change, message):
    c = MLPClassifier(**{**OPTIONS, "max_iter": 1}).fit(*digits)
    change(c)
    for call in (c.predict, lambda x: c.partial_fit(x, digits[1])):
        with pytest.raises(ValueError, match=message):
            call(digits[0])


def test_weights_of_a_logistic_output(digits):
    x, y = digits[0], digits[1] > 4
    ours, theirs = pair_of((x, y))
    ours.coefs_, ours.intercepts_ = [w.copy() for w in theirs.coefs_], [b.copy() for b in theirs.intercepts_]
    with pytest.raises(ValueError, match="Of a logistic output, the second column is what a softmax needs") as info:
        ours.predict(x)
    for statement in re.findall(r"(?:coefs_|intercepts_)\[-1\] = .*?\)\)?(?=, inter|\.$)", str(info.value)):
        exec(f"c.{statement.replace('np.pad(', 'np.pad(c.')}", {"np": np, "c": ours})
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-9, atol=1e-15)


# --- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {"momentum": 0.9}, {"momentum": 0.9, "learning_rate": "invscaling", "power_t": 0.1}, {"momentum": 0},
    {"solver": "adam", "learning_rate_init": 0.001}, {"momentum": 0.9, "learning_rate": "adaptive", "tol": 0.4, "n_iter_no_change": 1},
], ids=str)
def test_partial_fit_keeps_what_scikit_learn_keeps(digits, changes):
    """Velocities, moments, their count, an adaptive rate and the patience, from call to call, after a fit too."""
    x, y = digits
    options = {**OPTIONS, "batch_size": 20, "learning_rate_init": 0.02, "max_iter": 3, **changes}
    ours, theirs = MLPClassifier(**options), neural_network.MLPClassifier(**options)
    for c in (ours, theirs):
        for first in range(0, 800, 100):
            c.partial_fit(x[first:first + 100], y[first:first + 100], classes=np.arange(10))
    changing = "learning_rate" in changes  # a velocity then counts at the new rate, which makes another loss of it
    exact = not changing and "solver" not in changes
    if not changing:
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9 if exact else 1e-2)
    if changes.get("learning_rate") == "adaptive":
        assert ours._rates[1] == pytest.approx(theirs._optimizer.learning_rate) != 0.02
    assert ours.t_ == theirs.t_
    for c in (ours, theirs):
        c.fit(x, y)
        for _ in range(3):
            c.partial_fit(x[:200], y[:200])
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9 if exact else 0.2 if changing else 1e-2)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=1e-12 if exact else 0.05)


@pytest.mark.parametrize("changes", [{"momentum": 0.9}, {"solver": "adam", "learning_rate_init": 0.002}], ids=str)
def test_warm_start_goes_on_with_velocity_and_moments(digits, changes):
    """Where scikit-learn starts them from 0: a loop of single epochs is one fit."""
    options = {**OPTIONS, "shuffle": False, **changes}
    warm = MLPClassifier(**{**options, "max_iter": 1, "warm_start": True})
    for _ in range(4):
        warm.fit(*digits)
        warm = pickle.loads(pickle.dumps(warm))
    once = MLPClassifier(**{**options, "max_iter": 4}).fit(*digits)
    np.testing.assert_allclose(warm.loss_curve_, once.loss_curve_, rtol=1e-10)


def test_a_new_fit_and_another_solver_start_afresh(digits):
    c = MLPClassifier(**{**OPTIONS, "momentum": 0.9})
    losses = c.fit(*digits).loss_curve_
    assert c.fit(*digits).loss_curve_ == losses
    c.set_params(solver="adam").partial_fit(*digits)
    assert c._optimizer.steps == 8


def test_warm_start_with_other_classes(digits):
    x, y = digits
    few = y < 8
    for model in (MLPClassifier, neural_network.MLPClassifier):
        c = model(**OPTIONS, warm_start=True).fit(x, y)
        with pytest.raises(ValueError, match="warm_start"):
            c.fit(x[few], y[few])
        with pytest.raises(ValueError, match=r"classes|labels"):
            c.fit(x, np.where(few, y, 11))
    weights = c.coefs_[0].copy()
    with pytest.raises(ValueError, match="warm_start=False to start anew"):
        MLPClassifier(**OPTIONS, warm_start=True).fit(x, y).set_params(hidden_layer_sizes=(5,)).fit(x, y)
    assert np.array_equal(weights, c.coefs_[0])
    ours = MLPClassifier(**OPTIONS, warm_start=True).fit(x, y).partial_fit(x[few], y[few])  # that may be a part of the data
    assert list(ours.classes_) == list(range(10))
