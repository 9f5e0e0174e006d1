"""What holds for every public call: kinds of input, what importing costs, and where our kernels are found."""
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import refuses

import fastnet
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer

ROOT = Path(fastnet.__file__).parent.parent


def models():
    """Each layer, and a network, all of which take rows of 4."""
    network = Sequential([FullLayer(4, 3, rng=0), ReluLayer(), SoftMaxLayer()], CrossEntropyLayer())
    return [FullLayer(4, 3, rng=0), ReluLayer(), SoftMaxLayer(), network]


def read_only(x):
    x = x.copy()
    x.setflags(write=False)
    return x


def unaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


KINDS = {
    "list": lambda x: x.tolist(),
    "read-only": read_only,
    "Fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "zero strides": lambda x: np.broadcast_to(x[:1], x.shape),
    "unaligned": unaligned,
    "big-endian": lambda x: x.astype(">f8"),
    "integer": lambda x: x.astype(np.int16),
    "unsigned": lambda x: np.abs(x).astype(np.uint8),
    "boolean": lambda x: x > 0,
    "half": lambda x: x.astype(np.float16),
    "long double": lambda x: x.astype(np.longdouble),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_input_of_any_kind_works_and_is_not_written_to(kind, model, rng):
    given = KINDS[kind](np.round(3 * rng.standard_normal((6, 4))))
    before = np.array(given)
    expected = model.forward(np.array(given, np.float64))
    np.testing.assert_allclose(model.forward(given), expected, rtol=1e-5 if kind == "half" else 1e-13)
    assert np.array_equal(given, before)


def test_memory_mapped_input(tmp_path, rng):
    x = rng.standard_normal((6, 4))
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for model in models():
        assert np.array_equal(model.forward(mapped), model.forward(x))
    model.fit(mapped, np.eye(3)[[0, 1, 2, 0, 1, 2]], epochs=1, lr=0.1)


@pytest.mark.parametrize(("x", "error", "match"), [
    (np.ones((6, 4), complex), TypeError, "must hold real numbers, got dtype complex128. Take its real part"),
    (np.ones((6, 4), object), TypeError, "must hold real numbers, got dtype object. Convert it to numbers: np.array.x, dtype=float."),
    (np.full((6, 4), "1"), TypeError, "must hold real numbers, got dtype <U1. Convert it to numbers: np.array"),
    (np.full((6, 4), "2020", "datetime64[s]"), TypeError, "must hold real numbers, got dtype datetime64"),
    ([[1, 2, 3, 4], [1, 2]], ValueError, "not an array.*Give every row the same number of values"),
    (None, TypeError, "must be an array, got None"),
    (np.ones((0, 4)), ValueError, "is empty"),
])
@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_input_that_is_refused(x, error, match, model):
    with refuses(error, match, model):
        model.forward(x)


@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_forward_lets_nan_and_inf_through(model):
    x = np.zeros((2, 4))
    x[0] = np.nan, np.inf, -np.inf, 1
    y = model.forward(x)
    assert np.isnan(y[0]).any()
    assert np.isfinite(y[1]).all()


def test_default_dtype_can_be_set_and_read():
    assert fastnet.get_default_dtype() == np.float64
    fastnet.set_default_dtype("f4")
    assert fastnet.get_default_dtype() == np.float32
    assert FullLayer(2, 2).dtype == np.float32
    assert ReluLayer().forward([[1, 2]]).dtype == np.float32
    for wrong in (np.int32, None, "decimal", ">f2"):
        with refuses(TypeError, "dtype must be float32 or float64"):
            fastnet.set_default_dtype(wrong)
    assert fastnet.get_default_dtype() == np.float32


@pytest.mark.parametrize("stem", ["base.dtypes", "full", "relu", "softmax", "cross_entropy", "sequential", "base.gradcheck"])
def test_examples_in_docstrings(stem):
    result = doctest.testmod(importlib.import_module(f"fastnet.{stem}"))
    assert result.attempted > 0
    assert result.failed == 0


def run(program, *path):
    paths = [str(p) for p in (*path, ROOT)]
    return subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{program}"],
                          capture_output=True, text=True, check=False)


