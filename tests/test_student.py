"""Student's t beside SciPy's, and one interval wherever fastnet prints one."""
import pytest
from scipy import stats

import better_cifar
from fastnet.base import student
from fastnet.sweep.show import plot


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100, 1001])
def test_quantile_is_scipy_s(freedom, confidence):
    """Judged by SciPy's distribution function: its own quantiles were right to 1e-8 only in earlier versions."""
    beyond = stats.t.sf(student.quantile(freedom, confidence), freedom)
    assert 2 * beyond == pytest.approx(1 - confidence, rel=1e-11)


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_interval_is_scipy_s(n, rng):
    values = rng.normal(size=n)
    mean, low, high = student.interval(values)
    assert mean == pytest.approx(values.mean())
    expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=1e-9)


def test_it_is_used_everywhere():
    assert better_cifar.interval is student.interval
    assert plot.quantile is student.quantile


@pytest.mark.parametrize(("freedom", "confidence"), [(0, 0.95), (3, 1.0), (3, 0.0)])
def test_what_has_no_quantile(freedom, confidence):
    with pytest.raises(ValueError, match="at least 1 degree of freedom and a confidence between 0 and 1"):
        student.quantile(freedom, confidence)
