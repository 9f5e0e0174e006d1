"""The compute kernels of fastnet: plain functions on NumPy arrays, compiled by Numba.

Kernels trust their callers; the layers of :mod:`fastnet` check shapes and dtypes once, before they call. The package is
imported as ``fastnet.kernels``, wherever its folder stands.
"""
import sys

if __name__ != "kernels" and not hasattr(sys.modules["fastnet"], "_find_kernels_in_checkout"):
    raise ImportError(f"another package called fastnet, in {sys.modules['fastnet'].__file__}, has taken the place of the "
                      "one that these kernels belong to. Uninstall it and fastnet-kernels, then install fastnet-kernels "
                      "again.")

if __name__ == "kernels":  # the folder of a checkout, imported from beside it: the same modules, not a second copy
    import importlib
    import pkgutil

    sys.modules["kernels"] = importlib.import_module("fastnet.kernels")
    for _module in pkgutil.walk_packages(__path__, "fastnet.kernels."):
        sys.modules[_module.name.removeprefix("fastnet.")] = importlib.import_module(_module.name)
