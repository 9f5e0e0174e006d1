"""The one place that decides how kernels are compiled."""
from collections.abc import Callable
from typing import Any

from numba import njit, types

# LLVM may fuse a*b + c and reorder sums; it may never assume that NaN and inf do not occur.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}


def _compiler(fastmath: set[str]) -> Callable[[Callable], Any]:
    def compile_lazily(function: Callable) -> Any:
        dispatcher = njit(nogil=True, cache=True, error_model="numpy", fastmath=fastmath)(function)
        # Called by another kernel with a constant, Numba would compile a version for that very constant: the product
        # alone, called with 0 and 1 for many things, nine times over. One version for all numbers is enough.
        resolve = dispatcher.get_call_template
        dispatcher.get_call_template = lambda args, kws: resolve([types.unliteral(arg) for arg in args], kws)
        return dispatcher

    return compile_lazily


jit = _compiler(FASTMATH)

# For arithmetic whose order is its meaning (an argument reduced in two parts): fused, but never reordered.
jit_exact = _compiler({"contract"})
