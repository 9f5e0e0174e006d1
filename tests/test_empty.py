"""Every public kernel with every one of its sizes 0 or 1, beside its naive twin."""
import itertools

import numpy as np
import pytest
from fastnet.kernels import naive
from kernel_calls import KERNELS, SIGNATURES, SIZES, operands, sizes_of


def all_sizes(name, sides):
    """All combinations of these sizes; the side of a filter, which is odd, is 1 or 3."""
    mine = sizes_of(name)
    for chosen in itertools.product(*((1, 3) if letter == "h" else sides for letter in mine)):
        yield {**dict.fromkeys(SIZES, 1), **dict(zip(mine, chosen, strict=True))}


@pytest.mark.filterwarnings("ignore:Degrees of freedom", "ignore:invalid value")
@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of the naive twin
@pytest.mark.parametrize("name", SIGNATURES)
def test_sizes_of_0_and_1(name, dtype, rng):
    for sizes in all_sizes(name, (0, 1)):
        outputs, inputs = operands(rng, name, sizes, dtype)
        numbers = SIGNATURES[name].numbers
        expected = [np.full(a.shape, np.nan) for a in outputs]
        with np.errstate(all="ignore"):
            right = getattr(naive, name)(*expected, *inputs, *numbers)
        got = KERNELS[name](*outputs, *inputs, *numbers)
        where = f"{name} with {sizes}"
        if name == "pack":
            assert got.shape == right.shape, where
            continue
        np.testing.assert_allclose(np.float64(np.nan if got is None else got), np.float64(np.nan if right is None else right),
                                   rtol=1e-6, err_msg=where)
        for a, b in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps, err_msg=where)
