"""Models as files that hold numbers and nothing else: safetensors, with the layers described in its metadata.

A file has, for the layer at place i, the tensors ``i.weight`` and ``i.bias``: the names, shapes and order in which a
``torch.nn.Sequential`` of the same layers keeps its parameters. Its metadata hold ``format`` ("fastnet"), ``version``,
``layers`` and ``loss`` (JSON), and ``sha256``, the digest of all tensors, since safetensors has none of its own.
"""
from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import _architecture, _dtypes
from fastnet.sequential import Sequential

FORMAT, VERSION = "fastnet", "1"
_TENSORS = {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "running_mean": "running_mean",
            "running_var": "running_var"}


def save(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write layers and parameters of a model; its method ``save`` describes it."""
    numpy_format = _safetensors("Sequential.save")
    described = _architecture.describe("Sequential.save", model)
    tensors = {}
    for i, layer in enumerate(model.layers):
        for name, tensor in _TENSORS.items():
            array = getattr(layer, name, None)
            if array is not None:
                dtype = array.dtype if array.dtype in _dtypes.SUPPORTED else layer.dtype
                array = array if name == "W" else array.reshape(-1)
                tensors[f"{i}.{tensor}"] = np.ascontiguousarray(array, dtype)
    metadata = {"format": FORMAT, "version": VERSION, "sha256": _digest(tensors),
                **{key: json.dumps(value) for key, value in described.items()}}
    _replace(Path(path), numpy_format.save(tensors, metadata))


def load(path: str | os.PathLike[str]) -> Sequential:
    """Read a model that ``Sequential.save`` wrote.

    Nothing in the file is run: it holds numbers, and names of fastnet's own layers.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Sequential
        With the layers, the loss and the parameters that were saved, to the bit. Its ``history`` is None.

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
    _safetensors("fastnet.load")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"fastnet.load: there is no file {path}, seen from {Path.cwd()}.")
    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT or not {"layers", "loss", "sha256"} <= metadata.keys():
        raise ValueError(f"fastnet.load: {path} is a safetensors file, but not one that Sequential.save wrote: its metadata "
                         "describe no fastnet layers. Build the model yourself and assign W and b of its layers.")
    if metadata.get("version") != VERSION:
        raise ValueError(f"fastnet.load: {path} is of format version {metadata.get('version')}, and this fastnet reads "
                         f"version {VERSION}. Install a newer fastnet.")
    if metadata["sha256"] != _digest(tensors):
        raise ValueError(f"fastnet.load: {path} is damaged: its numbers are not those that were saved. Copy it again.")
    try:
        return _build(metadata, tensors)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"fastnet.load: {path} cannot be turned into a model: {error}") from error


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"fastnet.load: {path} is damaged, or no safetensors file: {error}. "
                         "Copy it again, or save the model again.") from error


def _build(metadata: Mapping[str, str], tensors: dict[str, np.ndarray]) -> Sequential:
    layers = [_architecture.build(description) for description in json.loads(metadata["layers"])]
    expected = {f"{i}.{tensor}": (layer, name) for i, layer in enumerate(layers) for name, tensor in _TENSORS.items()
                if getattr(layer, name, None) is not None}
    if expected.keys() != tensors.keys():
        raise ValueError(f"the layers ask for the tensors {', '.join(sorted(expected)) or 'none'}, the file has "
                         f"{', '.join(sorted(tensors)) or 'none'}.")
    for key, (layer, name) in expected.items():
        array = tensors[key]
        if array.dtype not in _dtypes.SUPPORTED:
            raise ValueError(f"the tensor {key} is of {array.dtype}; float32 and float64 are known.")
        setattr(layer, name, array)
    return Sequential(tuple(layers), loss=_architecture.build(json.loads(metadata["loss"])))


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Write a file as a whole: whoever looks meanwhile, or after a power cut, sees the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _safetensors(who: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(f'{who} needs the package safetensors: pip install safetensors.') from None
    return safetensors.numpy
