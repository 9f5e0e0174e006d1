"""Models as files that hold numbers and nothing else: safetensors, with the layers described in its metadata.

A file has, for the layer at place i, the tensors ``i.weight`` and ``i.bias``: the names, shapes and order in which a
``torch.nn.Sequential`` of the same layers keeps its parameters. Its metadata hold ``format`` ("fastnet"), ``version``,
``layers`` and ``loss`` (JSON), and ``sha256``, since safetensors has no digest of its own: that of the whole file with
zeros in the digest's place. In files of version 1 it is the digest of the tensors alone.
"""
from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastnet.base import dtypes
from fastnet.interop import architecture
from fastnet.layer import learned, parameters

Model = TypeVar("Model")
FORMAT, VERSION = "fastnet", "2"
_BEFORE = "1"  # can be read as well
VECTORS = {"b": "bias", "gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
TENSORS = {"W": "weight", **VECTORS}  # other arrays keep their names
_NO_DIGEST = "0" * 64


def save(model: Any, path: str | os.PathLike[str], kind: type) -> None:
    """Write layers and parameters of a model; its method ``save`` describes it."""
    _safetensors("Sequential.save")
    described = architecture.describe("Sequential.save", model, kind)
    tensors = {}
    for i, layer in enumerate(model.layers):
        for name in _learned(layer):
            array = np.asarray(getattr(layer, name))
            dtype = array.dtype if array.dtype in dtypes.SUPPORTED else getattr(layer, "dtype", np.float64)
            tensors[_tensor(i, name)] = np.ascontiguousarray(array.reshape(-1) if name in VECTORS else array, dtype)
    metadata = {"format": FORMAT, "version": VERSION, **{key: json.dumps(value) for key, value in described.items()}}
    _replace(Path(path), _sealed(tensors, metadata))


def _learned(layer: Any) -> list[str]:
    return list(learned(layer) or parameters(layer))


def _tensor(i: int, name: str) -> str:
    return f"{i}.{TENSORS.get(name, name)}"


def _sealed(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """The content of a file, with the digest of all of it among its metadata."""
    content = _safetensors("Sequential.save").save(tensors, {**metadata, "sha256": _NO_DIGEST})
    return content.replace(_place(_NO_DIGEST), _place(hashlib.sha256(content).hexdigest()), 1)


def _place(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def read(path: str | os.PathLike[str], kind: Callable[..., Model]) -> Model:
    """Make the model that a file describes, of class `kind`; `fastnet.saving.load` says more."""
    _safetensors("fastnet.load")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"fastnet.load: there is no file {path} (the current folder is {Path.cwd()}).")
    from safetensors import safe_open

    try:
        file = safe_open(path, framework="numpy")
        metadata = file.metadata() or {}
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"fastnet.load: {path} is damaged, or no safetensors file: {_reason(error)}. "
                         "Copy it again, or save the model again.") from error
    with file:
        if metadata.get("format") != FORMAT or not {"layers", "loss", "sha256"} <= metadata.keys():
            raise ValueError(f"fastnet.load: {path} is a safetensors file, but not one that Sequential.save wrote: its "
                             "metadata describe no fastnet layers. Build the model yourself and assign W and b of its "
                             "layers.")
        if metadata.get("version") not in (VERSION, _BEFORE):
            raise ValueError(f"fastnet.load: {path} is of format version {_reason(metadata.get('version'))}, and this "
                             f"fastnet reads version {VERSION}. Install a newer fastnet.")
        if metadata["version"] == VERSION and not _is_whole(path, metadata["sha256"]):
            raise _damaged(path)
        try:
            parts = _parts(metadata, file)
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            is_whole = metadata["version"] == VERSION or metadata["sha256"] == _digest(tensors)
            model = _build(*parts, tensors, kind) if is_whole else None
        except Exception as error:  # what a file can say is endless, and so is what libraries answer
            raise ValueError(f"fastnet.load: {path} cannot be turned into a model: {_reason(error)}") from error
    if model is None:
        raise _damaged(path)
    return model


def _damaged(path: Path) -> ValueError:
    return ValueError(f"fastnet.load: {path} is damaged: its content differs from the saved one. Copy it again.")


def _reason(error: Any) -> str:
    """Return the reason of an error on one line of limited length."""
    if isinstance(error, (MemoryError, RecursionError)):
        return "it asks for more memory than there is" if isinstance(error, MemoryError) else "it is nested too deeply"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:400]} ..."


def _is_whole(path: Path, digest: str) -> bool:
    """Return whether the digest is that of the file with zeros in place of the digest."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        size = file.read(8)
        header = file.read(int.from_bytes(size, "little"))
        found.update(size + header.replace(_place(digest), _place(_NO_DIGEST), 1))
        while piece := file.read(1 << 20):
            found.update(piece)
    return len(digest) == len(_NO_DIGEST) and found.hexdigest() == digest


Parts = tuple[list[architecture.Description], architecture.Description]


def _parts(metadata: Mapping[str, str], file: Any) -> Parts:
    """The layers and the loss that the metadata describe, once the tensors in the file are of the shapes they ask for."""
    described = json.loads(metadata["layers"])
    if not isinstance(described, list):
        raise ValueError("its layers are not a list.")
    layers = [architecture.read(description) for description in described]
    there = set(file.keys())
    for i, layer in enumerate(layers):
        shapes = layer.shapes()
        _compare({_tensor(i, name) for name in shapes}, {key for key in there if key.startswith(f"{i}.")}, bool(shapes))
        for name, shape in shapes.items():
            found = tuple(file.get_slice(_tensor(i, name)).get_shape())
            if found != ((math.prod(shape),) if name in VECTORS else shape):
                raise ValueError(f"{_tensor(i, name)} must have shape {shape} for layers[{i}], but has {found}.")
    return layers, architecture.read(json.loads(metadata["loss"]))


def _compare(expected: set[str], there: set[str], decided: bool = True) -> None:
    if decided and expected != there:
        raise ValueError(f"the layers need the tensors {', '.join(sorted(expected)) or 'none'}, but the file has "
                         f"{', '.join(sorted(there)) or 'none'}.")


def _build(described: list[architecture.Description], loss: architecture.Description,
           tensors: dict[str, np.ndarray], kind: Callable[..., Model]) -> Model:
    layers = [description.make() for description in described]
    expected = {_tensor(i, name): (layer, name) for i, layer in enumerate(layers) for name in _learned(layer)}
    _compare(set(expected), set(tensors))
    for key, (layer, name) in expected.items():
        array, shape = tensors[key], np.shape(getattr(layer, name))
        if array.dtype not in dtypes.SUPPORTED:
            raise ValueError(f"the tensor {key} has dtype {array.dtype}, but fastnet supports float32 and float64.")
        if array.size != np.prod(shape, dtype=object):
            raise ValueError(f"{key} must have shape {shape}, but has {array.shape}.")
        setattr(layer, name, array.reshape(shape))
    return kind(tuple(layers), loss=loss.make(is_loss=True))


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Of the tensors alone, as in files of version 1."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically: at any time, also after a power cut, the path has the old or the new content."""
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
