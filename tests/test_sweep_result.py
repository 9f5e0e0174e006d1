"""SweepResult: what it suggests, its tables, its picture."""
import csv
import json
import warnings

import numpy as np
import pytest

from fastnet.sweep import lr_sweep
from fastnet.sweep.result import SweepResult
from fastnet.sweep.spec import Builders, Spec, Trial
from fastnet.sweep.trial import Record
from fastnet.training import Evaluation
from tests.sweeps import RATES, build, network, small


@pytest.fixture(scope="module")
def result():
    return lr_sweep(**small())


def made_up(accuracies, lrs=(0.1, 0.2, 0.4, 0.8), validation=True, names=("",)):
    """A result with these accuracies, a row a rate, nan where a trial diverged, None where it was not run."""
    table = np.array(accuracies, dtype=object)
    table = table if names != ("",) else table[None]
    spec = Spec(names, lrs, tuple(range(table.shape[2])), 1, 8, "gram", False, 0.0, 0.0, 10.0)
    records = {}
    for (i, j, k), accuracy in np.ndenumerate(table):
        if accuracy is not None:
            trial, lost = Trial(names[i], lrs[j], k), np.isnan(accuracy)
            records[trial] = Record(trial, "diverged" if lost else "done", "gram", [1 - accuracy], [1.0], [accuracy],
                                    Evaluation(1.0, 0.2 if lost else accuracy), 1.0)
    x, y = small()["x"], small()["y"]
    builders = Builders(build if names == ("",) else {name: build for name in names})
    return SweepResult(spec, records, dict.fromkeys(names, "gram"), builders, (x, y, (x, y) if validation else None, None))


nan = float("nan")


@pytest.mark.parametrize("accuracies, expected", [
    ([[0.5, 0.5], [0.7, 0.7], [0.6, 0.6], [0.1, 0.1]], 0.2),  # the best
    ([[0.5, 0.5], [0.6, 0.8], [0.65, 0.65], [0.1, 0.1]], 0.4),  # the largest within one standard error, which is 0.1
    ([[0.5, 0.5], [0.6, 0.8], [0.59, 0.59], [0.1, 0.1]], 0.2),
    ([[0.5, 0.5], [0.7, 0.7], [0.9, nan], [nan, nan]], 0.2),  # a rate of which a seed diverged is never suggested
    ([[0.5], [0.7], [0.7], [nan]], 0.4),
    ([[0.5, 0.5], [0.7, None], [None, None], [nan, None]], 0.2),  # of an interrupted sweep
], ids=str)
def test_suggest(accuracies, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made_up(accuracies).suggest() == expected


@pytest.mark.parametrize("accuracies, words", [
    ([[0.8], [0.7], [0.6], [0.1]], "0.1 is the smallest rate of the sweep"),
    ([[0.5], [0.7], [0.8], [0.9]], "0.8 is the largest rate of the sweep"),
])
def test_the_edge_of_the_grid_warns(accuracies, words):
    with pytest.warns(UserWarning, match=words):
        made_up(accuracies).suggest()


def test_a_diverged_neighbour_is_no_edge():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made_up([[0.5], [0.6], [0.7], [nan]]).suggest() == 0.4


def test_without_validation_data_it_warns_and_takes_the_loss():
    with pytest.warns(UserWarning, match="no validation data"):
        assert made_up([[0.5], [0.7], [0.6], [0.1]], validation=False).suggest() == 0.2


def test_nothing_to_suggest():
    with pytest.raises(ValueError, match="every rate diverged"):
        made_up([[nan]] * 4).suggest()
    with pytest.raises(ValueError, match="no trial is finished"):
        made_up([[None]] * 4).suggest()


def test_suggest_among_networks():
    both = made_up([[[0.5], [0.7], [0.6], [0.1]], [[0.5], [0.6], [0.8], [0.1]]], names=("a", "b"))
    assert both.suggest() == ("b", 0.4)


def test_best_model_has_the_losses_of_its_trial(result):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = result.best_model(lr=0.3)
    seed = int(result.val_accuracies[1, :, -1].argmax())
    np.testing.assert_array_equal(model.history.losses, result.losses[1, seed])
    other = result.best_model(lr=0.02, seed=1 - seed)
    np.testing.assert_array_equal(other.history.losses, result.losses[0, 1 - seed])
    assert result.best_model().history.losses  # of the suggested rate


def test_best_model_of_what_was_not_run(result):
    with pytest.raises(ValueError, match=r"no trial of rate 0.7, seed 0 is finished. Rates: 0.02, 0.3, 10000; seeds: \[0, 1\]"):
        result.best_model(lr=0.7)


def test_best_model_among_networks():
    both = lr_sweep(**small(build={"a": network(12, 9, 3), "b": network(12, 3)}))
    name, _ = both.suggestion()
    model = both.best_model()
    assert model.layers[0].n_o == (9 if name == "a" else 3)
    assert both.best_model(name="b").layers[0].n_o == 3


def test_csv(result, tmp_path):
    result.to_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and "name" not in rows[0]
    assert [float(row["lr"]) for row in rows] == RATES * 2 and rows[2]["status"] == "diverged" and rows[2]["epochs"] == "1"
    assert float(rows[4]["loss"]) == result.losses[1, 1, -1]
    assert float(rows[4]["test_accuracy"]) == result.accuracies[1, 1]


def test_json(result, tmp_path):
    result.to_json(tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda constant: pytest.fail(constant))
    assert found["spec"]["lrs"] == RATES and len(found["trials"]) == 6
    assert found["trials"][0]["losses"] == result.losses[0, 0].tolist()
    assert found["trials"][2]["status"] == "diverged"


def test_pandas(result):
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert len(frame) == 6 and frame.groupby("lr").val_accuracy.mean().index.tolist() == sorted(RATES)


def test_repr_and_html(result):
    lines = repr(result).splitlines()
    assert lines[0] == "SweepResult: 3 rates x 2 seeds, 4 epochs; 2 diverged"
    assert "+-" in lines[2] and sum("<- suggested" in line for line in lines) == 1 and "2 of 2" in lines[-1]
    assert result._repr_html_().count("<tr>") == 4
    assert "2 of 4 trials finished" in repr(made_up([[0.5], [0.5], [None], [None]]))
    assert "&lt;b&gt;" in made_up([[[0.5]] * 4] * 2, names=("<b>", "c"))._repr_html_()


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_picture_of_few_rates(result, tmp_path):
    figure = result.plot()
    curves, metric = figure.axes
    assert texts(curves) == ["0.02", "0.3", "10000, diverged"]
    assert texts(metric)[:2] == ["validation accuracy", "test accuracy"] and "some seed diverged" in texts(metric)
    assert metric.get_xscale() == "log"
    result.save_plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_many_rates_and_networks(tmp_path):
    many = lr_sweep(**small(lrs="1e-3:1e4:log64", epochs=2, build={"a": network(12, 9, 3), "b": network(12, 3)}))
    figure = many.plot("loss")
    assert len(figure.axes) == 2 * 2 + 2  # panels, and a colour bar for each network
    many.save_plot(tmp_path / "a.pdf")


@pytest.mark.parametrize("accuracies", [[[nan]] * 4, [[None]] * 4, [[0.5]] * 4], ids=["diverged", "missing", "one seed"])
def test_pictures_of_little(accuracies, tmp_path):
    made_up(accuracies).save_plot(tmp_path / "a.png")
    made_up([accuracies[0]], lrs=(0.1,)).save_plot(tmp_path / "b.png")


def test_an_unknown_metric(result):
    with pytest.raises(ValueError, match="metric must be one of"):
        result.plot("speed")
