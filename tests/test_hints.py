"""Every hint of an error message is run on the object that the error was about, and what it gives is accepted."""
import datetime
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import fastnet
from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    MaxPoolLayer,
    MeanSquaredErrorLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
)

X = np.arange(24.0).reshape(6, 4) / 24
LABELS = [0, 1, 2, 0, 1, 2]
T = np.eye(3)[LABELS]
DAY = datetime.date(2026, 1, 31)


def network():
    return Sequential((FullLayer(4, 3, rng=0), SoftMaxLayer()), CrossEntropyLayer())


def advice(message):
    """The expressions in a message: each begins behind a blank with a name that is known, and ends with a sentence or a part."""
    found, at = [], 0
    while begin := re.compile(r"(?<= )(?!\w+\[[\d, ]+\] is )(?:np|fastnet|pandas|list|x|y|t|labels|layers(?!\[))[.(\[]").search(message, at):
        start = at = begin.start()
        for end in re.compile(r"(?=[.,;](?: |$)| is True)").finditer(message, start):
            try:
                found.append(compile(message[start:end.start()], message[start:end.start()], "eval"))
            except SyntaxError:
                continue
            at = end.start()
            break
        at += 1
    return found


def evaluated(code, **names):
    """A hint's value for the objects of these names."""
    try:
        import pandas
    except ImportError:
        pandas = None
    return eval(code, {"np": np, "fastnet": fastnet, "pandas": pandas, **names})


def message_of(call, *given, **options):
    with pytest.raises((TypeError, ValueError)) as info:
        call(*given, **options)
    return str(info.value)


def repaired(name, value, call, contains):
    """What the hint makes of a value that `call` refuses; and `call` accepts that."""
    message = message_of(call, value)
    assert contains in message, message
    hints = advice(message)
    assert hints, message
    for hint in hints:
        result = evaluated(hint, **{name: value})
        if isinstance(result, np.ndarray) and result.dtype == bool:  # which samples to keep
            assert 0 < result.sum() < len(result)
            continue
        call(result)
    return evaluated(hints[0], **{name: value})


# --- samples --------------------------------------------------------------------------------------------------------


def as_objects(*rows):
    array = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        array[i] = row
    return array


