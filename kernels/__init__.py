"""The compute kernels of fastnet: plain functions on NumPy arrays, compiled by Numba.

Kernels trust their callers; the layers of :mod:`fastnet` check shapes and dtypes once, before they call.
"""

PROJECT = "fastnet"  # tells this package from others of its name: fastnet looks for it when it is imported
