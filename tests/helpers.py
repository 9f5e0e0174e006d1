"""Arrays in every layout, and what a failed call may not change."""
import copy
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import strategies as st

LAYOUTS = ("C", "F", "strided", "reversed", "read-only")
sizes = st.sampled_from([1, 2, 3, 5, 8, 17, 33, 64, 100])
dtypes = st.sampled_from([np.float32, np.float64])
layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**32 - 1)


def laid_out(a, layout):
    """The numbers of ``a`` in another memory layout."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "strided":
        base = np.zeros([2 * s for s in a.shape], a.dtype)
        view = base[tuple(slice(None, None, 2) for _ in a.shape)]
        view[...] = a
        return view
    if layout == "reversed":
        flip = tuple(slice(None, None, -1) for _ in a.shape)
        return np.ascontiguousarray(a[flip])[flip]
    a = a.copy()
    a.setflags(write=layout != "read-only")
    return a


@st.composite
def normals(draw, shape, dtype, scale=1.0):
    """Normal numbers of both signs, in any layout."""
    rng = np.random.default_rng(draw(seeds))
    return laid_out((rng.standard_normal(shape) * scale).astype(dtype), draw(layouts))


@st.composite
def batches(draw, scale=1.0):
    """A matrix of any small shape, type and layout."""
    return draw(normals((draw(sizes), draw(sizes)), draw(dtypes), scale))


def eps(a):
    return np.finfo(a.dtype).eps


def filled(shape, dtype):
    """An output: full of NaN, so that what a kernel leaves unwritten shows."""
    return np.full(shape, np.nan, dtype)


def one_hot_rows(rng, n, n_classes, dtype=np.float64):
    return np.eye(n_classes, dtype=dtype)[rng.integers(0, n_classes, n)]


def same(a, b):
    """Equal, arrays element by element, objects attribute by attribute."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if hasattr(a, "__dict__") and not isinstance(a, type):
        return vars(a).keys() == vars(b).keys() and all(same(v, vars(b)[k]) for k, v in vars(a).items())
    return a is b or a == b


@contextmanager
def refuses(error, match, *objects):
    """The block raises, its message matches, and the objects are what they were."""
    before = copy.deepcopy(objects)
    with pytest.raises(error, match=match) as info:
        yield info
    assert same(before, objects), "a call that failed has changed something"
