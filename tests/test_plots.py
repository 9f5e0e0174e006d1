"""Pictures: what is drawn, read back from the figures; how notebooks get them; and what cannot be drawn."""
import subprocess
import sys
import warnings

import numpy as np
import pytest

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
    one_hot,
    plots,
)
from fastnet.training import History

PNG = b"\x89PNG"
LABELS = [0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED = [0, 0, 1, 0, 1, 1, 2, 0]
NAMES = ["cat", "dog", "owl"]


def network(n_i=12, n_o=3):
    return Sequential((FullLayer(n_i, 5, rng=0), ReluLayer(), FullLayer(5, n_o, rng=1), SoftMaxLayer()), CrossEntropyLayer())


@pytest.fixture
def fitted(rng):
    model = network()
    x, labels = rng.standard_normal((30, 12)), rng.integers(0, 3, 30)
    model.fit(x, one_hot(labels, 3), 4, 0.1, validation=(x, labels))
    return model


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_curves(fitted):
    loss, accuracy = fitted.history.plot().axes
    assert np.array_equal(lines(loss)["training"], np.transpose([[1, 2, 3, 4], fitted.history.losses]))
    assert np.array_equal(lines(loss)["validation"][:, 1], fitted.history.val_losses)
    assert np.array_equal(lines(accuracy)["validation"][:, 1], fitted.history.val_accuracies)
    best = int(np.argmin(fitted.history.val_losses))
    assert np.array_equal(lines(loss)[f"lowest: epoch {best + 1}"], [[best + 1, fitted.history.val_losses[best]]])
    assert fitted.plot().png().startswith(PNG)


def test_curves_without_validation_and_of_a_diverged_fit(rng):
    model = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(rng.standard_normal((30, 12)), one_hot(np.arange(30) % 3), 20, 1e6)
    (axes,) = model.history.plot().axes
    assert axes.get_title() == f"diverged in epoch {model.history.epochs}"
    assert model._repr_png_().startswith(PNG)


def test_notebooks_show_them(fitted):
    assert fitted._repr_png_().startswith(PNG)
    assert fitted.history._repr_png_().startswith(PNG)
    assert network()._repr_png_() is None
    assert History()._repr_png_() is None
    assert plots.images(np.zeros((2, 12), np.uint8))._repr_png_().startswith(PNG)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="the history has no epochs"):
        History().plot()
    with pytest.raises(RuntimeError, match=r"Sequential.plot: history"):
        network().plot()


def test_confusion_matrix():
    figure = plots.confusion_matrix(LABELS, PREDICTED, NAMES)
    axes = figure.axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0, 1, 0], [0.5, 0, 0.5]])
    cells = {tuple(map(round, text.get_position()[::-1])): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "3", (0, 1): "1", (1, 1): "2", (2, 0): "1", (2, 2): "1"}
    assert [t.get_text() for t in axes.get_xticklabels()] == [t.get_text() for t in axes.get_yticklabels()] == NAMES
    assert axes.get_title() == "6 of 8 right: 75.0%"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true class")
    other = plots.confusion_matrix(one_hot(LABELS), np.eye(3)[PREDICTED] * 0.9).axes[0]
    assert np.array_equal(other.images[0].get_array(), shares)


def test_a_class_that_never_occurs():
    assert plots.confusion_matrix([0, 0], [0, 2]).axes[0].images[0].get_array()[1].sum() == 0
    axes = plots.class_accuracy([0, 0, 2], [0, 2, 2], NAMES).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat (2)", "owl (1)"]


def test_many_classes_have_no_numbers():
    labels = np.arange(40)
    assert len(plots.confusion_matrix(labels, labels).axes[0].texts) == 0


def test_class_accuracy():
    axes = plots.class_accuracy(LABELS, PREDICTED, NAMES).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.75, 1, 0.5]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat (4)", "dog (2)", "owl (2)"]
    assert {"all: 0.750", "chance: 0.333"} <= {line.get_label() for line in axes.lines}


