"""How a layer runs a forward pass, a backward pass or an update: compute, and check only what the computation refuses.

A layer states each pass once, as a function ``compute(layer, given, held)``. `given` is the argument of the public method.
`held` maps the names of the layer's attributes to their values: ``compute`` reads parameters from it and stores its results
in it. The compiled function that it calls looks at shapes, dtypes and layouts anyway, and refuses what it does not know
before it has changed anything. `run_pass` therefore calls ``compute`` with what was given. Only if that is refused, it calls
``check``, which raises the error text or converts the argument and the attributes, and then ``compute`` again.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from fastnet.base.buffers import FAST
from fastnet.kernels.layout import make_ready


class Refused(Exception):
    """A computation cannot use what it was given, and has changed nothing."""


# NumbaError is what Numba 0.60 raises for an unknown dtype; newer versions raise TypeError.
REFUSED = (Refused, TypeError, ValueError, AttributeError, KeyError, IndexError, NumbaError)


class Checked(dict[str, Any]):
    """Checked values of a layer's attributes. What a computation stores here is assigned to the layer."""

    def __init__(self, layer: Any, **values: Any) -> None:
        super().__init__(values)
        self.layer = layer

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.layer, name, value)


def run_pass(layer: Any, compute: Callable[..., Any], check: Callable[[Any, Any], tuple[Any, ...]], given: Any) -> Any:
    """Return ``compute(layer, given, held)`` for the layer's own attributes, or else for what ``check`` returns.

    ``check(layer, given)`` returns the converted argument, the attributes, and perhaps further arguments of ``compute``.
    """
    if type(layer) in FAST:
        try:
            return compute(layer, given, layer.__dict__)
        except REFUSED:
            pass
    return compute(layer, *check(layer, given))


def for_kernel(kernel: Any, a: np.ndarray) -> np.ndarray:
    """Compile a kernel of `for_dtypes` for the dtype of an array; return the array, or a copy if it is unaligned."""
    make_ready(kernel, a.dtype)
    return a if a.flags.aligned else np.array(a)
