"""The compute kernels of fastnet: plain functions on NumPy arrays, compiled by Numba.

Kernels trust their callers; the layers of :mod:`fastnet` check shapes and dtypes once, before they call.
"""