def test_importing_is_light():
    # Numba itself imports scipy, where there is one, to look at its version
    result = run("import numba; before = set(sys.modules); import fastnet; "
                 "print({'matplotlib', 'pooch', 'tqdm', 'scipy', 'torch'} & (sys.modules.keys() - before))")
    assert result.stdout == "set()\n", result.stderr


def test_figures_downloads_and_bars_are_imported_when_they_are_used():
    result = run("import numba; before = set(sys.modules)\n"
                 "import fastnet.cli, fastnet.dataset, fastnet.sweep\n"
                 "from fastnet import *\n"
                 "Sequential([FullLayer(2, 2), SoftMaxLayer()], CrossEntropyLayer()).fit([[1, 2]], [[0, 1]], 1)\n"
                 "print({'matplotlib', 'pooch', 'tqdm', 'scipy', 'pandas'} & (sys.modules.keys() - before))")
    assert result.stdout == "set()\n", result.stderr


@pytest.mark.skipif(not (ROOT / "kernels" / "_jit.py").exists(), reason="needs a checkout, not what is installed")
@pytest.mark.parametrize("first", ["kernels", "kernels.gemm", "fastnet.kernels", "fastnet"])
def test_kernels_in_a_checkout_are_one_package(first):
    result = run(f"import {first}\n"
                 "import sys, kernels, kernels.gemm, fastnet.kernels, fastnet.kernels.gemm as gemm\n"
                 "from kernels import softmax\n"
                 "assert kernels is fastnet.kernels and kernels.gemm is gemm, (kernels, gemm)\n"
                 "assert softmax is sys.modules['fastnet.kernels.softmax']\n"
                 "assert gemm.__name__ == 'fastnet.kernels.gemm' == gemm.__spec__.name\n")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("strange", ["kernels.py", "kernels/__init__.py"])
def test_another_package_called_kernels_is_left_alone(strange, tmp_path):
    (tmp_path / strange).parent.mkdir(exist_ok=True)
    (tmp_path / strange).touch()
    result = run("import kernels, fastnet.kernels.runtime.pool, fastnet\n"
                 "fastnet.FullLayer(2, 3).forward([[1, 2]])\n"
                 "print(kernels is fastnet.kernels, sorted(vars(kernels).keys() & {'gemm', 'threads'}))", tmp_path)
    assert result.stdout == "False []\n", result.stderr


def test_importing_fastnet_imports_no_numba():
    result = run("import sys, fastnet, fastnet._version; print({'numba', 'numpy', 'llvmlite'} & sys.modules.keys())")
    assert result.stdout == "set()\n", result.stderr
    result = run("import fastnet; fastnet.nonsense")
    assert "AttributeError: module 'fastnet' has no attribute 'nonsense'" in result.stderr


# --- options and data that could be read as something else ------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"lr": "0.1"}, "the learning rate must be a number, got '0.1' (str)"),
    ({"lr": ["0.1", 0.1]}, "the learning rate must be a number, got '0.1' (str)"),
    ({"lr": True}, "the learning rate must be a number, got True (bool)"),
    ({"lr": {0: 0.1, 1: 0.01}}, "the learning rate must be a number, got {0: 0.1, 1: 0.01} (dict)"),
    ({"epochs": True}, "epochs must be a whole number, got True (bool)"),
    ({"early_stop": True}, "early_stop must be a whole number, got True (bool)"),
    ({"momentum": "0.9"}, "momentum must be a number, got '0.9' (str)"),
    ({"weight_decay": "1e-3"}, "weight_decay must be a number, got '1e-3' (str)"),
    ({"shuffle": "no"}, "shuffle must be True or False, got 'no' (str)"),
    ({"progress": "no"}, "progress must be True or False, got 'no' (str)"),
    ({"rng": "nonsense"}, "rng must be a generator or a seed, got 'nonsense'"),
])
def test_options_of_the_wrong_kind(options, message):
    model, x, t = course_model(), np.ones((4, 6)), np.eye(3)[[0, 1, 2, 0]]
    with refuses(TypeError, re.escape(f"Sequential.fit: {message}"), model):
        model.fit(x, t, **{"epochs": 2, "lr": 0.1, **options})


