"""SweepResult: what it suggests, its tables, its picture."""
import csv
import json
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from fastnet.sweep import lr_sweep
from fastnet.sweep.record import Record
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.again import train_again
from fastnet.sweep.run.builders import Builders
from fastnet.sweep.show import plot
from fastnet.sweep.spec import Setting, Spec, Trial
from tests.sweeps import RATES, build, network, small


@pytest.fixture(scope="module")
def result():
    return lr_sweep(**small())


def made_up(accuracies, lrs=(0.1, 0.2, 0.4, 0.8), validation=True, names=("",)):
    """A result with these accuracies, a row per rate, nan where a trial diverged, None where it was not run."""
    table = np.array(accuracies, dtype=object)
    table = table if names != ("",) else table[None]
    spec = Spec(lrs, tuple(range(table.shape[2])), 1, (("name", names),))
    records = {}
    for (i, j, k), accuracy in np.ndenumerate(table):
        if accuracy is not None:
            trial, lost = Trial(Setting(name=names[i]), lrs[j], k), np.isnan(accuracy)
            curves = {"loss": [1 - accuracy], "val_loss": [1.0], "val_accuracy": [accuracy]}
            records[trial] = Record(trial, "diverged" if lost else "done", "gram", curves if validation else {"loss": curves["loss"]},
                                    {"test_loss": 1.0, "test_accuracy": 0.2 if lost else accuracy}, 1.0)
    x, y = small()["x"], small()["y"]
    builders = Builders(build if names == ("",) else {name: build for name in names})
    return SweepResult(spec, records, dict.fromkeys(spec.settings, "gram"),
                       partial(train_again, builders, (x, y, (x, y) if validation else None, None)))


nan = float("nan")