SAMPLES = {
    "strings of numbers": ([["1", "2", "3", "4.5"]], "np.array(x, dtype=float)"),
    "bytes of numbers": (np.array([[b"1", b"2", b"3", b"4.5"]]), "np.array(x, dtype=float)"),
    "objects that are numbers": (np.ones((2, 4), object), "np.array(x, dtype=float)"),
    "None": ([[1, 2, None, 4]], "missing ones to 0"),
    "Decimal": ([[Decimal("1.5")] * 4], "np.array(x, dtype=float)"),
    "Fraction": ([[Fraction(1, 3)] * 4], "np.array(x, dtype=float)"),
    "huge integers": ([[10**30, 1, 2, 3]], "np.array(x, dtype=float)"),
    "dates": ([[DAY] * 4], "days since 1970"),
    "datetimes": ([[datetime.datetime(2026, 1, 31, 12)] * 4], "days since 1970"),
    "datetime64": (np.full((2, 4), "2020", "datetime64[D]"), "days since 1970"),
    "timedelta": ([[datetime.timedelta(hours=3)] * 4], "Convert dates to days"),
    "timedelta64": (np.full((2, 4), 3, "timedelta64[h]"), "Convert dates to days"),
    "complex": (X + 1j, "np.real(x)"),
    "list of complex numbers": ((X + 1j).tolist(), "np.abs(x)"),
    "records": (np.array([(1, 2.5, 3, 4)] * 2, "i4,f8,f4,u1"), "Make its fields columns"),
    "array of arrays": (as_objects(*X), "Stack its rows"),
    "ragged list": ([[1, 2, 3, 4], [1, 2]], "they have 2 to 4"),
    "ragged objects": (as_objects([1, 2, 3, 4], (1, 2)), "they have 2 to 4"),
    "one sample": (X[0], "One sample is a row"),
    "one sample in a list": (X[0].tolist(), "np.atleast_2d(x)"),
    "generator": ((row for row in X.tolist()), "list(x)"),
    "dictionary of columns": ({column: X[:, i] for i, column in enumerate("abcd")}, "Make its values columns"),
    "masked": (np.ma.masked_greater(X, 0.5), "x.filled(0)"),
    "transposed": (X.T, "np.transpose(x)"),
    "transposed list": (X.T.tolist(), "np.transpose(x)"),
    "images": (X.reshape(6, 1, 2, 2), "np.reshape(x, (len(x), -1))"),
    "images in a list": (X.reshape(6, 1, 2, 2).tolist(), "np.reshape(x, (len(x), -1))"),
    "images with channels last": (np.ones((6, 2, 2, 1)), "np.transpose(x, (0, 3, 1, 2))"),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples(kind):
    value, contains = SAMPLES[kind]
    if kind == "generator":
        assert contains in message_of(network().predict, value)
        network().predict(list(value))
        return
    repaired("x", value, network().predict, contains)


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_matrix", "lil_matrix", "dok_array"])
def test_sparse_samples_and_targets(form):
    sparse = getattr(pytest.importorskip("scipy.sparse"), form)
    dense = repaired("x", sparse(X), network().predict, f"got {form}. Make it dense: x.toarray().")
    assert np.array_equal(dense, X)
    repaired("y", sparse(T), lambda y: network().fit(X, y, 1), "y.toarray()")


def test_text_names_the_value_that_is_no_number():
    for x in ([["1", "2", "red", "4"]], np.array([["1", "2", "red", "4"]], object), np.array([[1, 2, "red", 4]])):
        message = message_of(network().predict, x)
        assert re.search(r"x\[0, 2\] is 'red', which is no number", message)
        column = [row[2] for row in x]
        assert [code.co_filename for code in advice(message)] == ["np.unique(column, return_inverse=True)[1]"]
        assert np.array_equal(evaluated(advice(message)[0], column=column), [0])


@pytest.mark.parametrize("value", ["data.npy", b"data", object()])
def test_no_code_where_nothing_helps(value):
    assert not advice(message_of(network().predict, value))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.array, np.ndarray.tolist, np.asfortranarray, lambda x: x.astype(np.float16)],
                         ids=["array", "list", "Fortran", "half"])
def test_values_that_are_not_finite(wrong, form):
    x = X.copy()
    x[2, 1] = wrong
    losses = []
    repaired("x", form(x), lambda x: losses.extend(network().fit(x, T, 1)), "Repair or drop such samples")
    assert np.isfinite(losses).all()
    t = T.copy()
    t[1, 1] = wrong
    repaired("y", form(t), lambda y: network().fit(X, y, 1), "Drop such samples; np.isfinite(y).all(axis=1)")


@pytest.mark.parametrize("form", [np.array, np.ndarray.tolist, lambda x: np.array(x, np.longdouble)], ids=["array", "list", "long"])
def test_values_that_float32_cannot_hold(form):
    layers = FullLayer(4, 3, np.float32, rng=0), SoftMaxLayer()
    x = X.copy()
    x[2, 1] = 1e39
    repaired("x", form(x), lambda x: Sequential(layers, CrossEntropyLayer()).fit(x, T, 1), "x[2, 1] is 1e+39, which float32 cannot hold")
    repaired("y", form(np.multiply(T, 1e40)), lambda y: Sequential(layers[:1], MeanSquaredErrorLayer()).fit(X, y, 1),
             "which float32 cannot hold")


def test_labels_of_another_number_of_samples():
    for x in (X, X.tolist()):
        assert "y must have shape (6,), got (2,). Give one label per sample." in message_of(network().evaluate, x, [0, 1])
    assert "they have 1 to 2" in message_of(network().evaluate, [[1], [1, 2]], [0, 1])


def test_empty():
    assert "Give at least one sample" in message_of(network().predict, np.ones((0, 4)))
    assert "Give at least one value per sample" in message_of(ReluLayer().forward, np.ones((4, 0)))
    assert "Give at least one value per sample" in message_of(CrossEntropyLayer().forward, np.ones((4, 0)), np.ones((4, 0)))


# --- labels and targets ---------------------------------------------------------------------------------------------


