"""The one place that decides how kernels are compiled; `_cache` decides where the compiled code is kept."""
from collections.abc import Callable
from typing import Any

import numpy as np
from fastnet.kernels._cache import CACHE, KernelCache
from numba import config, from_dtype, njit, types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock

if vars(config)["DISABLE_JIT"]:
    raise ImportError("fastnet's kernels are compiled by Numba, which NUMBA_DISABLE_JIT has turned off here: unset it, or "
                      "set it to 0.")

# LLVM may fuse a*b + c and reorder sums; it may never assume that NaN and inf do not occur.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}


def _compiler(fastmath: set[str]) -> Callable[[Callable], Any]:
    """A decorator: nogil, because a pool of our own threads enters kernels; NumPy's rules for division by zero."""

    def compile_lazily(function: Callable) -> Any:
        dispatcher = njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
        # Called by another kernel with a constant, Numba would compile a version for that very constant: the product
        # alone, called with 0 and 1 for many things, nine times over. One version for all numbers is enough.
        resolve = dispatcher.get_call_template
        dispatcher.get_call_template = lambda args, kws: resolve([types.unliteral(arg) for arg in args], kws)
        if CACHE is not None:
            dispatcher._cache = KernelCache(function, CACHE)
        return dispatcher

    return compile_lazily


jit = _compiler(FASTMATH)

# For arithmetic whose order is its meaning (an argument reduced in two parts): fused, but never reordered.
jit_exact = _compiler({"contract"})


class AddressedKernel:
    """A function that compiled code calls by its address; `signature` gives its arguments' types for a float type."""

    def __init__(self, function: Callable, signature: Callable[[types.Type], tuple]) -> None:
        self.function, self.signature = function, signature
        self._compiled: dict[types.Type, CFunc] = {}

    def address(self, dtype: np.dtype) -> int:
        """Where the version for elements of `dtype` is; compiled, or taken from the cache, when it is first asked for."""
        element = from_dtype(dtype)
        with global_compiler_lock:  # which Numba does not hold while it reads its cache and links: two threads may be here
            if element not in self._compiled:
                compiled = CFunc(self.function, (self.signature(element), types.void), {},
                                 {"nopython": True, "error_model": "numpy", "fastmath": FASTMATH})
                if CACHE is not None:
                    compiled._cache = KernelCache(self.function, CACHE)
                compiled.compile()
                self._compiled[element] = compiled
            return self._compiled[element].address


def op_kernel(function: Callable) -> AddressedKernel:
    """A decorator for ``kernel(op, context, start, stop, one)``, an op of a compiled step that is called by address.

    `op` and `context` are addresses (`structs.op_at`, `structs.context_at`), start:stop the samples of the batch that are
    the thread's, and the type of `one` is that of the elements. It compiles when a network first needs it, and the
    interpreter of steps need not know it.
    """
    return AddressedKernel(function, lambda element: (*[types.int64] * 4, element))
