"""The compute kernels of fastnet: plain functions on NumPy arrays, compiled by Numba.

Kernels trust their callers; the layers of :mod:`fastnet` check shapes and dtypes once, before they call. The package is
imported as ``fastnet.kernels``, wherever its folder stands.
"""
if __name__ == "kernels":  # the folder of a checkout, imported from beside it: the same modules, not a second copy
    import importlib
    import pkgutil
    import sys

    sys.modules["kernels"] = importlib.import_module("fastnet.kernels")
    for _module in pkgutil.iter_modules(__path__):
        sys.modules[f"kernels.{_module.name}"] = importlib.import_module(f"fastnet.kernels.{_module.name}")
