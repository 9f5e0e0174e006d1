"""The one place that decides how kernels are compiled; `_cache` decides where the compiled code is kept."""
from collections.abc import Callable
from typing import Any

from fastnet.kernels._cache import CACHE, KernelCache
from numba import config, njit, types

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
