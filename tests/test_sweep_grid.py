"""Learning rates and seeds from lists and texts."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.sweep import rates
from fastnet.sweep.grid import seeds
from tests.sweeps import case


@pytest.mark.parametrize("given, expected", [
    ([0.1, 0.01, 0.3], (0.1, 0.01, 0.3)),
    ("0.01,0.1, 0.3,10", (0.01, 0.1, 0.3, 10.0)),
    ("1e-3:10:log5", (0.001, 0.01, 0.1, 1.0, 10.0)),
    ("0.1:0.5:lin5", (0.1, 0.2, 0.3, 0.4, 0.5)),
    ("10:0.1:log3, 20", (10.0, 1.0, 0.1, 20.0)),
    ("0.5:0.5:log1", (0.5,)),
    (0.1, (0.1,)),
    (np.array([1, 2]), (1.0, 2.0)),
    ((lr for lr in (1, 2)), (1.0, 2.0)),
], ids=case)
def test_rates(given, expected):
    assert rates(given) == expected


@pytest.mark.parametrize("wrong, error, words", [
    ([], ValueError, "no learning rate"),
    ("", ValueError, "no learning rate"),
    (" , ", ValueError, "no learning rate"),
    ([0.1, 0], ValueError, "above 0, got 0"),
    ([-0.1], ValueError, "above 0, got -0.1"),
    ([np.nan], ValueError, "finite"),
    ("nan", ValueError, "finite"),
    (np.inf, ValueError, "finite"),
    ([True], ValueError, "finite"),
    ([0.1, 0.2, 0.1], ValueError, "0.1 twice"),
    ("0.1,0.01:1:log3", ValueError, "0.1 twice"),
    ([0.1, np.float32(0.1)], ValueError, "0.1 and 0.10000000149.*, which are the same to 6 digits"),
    (np.float32([1, 1.0000001]), ValueError, "same to 6 digits"),
    ("0.1:1", ValueError, "cannot read '0.1:1'"),
    ("0.1:1:9", ValueError, "cannot read"),
    ("0.1:1:log", ValueError, "cannot read"),
    ("0.1:1:log0", ValueError, "asks for 0 rates"),
    ("0.1:1:log1", ValueError, "asks for 1 rates"),
    ("0:1:lin3", ValueError, "above 0"),
    ("fast", TypeError, "must be a number, got 'fast'"),
    ([None], TypeError, "must be a number, got None"),
    (None, TypeError, "must be a number"),
], ids=case)
def test_wrong_rates(wrong, error, words):
    with pytest.raises(error, match=words):
        rates(wrong)


@given(st.floats(1e-6, 1e3), st.floats(1.1, 1e4), st.integers(2, 64))
def test_a_grid_has_its_ends_and_equal_ratios(first, ratio, count):
    found = rates(f"{first!r}:{first * ratio!r}:log{count}")
    assert len(found) == count
    np.testing.assert_allclose([found[0], found[-1]], [first, first * ratio], rtol=1e-5)
    np.testing.assert_allclose(np.diff(np.log(found)), np.log(ratio) / (count - 1), atol=2e-5)


def test_seeds():
    assert [seeds(given, "test") for given in (3, [7, 3], range(2), np.int64(1))] == [(0, 1, 2), (7, 3), (0, 1), (0,)]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None, [], [1, 1], [-1], [0.5], "3"], ids=repr)
def test_wrong_seeds(wrong):
    with pytest.raises((ValueError, TypeError), match="seeds must"):
        seeds(wrong, "test")