LABELS_OF_ALL_KINDS = {
    "strings": (["cat", "dog", "eel"] * 2, "Number the labels"),
    "object strings": (np.array(["cat", "dog", "eel"] * 2, object), "Number the labels"),
    "bytes": ([b"cat", b"dog", b"eel"] * 2, "Number the labels"),
    "strings of numbers": (["1", "2", "3"] * 2, "Number the labels"),
    "strings and None": (["cat", None, "eel"] * 2, "dtype=str"),
    "strings and numbers": (np.array(["cat", 1, 2.5] * 2, object), "dtype=str"),
    "dates": ([DAY, DAY.replace(day=1), DAY.replace(day=2)] * 2, "Number the labels"),
    "datetime64": (np.array(["2020", "2021", "2022"] * 2, "datetime64[Y]"), "Number the labels"),
    "Decimal": ([Decimal(1), Decimal(2), Decimal(3)] * 2, "Number the labels"),
    "floats": (np.array(LABELS, float), "np.asarray(labels, dtype=int)"),
    "list of floats": ([float(k) for k in LABELS], "np.asarray(labels, dtype=int)"),
    "floats with gaps": ([0.0, 5.0, 9.0] * 2, "Renumber them"),
    "floats that are not whole": ([0.5, 1.5, 2.5] * 2, "Renumber them"),
    "gaps": ([0, 5, 9] * 2, "Renumber them"),
    "from 1": ([1, 2, 3] * 2, "Renumber them"),
    "negative": ([-1, 0, 1] * 2, "Renumber them"),
    "huge integers": ([10**30, 1, 2] * 2, "Number the labels"),
    "a column": (np.array(LABELS)[:, None], "np.ravel(labels)"),
    "a column in a list": ([[k] for k in LABELS], "np.ravel(labels)"),
    "a row": ([LABELS], "np.argmax(labels, axis=1)"),
    "scores": (T * 3 - 1, "np.argmax(labels, axis=1)"),
    "missing": ([0, 1, np.nan, 0, 1, 2], "np.isfinite(labels)"),
    "masked": (np.ma.masked_equal(LABELS, 2), "labels.filled(0)"),
}


@pytest.mark.parametrize("kind", LABELS_OF_ALL_KINDS)
def test_labels(kind):
    value, contains = LABELS_OF_ALL_KINDS[kind]

    def call(labels):
        return fastnet.one_hot(labels, 3)

    repaired("labels", value, call, contains)


@pytest.mark.parametrize("kind", [kind for kind, (value, _) in LABELS_OF_ALL_KINDS.items() if kind not in ("a row", "scores")])
def test_labels_where_one_hot_targets_are_taken(kind):
    value, _ = LABELS_OF_ALL_KINDS[kind]
    if kind == "masked":
        value = np.ma.masked_equal(T, 0)
        repaired("y", value, lambda y: network().predict(X) if not np.ma.is_masked(y) and np.all(y.sum(1) == 1)
                 else network().fit(X, y, 1), "y.filled(0)")
        return
    repaired("y", value, lambda y: network().fit(X, y, 1), "fastnet.one_hot" if kind != "missing" else "is True for the others")
    column = np.asarray(value, object if not isinstance(value, np.ndarray) else None)
    column = column.reshape(-1, 1) if column.dtype != object else [[label] for label in np.ravel(column)]
    repaired("y", column, lambda y: network().fit(X, y, 1), "fastnet.one_hot" if kind != "missing" else "is True for the others")


def test_labels_for_the_loss_itself():
    loss = CrossEntropyLayer()
    repaired("t", LABELS, lambda t: loss.forward(np.full((6, 3), 1 / 3), t), "fastnet.one_hot(t, 3)")


def test_too_many_classes():
    assert "There are 6 different labels, so there must be at least 6 classes" in message_of(fastnet.one_hot, range(1, 7), 3)
    assert "There are 6 different values" in message_of(network().fit, X, np.arange(6) / 10)


