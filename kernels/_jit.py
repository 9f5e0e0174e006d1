"""The one place that decides how kernels are compiled."""
from numba import njit

# LLVM may fuse a*b + c and reorder sums; it may never assume that NaN and inf do not occur.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}

jit = njit(nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH)

# For arithmetic whose order is its meaning (an argument reduced in two parts): fused, but never reordered.
jit_exact = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
