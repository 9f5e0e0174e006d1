"""The scikit-learn estimator: its checks, its losses beside scikit-learn's own, and its place among its tools."""
import pickle
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn import datasets, exceptions, model_selection, neural_network, pipeline, preprocessing
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

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
    for name, value in MLPClassifier().get_params().items():
        assert theirs[name] == value, name


def test_what_partial_fit_cannot_do(digits):
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier(**OPTIONS).partial_fit(*digits)
    with pytest.raises(ValueError, match="early_stopping must be False"):
        MLPClassifier(**OPTIONS, early_stopping=True).partial_fit(*digits, classes=range(10))


def test_too_few_to_stop_by(digits):
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPClassifier(**OPTIONS, early_stopping=True, validation_fraction=0.01).fit(digits[0][:50], digits[1][:50])