def test_values_to_fit():
    def fit(y):
        Sequential((FullLayer(4, 1, rng=0),), MeanSquaredErrorLayer()).fit(X, y, 1)

    repaired("y", X.sum(axis=1), fit, "np.reshape(y, (-1, 1))")
    repaired("y", X.sum(axis=1).tolist(), fit, "np.reshape(y, (-1, 1))")
    message = message_of(network().fit, X, T - 0.4)
    assert "MeanSquaredErrorLayer()" in message
    Sequential(network().layers, MeanSquaredErrorLayer()).fit(X, T - 0.4, 1)


TARGETS = {
    "-1 for 0": (2 * T - 1, "They seem to use -1 for 0"),
    "scaled": (5 * T, "All rows sum to 5"),
    "several classes": (np.maximum(T, T[:, ::-1]), "Divide each row by its sum"),
    "none": (T * (np.arange(6) > 0)[:, None], "np.any(y, axis=1)"),
    "transposed": (T.T, "np.transpose(y)"),
    "too many": (np.eye(3)[LABELS + [0, 1]], "shorten y too: y[:6]"),
}


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist], ids=["array", "list"])
@pytest.mark.parametrize("kind", TARGETS)
def test_targets(kind, form):
    value, contains = TARGETS[kind]
    repaired("y", form(value), lambda y: network().fit(X, y, 1), contains)


# --- tables and tensors ---------------------------------------------------------------------------------------------


def test_tables():
    pd = pytest.importorskip("pandas")
    numbers = pd.DataFrame(X[:, :3], columns=list("abc"))
    for extra, contains in ((["red", "blue"] * 3, "pandas.get_dummies(x)"), (["1", "2.5"] * 3, "x.astype(float)"),
                            ([Decimal(1)] * 6, "x.astype(float)"), ([None, 1] * 3, "x.astype(float)"),
                            (pd.date_range("2026", periods=6), "x.select_dtypes"),
                            (pd.Categorical(["red", "blue"] * 3), "pandas.get_dummies(x)")):
        table = numbers.assign(d=pd.Series(extra, dtype=object) if isinstance(extra, list) else extra)
        message = message_of(network().predict, table)
        assert contains in message, message
        for hint in advice(message):
            result = evaluated(hint, x=table)
            assert isinstance(result, pd.DataFrame)
            Sequential((FullLayer(result.shape[1], 3), SoftMaxLayer()), CrossEntropyLayer()).predict(result)
    gaps = pd.DataFrame(X).astype("Float64")
    gaps.iloc[2, 1] = pd.NA
    repaired("x", gaps, lambda x: network().fit(x, T, 1), "x.fillna(0)")
    gaps = pd.DataFrame(X.copy())  # before pandas 3, a table shares an array's memory
    gaps.iloc[2, 1], gaps.iloc[3, 1] = np.nan, np.inf
    repaired("x", gaps, lambda x: network().fit(x, T, 1), "replace([np.inf, -np.inf], 0)")
    repaired("x", pd.Series(X[0]), network().predict, "np.atleast_2d(x)")
    repaired("x", pd.DataFrame(X.T), network().predict, "np.transpose(x)")
    repaired("x", pd.Series(list(X)), network().predict, "Stack its rows")


def test_labels_in_tables():
    pd = pytest.importorskip("pandas")
    for column in (pd.Series(LABELS), pd.Series([1, 5, 9] * 2), pd.Series(LABELS, dtype="Int64"), pd.Series(LABELS, dtype=float),
                   pd.Series(["cat", "dog", "eel"] * 2), pd.Series(["cat", "dog", "eel"] * 2, dtype="category"),
                   pd.Series([1, 5, 9] * 2, dtype="category"), pd.Series(["cat", "dog", None] * 2)):
        repaired("y", column, lambda y: network().fit(X, y, 1), "fastnet.one_hot")
        repaired("y", column.to_frame(), lambda y: network().fit(X, y, 1), "fastnet.one_hot")
        if column.dtype != "Int64" and not np.array_equal(column, LABELS):
            repaired("labels", column, lambda labels: fastnet.one_hot(labels, 3), "umber")
    repaired("labels", pd.DataFrame({"a": LABELS}), fastnet.one_hot, "labels.iloc[:, 0]")
    for whole in (pd.Index(LABELS), pd.array(LABELS, dtype="Int64"), pd.Categorical(LABELS)):
        assert np.array_equal(fastnet.one_hot(whole), T)
    repaired("labels", pd.Index(["cat", "dog", "eel"]), fastnet.one_hot, "Number the labels")


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # of PyTorch's tensors
def test_tensors():
    torch = pytest.importorskip("torch")
    x = torch.tensor(X)
    repaired("x", x[0], network().predict, "np.atleast_2d(x)")
    repaired("x", x.T, network().predict, "np.transpose(x)")
    repaired("x", x.to_sparse(), network().predict, "x.to_dense()")
    repaired("y", torch.tensor(LABELS), lambda y: network().fit(X, y, 1), "fastnet.one_hot(y, 3)")
    x[2, 1] = torch.nan
    repaired("x", x, lambda x: network().fit(x, T, 1), "x.nan_to_num(0, 0, 0)")


