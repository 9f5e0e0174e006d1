"""Reading models that :meth:`fastnet.Sequential.save` wrote."""
from __future__ import annotations

import os

from fastnet.interop import safetensors
from fastnet.sequential import Sequential


def load(path: str | os.PathLike[str]) -> Sequential:
    """Read a model that ``Sequential.save`` wrote.

    The file holds numbers and the names of fastnet's layers; fastnet runs no code from it.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Sequential
        The saved layers, loss and parameters, identical to the bit. Its ``history`` is None.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, comes from another program, or describes layers that this version does not know.
    ImportError
        If the package safetensors is not installed (the extra ``safetensors``).

    Examples
    --------
    >>> import fastnet, tempfile, os
    >>> model = fastnet.Sequential((fastnet.FullLayer(4, 3, rng=0), fastnet.SoftMaxLayer()), fastnet.CrossEntropyLayer())
    >>> path = os.path.join(tempfile.mkdtemp(), "m.safetensors")
    >>> model.save(path)
    >>> fastnet.load(path)
    Sequential([
        FullLayer(4, 3),
        SoftMaxLayer(),
    ], loss=CrossEntropyLayer())
    """
    return safetensors.read(path, Sequential)
