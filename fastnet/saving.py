"""Models as files that hold numbers and nothing else: safetensors, with the layers described in its metadata.

A file has, for the layer at place i, the tensors ``i.weight`` and ``i.bias``: the names, shapes and order in which a
``torch.nn.Sequential`` of the same layers keeps its parameters. Its metadata hold ``format`` ("fastnet"), ``version``,
``layers`` and ``loss`` (JSON), and ``sha256``, the digest of all other metadata and all tensors, since safetensors has none
of its own. Files of version 1, whose digest is that of the tensors alone, can still be read.
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

FORMAT, VERSION = "fastnet", "2"
_TENSORS = {"W": "weight", "b": "bias"}


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
                array = array.reshape(-1) if name == "b" else array
                tensors[f"{i}.{tensor}"] = np.ascontiguousarray(array, dtype)
    metadata = {"format": FORMAT, "version": VERSION, **{key: json.dumps(value) for key, value in described.items()}}
    _replace(Path(path), numpy_format.save(tensors, metadata | {"sha256": _digest(metadata, tensors)}))


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
        If the file is damaged, comes from another program, or describes what this version does not know.
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
    if metadata.get("version") not in ("1", VERSION):
        raise ValueError(f"fastnet.load: {path} is of format version {metadata.get('version')}, and this fastnet reads "
                         f"versions 1 and {VERSION}. Install a newer fastnet.")
    if metadata["sha256"] != _digest({} if metadata["version"] == "1" else metadata, tensors):
        raise ValueError(f"fastnet.load: {path} is damaged: it does not hold what was saved. Copy it again.")
    try:
        return _build(metadata, tensors)
    except Exception as error:  # JSON of any depth, numbers of any size: every kind of error is possible
        raise ValueError(f"fastnet.load: {path} cannot be turned into a model: {_reason(error)}.") from error


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, np.ndarray]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except OSError:
        raise
    except Exception as error:  # of safetensors itself, or of NumPy for a dtype that it does not have
        raise ValueError(f"fastnet.load: {path} is damaged, or no safetensors file that NumPy can read: {_reason(error)}. "
                         "Copy it again, or save the model again.") from error


def _reason(error: Exception) -> str:
    return f"{error}".removesuffix(".") if f"{error}" else type(error).__name__


def _build(metadata: Mapping[str, str], tensors: dict[str, np.ndarray]) -> Sequential:
    descriptions = json.loads(metadata["layers"])
    if not isinstance(descriptions, list):
        raise ValueError(f"the layers are a {type(descriptions).__name__}, not a list.")
    shapes = [_architecture.parameter_shapes(description) for description in descriptions]
    expected = {f"{i}.{_TENSORS[name]}": shape for i, found in enumerate(shapes) for name, shape in found.items()}
    if expected.keys() != tensors.keys():
        raise ValueError(f"the layers ask for the tensors {', '.join(sorted(expected)) or 'none'}, the file has "
                         f"{', '.join(sorted(tensors)) or 'none'}.")
    for key, shape in expected.items():
        array, shape = tensors[key], shape[-1:] if key.endswith(".bias") else shape
        if array.dtype not in _dtypes.SUPPORTED:
            raise ValueError(f"the tensor {key} is of {array.dtype}; float32 and float64 are known.")
        # Before layers draw weights of that shape. What is no whole number, they refuse themselves.
        if array.shape != shape and all(type(size) is int for size in shape):
            raise ValueError(f"the tensor {key} must have shape {shape}, as its layer says, got {array.shape}.")
    layers = [_architecture.build(description) for description in descriptions]
    for i, (layer, names) in enumerate(zip(layers, shapes)):
        for name in names:
            setattr(layer, name, tensors[f"{i}.{_TENSORS[name]}"])
    return Sequential(tuple(layers), loss=_architecture.build(json.loads(metadata["loss"]), loss=True))


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    """Digest of metadata, except for the digest itself, and of tensors."""
    digest = hashlib.sha256()
    if metadata:
        digest.update(json.dumps(sorted(item for item in metadata.items() if item[0] != "sha256")).encode())
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
