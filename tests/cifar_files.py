"""Files like CIFAR-100's, small: pickles as Python 2 wrote them, and the archive around them."""

import io
import struct
import tarfile

import numpy as np

N_IMAGES = {"train": 600, "test": 200}


def python2_pickle(value):
    """Pickle, protocol 2, with Python 2's strings and NumPy 1's names."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value):
    if isinstance(value, np.ndarray):
        dtype = _call("numpy", "dtype", ("u1", 0, 1)) + _opcodes((3, "|", None, None, None, -1, -1, 0)) + b"b"
        array = (
            b"cnumpy.core.multiarray\n_reconstruct\n" + b"(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes("b") + b"tR"
        )
        return array + b"(" + _opcodes(1) + _opcodes(value.shape) + dtype + b"\x89" + _opcodes(value.tobytes()) + b"tb"
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, str):
        return _opcodes(value.encode())
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if value is None:
        return b"N"
    return b"J" + struct.pack("<i", value)


def _call(module, name, arguments):
    return f"c{module}\n{name}\n".encode() + _opcodes(arguments) + b"R"


def contents(n_images=N_IMAGES, seed=0):
    """What the three files hold, as Python objects."""
    rng = np.random.default_rng(seed)
    files = {"meta": {"fine_label_names": [f"name{label}" for label in range(100)], "coarse_label_names": ["any"]}}
    for part, n in n_images.items():
        labels = rng.permutation(np.arange(n) % 100).tolist()
        files[part] = {
            "filenames": [f"{i}.png" for i in range(n)],
            "batch_label": f"{part}ing batch",
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
            "data": rng.integers(0, 256, (n, 3072), np.uint8),
        }
    return files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(python2_pickle(content))
    return folder


def archive(members):
    """A .tar.gz of these names and bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