@pytest.mark.parametrize(("targets", "message"), [
    (2 * np.eye(3)[[0, 1, 2, 0]] - 1, "y[0] is [ 1. -1. -1.]. They seem to use -1 for 0; convert them: np.add(y, 1) / 2."),
    (5 * np.eye(3)[[0, 1, 2, 0]], "y[0] is [5. 0. 0.]. All rows sum to 5; divide them: np.divide(y, 5)"),
    ([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]], "y[2] is [0. 0. 0.]. Drop the samples without a class; np.any(y, axis=1) is True for the others."),
    ([[0.5, 0.5, 0], [1, 0, 0], [0.6, 0.6, -0.2], [0, 1, 0]], "y[2] is [ 0.6  0.6 -0.2]"),
])
def test_targets_of_a_cross_entropy_are_probabilities(targets, message):
    model, x, t = course_model(), np.ones((4, 6)), np.eye(3)[[0, 1, 2, 0]]
    with refuses(ValueError, re.escape("must be one-hot, or soft labels") + ".*" + re.escape(message), model):
        model.fit(x, targets, 1, 0.1)
    with refuses(ValueError, re.escape(message), model):
        model.fit(x, t, 1, 0.1, validation=(x, targets))
    with refuses(ValueError, re.escape(message), model):
        model.evaluate(x, targets)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, bool, np.int8])
def test_soft_and_hard_labels_of_any_dtype(dtype):
    t = np.eye(3)[[0, 1, 2, 0]] if np.dtype(dtype).kind != "f" else np.full((4, 3), 1 / 3)
    assert np.isfinite(course_model().fit(np.ones((4, 6)), t.astype(dtype), 1, 0.1)[0])


def test_hints_keep_data_whole():
    model, t = course_model(), np.eye(3)[[0, 1, 2, 0]]
    with pytest.raises(ValueError, match=re.escape("Sequential.predict: x must have shape (n, 6), one row per sample, got "
                                                   "(6, 4). It looks transposed: use np.transpose(x).")):
        model.predict(np.ones((6, 4)))
    with pytest.raises(ValueError, match=r"np\.reshape\(np\.transpose\(x, \(0, 3, 1, 2\)\), \(len\(x\), -1\)\)"):
        model.predict(np.ones((4, 2, 2, 3)))
    with pytest.raises(ValueError, match=r"each sample: np\.reshape\(x, \(len\(x\), -1\)\)"):
        model.predict(np.ones((4, 3, 2, 2)))
    with pytest.raises(ValueError, match=r"got \(4, 3\)\. They are one-hot already"):
        fastnet.one_hot(t)
    with pytest.raises(ValueError, match=r"got \(4, 1\)\. Flatten them: np\.ravel\(labels\)"):
        fastnet.one_hot([[0], [1], [2], [0]])
    for labels in (["cat", "dog"], np.array(["cat", "dog"])):
        with pytest.raises(TypeError, match=r"np\.unique\(labels, return_inverse=True\)\[1\]"):
            fastnet.one_hot(labels)


def test_masked_values_are_not_taken_for_values():
    model, x, t = course_model(), np.ma.masked_greater(np.arange(24.0).reshape(4, 6), 21), np.eye(3)[[0, 1, 2, 0]]
    with refuses(TypeError, r"x must be an array without gaps, got a masked array with 2 values masked", model):
        model.fit(x, t, 1, 0.1)
    with refuses(TypeError, r"y must be an array without gaps", model):
        model.fit(x.filled(0), np.ma.masked_equal(t, 0), 1, 0.1)
    assert model.predict(np.ma.array(x.filled(0))).shape == (4,)


def course_model():
    return fastnet.Sequential((fastnet.FullLayer(6, 3, rng=0), fastnet.SoftMaxLayer()), fastnet.CrossEntropyLayer())