@pytest.mark.parametrize("right, total, low, high", [(8, 10, 0.490, 0.943), (0, 10, 0, 0.278), (500, 1000, 0.469, 0.531)])
def test_wilson(right, total, low, high):  # the values of R's prop.test(..., correct=FALSE)
    assert plots.wilson(right, total) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize("values, expected", [
    (np.array([[0, 255, 51, 102] * 3], np.uint8), [0, 1, 0.2, 0.4]),
    (np.array([[-0.5, 0.5, -0.3, -0.1] * 3]), [0, 1, 0.2, 0.4]),
    (np.array([[0, 1, 0.2, 0.4] * 3], np.float32), [0, 1, 0.2, 0.4]),
    (np.array([[-10, 10, -6, -2] * 3]), [0, 1, 0.2, 0.4]),
])
def test_pixels_become_colours(values, expected):
    (axes,) = plots.images(values).axes
    shown = axes.images[0].get_array()
    assert shown.shape == (2, 2, 3)
    np.testing.assert_allclose(shown.reshape(4, 3), np.transpose([expected] * 3), atol=1e-7)


def test_images_stand_in_the_line_of_their_class():
    x = np.repeat(np.arange(8, dtype=np.uint8)[:, None], 16, axis=1)
    figure = plots.images(x, LABELS, NAMES, n=6)
    rows = np.reshape([axes.images[0].get_array()[0, 0] * 255 if axes.images else -1 for axes in figure.axes], (3, 2))
    np.testing.assert_allclose(rows, [[0, 1], [4, 5], [6, 7]])
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == NAMES


def test_mistakes_begin_with_the_surest():
    p = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0, 1.0, 0], [0.2, 0.7, 0.1]])
    x = np.repeat(np.arange(4, dtype=np.uint8)[:, None], 16, axis=1)
    first, second = plots.mistakes(x, [1, 0, 1, 2], p, NAMES).axes
    assert first.get_title() == "dog\nnot cat (90%)"
    assert second.get_title() == "owl\nnot dog (70%)"
    assert second.images[0].get_array()[0, 0] == pytest.approx(3 / 255)
    figure = plots.mistakes(x, p.argmax(1), p)
    assert figure.texts[0].get_text() == "All 4 are right."


def test_weights_of_a_full_layer():
    model = network()
    model.layers[0].W *= np.array([1, 5, 1, 9, 1])[:, None]
    figure = plots.weights(model, n=2)
    for axes, row in zip(figure.axes, model.layers[0].W[[3, 1]], strict=True):
        expected = 0.5 + 0.5 * row / np.abs(row).max()
        np.testing.assert_allclose(axes.images[0].get_array(), expected.reshape(3, 2, 2).transpose(1, 2, 0))


@pytest.mark.parametrize("channels, shape", [(3, (3, 3, 3)), (1, (3, 3)), (4, (3, 3))])
def test_filters_of_a_convolution(channels, shape):
    model = Sequential((ConvLayer(channels, 6, 3, rng=0), FlattenLayer(), FullLayer(54, 2, rng=0), SoftMaxLayer()),
                       CrossEntropyLayer())
    axes = plots.weights(model).axes
    assert len(axes) == 6
    assert axes[0].images[0].get_array().shape == shape


@pytest.mark.parametrize("call, error, message", [
    (lambda: plots.weights(network(7)), ValueError, "7 values per sample are no square image. Give shape="),
    (lambda: plots.weights(network(12), shape=(1, 3, 5)), ValueError, "product of 12"),
    (lambda: plots.weights(Sequential((ReluLayer(),), CrossEntropyLayer())), ValueError, "the first layer must have weights"),
    (lambda: plots.images(np.zeros((2, 4, 5, 5))), ValueError, "with 1 or 3 channels"),
    (lambda: plots.images(np.zeros((0, 12))), ValueError, "x is empty"),
    (lambda: plots.confusion_matrix([0, 1], [0]), ValueError, "2 labels but 1 predictions"),
    (lambda: plots.confusion_matrix([0, 3], [0, 1], NAMES), ValueError, "3 class names, but labels go up to 3"),
])
def test_what_cannot_be_drawn(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_other_shapes_on_request():
    (axes,) = plots.images(np.zeros((1, 12)), shape=(1, 3, 4)).axes
    assert axes.images[0].get_array().shape == (3, 4)


def test_matplotlib_loads_when_something_is_drawn():
    code = ("import sys, fastnet.plots, fastnet.cli\nassert 'matplotlib' not in sys.modules\n"
            "fastnet.plots.confusion_matrix([0, 1], [0, 1])\nassert 'matplotlib.pyplot' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