@pytest.mark.parametrize("accuracies, expected", [
    ([[0.5, 0.5], [0.7, 0.7], [0.6, 0.6], [0.1, 0.1]], 0.2),  # the best
    ([[0.5, 0.5], [0.6, 0.8], [0.65, 0.65], [0.1, 0.1]], 0.2),
    ([[0.5, 0.5], [0.6, 0.8], [0.59, 0.59], [0.1, 0.1]], 0.2),
    ([[0.5, 0.5], [0.7, 0.7], [0.9, nan], [nan, nan]], 0.2),  # a rate of which a seed diverged is never suggested
    ([[0.5], [0.7], [0.71], [nan]], 0.4),
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
    assert both.suggest() == 0.4 and both.suggest().name == "b"
    assert both.suggest(name="a") == 0.2
    with pytest.raises(ValueError, match=r"there is no name 'c'\. There is: 'a', 'b'"):
        both.suggest(name="c")


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
    name = both.suggestion().name
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
    assert "+-" in lines[2] and sum("<- suggested" in line for line in lines) == 1 and "2 of 2" in lines[-2]
    assert "at best, at rate 0.3" in lines[-1]  # ten held-out samples cannot show more
    assert result._repr_html_().count("<tr>") == 4
    assert "2 of 4 trials finished" in repr(made_up([[0.5], [0.5], [None], [None]]))
    assert "&lt;b&gt;" in made_up([[[0.5]] * 4] * 2, names=("<b>", "c"))._repr_html_()


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_two_seeds_are_drawn_as_points():
    """Their interval, t = 12.7, would flatten everything."""
    assert plot._interval([0.1]) == plot._interval([0.1, 0.9]) == 0.0
    assert plot._interval([0.4, 0.5, 0.6]) == pytest.approx(0.248, abs=1e-3)


def test_the_picture_of_few_rates(result, tmp_path):
    figure = result.plot()
    curves, of_validation, metric = figure.axes
    assert texts(curves)[:2] == ["0.02", "0.3"] and of_validation.get_ylabel() == "validation loss"
    labels = texts(metric)
    assert "validation accuracy (mean)" in labels and "test accuracy (mean)" in labels and "diverged" in labels
    assert metric.get_xscale() == "log"
    result.save_plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_many_rates_and_networks(tmp_path):
    many = lr_sweep(**small(lrs="1e-3:1e4:log64", epochs=2, build={"a": network(12, 9, 3), "b": network(12, 3)}))
    figure = many.plot("loss")
    assert len(figure.axes) == 2 * 3 + 2  # panels, and a colour bar for each network
    many.save_plot(tmp_path / "a.pdf")


@pytest.mark.parametrize("accuracies", [[[nan]] * 4, [[None]] * 4, [[0.5]] * 4], ids=["diverged", "missing", "one seed"])
def test_pictures_of_little(accuracies, tmp_path):
    made_up(accuracies).save_plot(tmp_path / "a.png")
    made_up([accuracies[0]], lrs=(0.1,)).save_plot(tmp_path / "b.png")


def test_an_unknown_metric(result):
    with pytest.raises(ValueError, match="metric must be one of"):
        result.plot("speed")


# --- how sure ----------------------------------------------------------------------------------------------------------


def noisy(means, seeds, noise=0.01, draw=0, scatter=1.0):
    rng = np.random.default_rng(draw)
    values = np.array(means)[:, None] + rng.normal(size=(1, seeds)) * 0.02
    values = values + rng.normal(size=(len(means), seeds)) * noise * np.broadcast_to(scatter, len(means))[:, None]
    return made_up(values.tolist(), lrs=tuple(0.02 * 1.5**i for i in range(len(means))))


CURVE = [0.60, 0.64, 0.67, 0.69, 0.70, 0.69, 0.67, 0.60]


def test_the_true_best_is_among_those_that_cannot_be_told_apart():
    """In 95% of draws, on curves with a known best rate, whether all rates scatter alike or not."""
    for scatter in (1.0, np.linspace(0.5, 3, len(CURVE))):
        found = [noisy(CURVE, 5, draw=draw, scatter=scatter).suggestion() for draw in range(40)]
        assert sum(0.02 * 1.5**4 in suggestion.rates for suggestion in found) >= 38
        assert np.mean([CURVE[round(np.log(s.lr / 0.02) / np.log(1.5))] for s in found]) > 0.69


@pytest.mark.parametrize("last", [0.4, None, nan], ids=["breaks down", "was not run", "diverges"])
def test_the_best_rate_next_to_a_cliff_is_not_dragged_under(last):
    """Whatever its neighbours do: the mean of each rate speaks for itself."""
    climbing = [0.60, 0.63, 0.66, 0.69, 0.72]
    values = [[mean + jump for jump in (-0.01, 0.0, 0.01)] for mean in climbing]
    values.append([last] * 3)
    result = made_up(values, lrs=tuple(0.01 * 2**i for i in range(6)))
    assert result.suggestion() == 0.16


def test_of_equal_means_the_middle_rate_is_taken():
    assert made_up([[0.5, 0.6], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.1, 0.1]], lrs=(1, 2, 3, 4, 5)).suggestion() == 3


def test_a_validation_accuracy_is_judged_over_the_last_epochs():
    """A jump in the last epoch makes no rate the best one; tables and scores show that epoch all the same."""
    result = made_up([[0.5, 0.5], [0.5, 0.5]], lrs=(0.1, 0.2))
    for record in result.records.values():
        steady = record.trial.lr == 0.1
        record.val_accuracies[:] = [0.1] * 17 + ([0.6, 0.6, 0.6] if steady else [0.5, 0.5, 0.62])
        record.losses[:], record.val_losses[:] = [1.0] * 20, [1.0] * 19 + [0.9 if steady else 0.8]
    result.spec = replace(result.spec, epochs=20)
    found = result.suggestion()
    assert found == 0.1 and found.mean == pytest.approx(0.6)
    assert "over 2 seeds and the last 3 epochs" in found.explanation()
    assert result.score(0.2).mean == pytest.approx(0.62)
    assert result.suggestion("val_loss") == 0.2 and result.suggestion("best_val_accuracy") == 0.2  # of one epoch


def test_it_says_when_there_are_too_few_trials_and_how_many_would_do():
    one = made_up([[0.5], [0.7], [0.6], [0.1]]).suggest()
    assert not one.enough and one.needed is None and np.isnan(one.otherwise) and "give several seeds" in one.explanation()
    few = noisy(CURVE, 3, noise=0.03).suggestion()
    assert not few.enough and few.needed > 3 and f"about {few.needed} trials a rate would be" in few.explanation()
    many = noisy(CURVE, 40, noise=0.005).suggestion()
    assert many.enough and many.otherwise < 0.1 and many == 0.02 * 1.5**4 and many.trials == 40


def test_the_metric_decides(result):
    assert result.suggest("val_loss").metric == "val_loss" and result.suggest("best_val_loss").metric == "best_val_loss"
    with pytest.raises(ValueError, match="metric must be one of"):
        result.suggest("speed")
    with pytest.raises(ValueError, match="needs validation data"):
        made_up([[0.5]] * 4, validation=False).suggest("val_loss")


def test_score_lists_what_there_is(result):
    assert result.score(0.3000001).seeds == 2  # rates match to 6 digits
    with pytest.raises(ValueError, match=r"there is no rate 0.31. Rates: 0.02, 0.3, 10000"):
        result.score(0.31)
    with pytest.raises(ValueError, match="there is no name 'a'"):
        result.score(0.3, name="a")
    both = made_up([[[0.5]] * 4] * 2, names=("a", "b"))
    with pytest.raises(ValueError, match="say which one: name='a' or 'b'"):
        both.score(0.1)
    assert both.score(0.1, name="b").mean == 0.5


def test_an_interrupted_sweep_gives_no_advice_about_rates_that_were_not_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made_up([[0.5], [0.6], [None], [None]]).suggest() == 0.2


def test_an_empty_result_draws_a_word():
    figure = made_up([[None]] * 4).plot()
    assert [text.get_text() for text in figure.texts] == ["No trial is finished yet."]


def test_notebooks_show_pictures(result):
    assert result.plot()._repr_png_().startswith(b"\x89PNG")
    assert 'src="data:image/png;base64,' in result._repr_html_()