# --- images ---------------------------------------------------------------------------------------------------------


IMAGES = {
    "rows": (1, np.ones((5, 16)), "np.reshape(x, (-1, 1, 4, 4))"),
    "rows of colours": (3, np.ones((5, 48)).tolist(), "np.reshape(x, (-1, 3, 4, 4))"),
    "one image": (3, np.ones((3, 4, 4)), "np.expand_dims(x, 0)"),
    "one image in a list": (3, np.ones((3, 4, 4)).tolist(), "np.expand_dims(x, 0)"),
    "no axis of channels": (1, np.ones((5, 4, 4)), "np.expand_dims(x, 1)"),
    "channels last": (3, np.ones((5, 4, 4, 3)), "np.transpose(x, (0, 3, 1, 2))"),
    "channels last in a list": (3, np.ones((5, 4, 4, 3)).tolist(), "np.transpose(x, (0, 3, 1, 2))"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind):
    channels, value, contains = IMAGES[kind]
    repaired("x", value, ConvLayer(channels, 2, 3, rng=0).forward, contains)
    if np.ndim(value) in (2, 4):
        model = Sequential((ConvLayer(channels, 2, 3, rng=0), FlattenLayer(), FullLayer(32, 3), SoftMaxLayer()), CrossEntropyLayer())
        repaired("x", value, model.predict, contains)


def test_images_of_no_square():
    assert not advice(message_of(ConvLayer(1, 2, 3).forward, np.ones((5, 17))))
    assert not advice(message_of(ConvLayer(3, 2, 3).forward, np.ones((5, 4, 4))))


# --- models ---------------------------------------------------------------------------------------------------------


def test_layers_in_something_else():
    full = FullLayer(4, 3)
    repaired_by_brackets = message_of(Sequential, full, CrossEntropyLayer())
    assert "Put it in brackets" in repaired_by_brackets
    Sequential((full,), CrossEntropyLayer())
    layers = {"first": full, "last": SoftMaxLayer()}
    message = message_of(Sequential, layers, CrossEntropyLayer())
    Sequential(evaluated(advice(message)[-1], layers=layers), CrossEntropyLayer())
    assert "A set has no order" in message_of(Sequential, {full}, CrossEntropyLayer())
    assert "brackets" not in message_of(Sequential, "network", CrossEntropyLayer())
    assert "Instantiate it: ReluLayer(...)" in message_of(Sequential, (full, ReluLayer), CrossEntropyLayer())


def test_widths():
    message = message_of(Sequential, (FullLayer(4, 5), ReluLayer(), FullLayer(6, 3)), CrossEntropyLayer())
    assert "Make the n_i of layers[2] 5, or the n_o of layers[0] 6." in message
    Sequential((FullLayer(4, 5), ReluLayer(), FullLayer(5, 3)), CrossEntropyLayer())
    Sequential((FullLayer(4, 6), ReluLayer(), FullLayer(6, 3)), CrossEntropyLayer())
    message = message_of(Sequential, (ConvLayer(1, 2, 3), MaxPoolLayer(2), FullLayer(8, 3)), CrossEntropyLayer())
    assert "Put a FlattenLayer() before it" in message
    Sequential((ConvLayer(1, 2, 3), MaxPoolLayer(2), FlattenLayer(), FullLayer(8, 3)), CrossEntropyLayer())
