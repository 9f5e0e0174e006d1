"""Tables of pandas and tensors of PyTorch where arrays are taken; score and the CSV log."""
import csv

import numpy as np
import pytest

from fastnet import CrossEntropyLayer, CSVLogger, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot


@pytest.fixture
def data(rng):
    x = rng.standard_normal((30, 4))
    labels = rng.integers(0, 3, 30)
    return x, labels, one_hot(labels, 3)


def network():
    return Sequential((FullLayer(4, 5, rng=0), ReluLayer(), FullLayer(5, 3, rng=1), SoftMaxLayer()), CrossEntropyLayer())


def trained(x, t, x_test, labels):
    model = network()
    losses = model.fit(x, t, 3, 0.1, 8, validation=(x_test, labels), progress=False)
    first = model.layers[0]
    assert first.forward(x)[0] == pytest.approx(first.W @ np.asarray(x, float)[0] + first.b[0], rel=1e-12, abs=1e-15)
    return *losses, *model.history.val_losses, *model.predict(x_test), model.score(x_test, labels)


def test_a_layer_of_few_outputs_sums_rows_of_any_layout(data):
    """In an order that depends on the layout, as in a BLAS: to the last bits."""
    x, layer = data[0], network().layers[0]
    expected = layer.forward(x).copy()
    for same in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        np.testing.assert_allclose(layer.forward(same), expected, rtol=1e-12, atol=1e-15)


def test_pandas(data):
    pd = pytest.importorskip("pandas")
    x, labels, t = data
    expected = trained(x, t, x, labels)
    table, column = pd.DataFrame(x, columns=list("abcd")), pd.Series(labels)
    assert trained(table, pd.get_dummies(column), table, column) == expected
    assert trained(table.astype("Float64"), t, table[::-1][::-1], column.astype("Int64")) == expected
    assert trained(table.assign(a=x[:, 0]), pd.DataFrame(t), table, column.astype("category")) == expected
    assert np.array_equal(one_hot(column), t)
    mixed = pd.DataFrame({"a": [True, False], "b": [1, 2], "c": np.array([0.5, 1], np.float32), "d": [1.0, 2.0]})
    assert np.array_equal(network().predict_proba(mixed), network().predict_proba(mixed.to_numpy(float)))


def test_pandas_that_holds_no_numbers(data):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(data[0], columns=list("abcd"))
    with pytest.raises(TypeError, match=r"Sequential.predict: x must hold numbers only, .* columns 'b', 'e' hold"):
        network().predict(table.assign(b="text", e="more"))
    missing = table.astype("Float64")
    missing.iloc[2, 1] = pd.NA
    with pytest.raises(ValueError, match=r"x\[2, 1\] is nan"):
        network().fit(missing, data[2], 1, 0.1)


def test_torch(data):
    torch = pytest.importorskip("torch")
    x, labels, t = data
    expected = trained(x, t, x, labels)
    a = torch.tensor(x)
    assert trained(a, torch.tensor(t), a.clone().requires_grad_(), torch.tensor(labels)) == expected
    assert trained(a.T.contiguous().T, t, (-a)._neg_view(), labels) == expected
    layer = FullLayer(4, 3)
    layer.W = torch.ones(3, 4)
    assert layer.W.dtype == np.float64
    assert np.array_equal(network().predict_proba(a.bfloat16()), network().predict_proba(a.bfloat16().float().numpy()))


def test_tensors_that_are_not_in_memory(data):
    torch = pytest.importorskip("torch")
    a = torch.tensor(data[0])
    with pytest.raises(TypeError, match=r"got a tensor on the device meta. Use x.cpu\(\)."):
        network().predict(a.to("meta"))
    with pytest.raises(TypeError, match=r"layout torch.sparse_coo. Use x.to_dense\(\)."):
        network().predict(a.to_sparse())


def test_score(data):
    x, labels, t = data
    model = network()
    assert model.score(x, labels) == model.score(x, t) == np.mean(model.predict(x) == labels)


def test_csv_logger(data, tmp_path):
    x, labels, t = data
    path = tmp_path / "log.csv"
    model = network()
    model.fit(x, t, 3, 0.1, validation=(x, labels), callbacks=CSVLogger(path))
    head, *rows = csv.reader(path.read_text().splitlines())
    assert head == ["epoch", "lr", "loss", "val_loss", "val_accuracy", "seconds"]
    columns = [list(column) for column in zip(*(map(float, row) for row in rows))]
    assert columns[:5] == [[1, 2, 3], model.history.rates, model.history.losses, model.history.val_losses,
                           model.history.val_accuracies]
    model.fit(x, t, 2, 0.1, callbacks=[CSVLogger(path, append=True)])
    head, *rows = csv.reader(path.read_text().splitlines())
    assert [row[0] for row in rows] == ["1", "2", "3", "1", "2"]
    assert rows[3][3:5] == ["", ""]
    model.fit(x, t, 1, 0.1, callbacks=CSVLogger(path))
    assert len(path.read_text().splitlines()) == 2


def test_csv_logger_can_be_read_while_it_runs(data, tmp_path):
    x, _, t = data
    lines = []
    log = CSVLogger(tmp_path / "log.csv")
    network().fit(x, t, 3, 0.1, callbacks=[log, lambda _: lines.append(len(log.path.read_text().splitlines()))])
    assert lines == [2, 3, 4]
    assert repr(log) == f"CSVLogger({str(log.path)!r})"
