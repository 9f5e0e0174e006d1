"""What the benchmarks of the element-wise kernels share: ours, NumPy in the same dtype, the naive twin in float64."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fastnet.kernels import naive

from bench.harness.race import Race, sizes

SHAPES = sizes((128, 500), (2500, 500), tiny=(3, 5))
LAYOUTS = sizes("C", "F", "strided", tiny="F")
CASES = [(shape, "C") for shape in SHAPES] + [(SHAPES[0], layout) for layout in LAYOUTS if layout != "C"]


def name_of(case: Any) -> str:
    """``128x500-C``"""
    shape, layout = case
    return f"{'x'.join(map(str, shape))}-{layout}"


def laid_out(a: np.ndarray, layout: str) -> np.ndarray:
    """The numbers of `a` in memory order "C" or "F", or as every other row and column of a larger array."""
    if layout != "strided":
        return np.asfortranarray(a) if layout == "F" else np.ascontiguousarray(a)
    base = np.zeros([2 * size for size in a.shape], a.dtype)
    view = base[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def compete(race: Race, kernel: Callable, arguments: tuple, with_numpy: Callable[[np.ndarray], Any], *, flops: float,
            layout: str = "C", tolerance: float = 100) -> None:
    """Race a kernel whose first argument is its output; `tolerance` in units of the dtype's precision."""
    arrays = [a for a in arguments if isinstance(a, np.ndarray)]
    shape, dtype = arrays[0].shape, arrays[0].dtype
    twin_of = getattr(naive, kernel.__name__)
    ours, theirs, twin = (np.empty(shape, dtype) for _ in range(3))
    expected = np.empty(shape)
    twin_of(expected, *arguments)

    def fastnet() -> np.ndarray:
        kernel(ours, *arguments)
        return ours

    def numpy() -> np.ndarray:
        with_numpy(theirs)
        return theirs

    def naive_twin() -> np.ndarray:
        twin_of(twin, *arguments)
        return twin

    race({"fastnet": fastnet, "numpy": numpy, "naive": naive_twin}, expected=expected, kernel=kernel.__name__,
         tolerance=tolerance * float(np.finfo(dtype).eps), flops=flops,
         nbytes=ours.nbytes + sum(a.nbytes for a in arrays), dtype=dtype,
         shape="x".join(map(str, shape)), layout=layout)
