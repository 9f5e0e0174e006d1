"""Data files with any byte changed, cut off, or made to ask for too much: one kind of error, in little time and memory.

How many changes are tried is in FASTNET_CASES, for a night; otherwise it is a seeded draw of them.
"""
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import cifar_files
import numpy as np
import pytest

from fastnet.dataset import _download, _files, _npz, _pickles, from_npz

ROOT = Path(__file__).parents[1]
CASES = int(os.environ.get("FASTNET_CASES", 300))
LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np
from fastnet.dataset import _pickles, from_npz
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (300 << 20),) * 2)
"""


def changed(content, rng, count):
    """The content with a bit flipped, a byte replaced, or cut off."""
    for place in rng.permutation(8 * len(content))[:count]:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)
    for place in rng.permutation(len(content))[:count // 4]:
        yield content[:place] + bytes(rng.integers(0, 256, 1, np.uint8)) + content[place + 1:]
    for place in rng.permutation(len(content))[:count // 4]:
        yield content[:place]


def arrays(d=12):
    rng = np.random.default_rng(0)
    return {"x_train": rng.integers(0, 256, (6, d), np.uint8), "y_train": np.array([0, 1, 2, 0, 1, 2]),
            "x_test": rng.integers(0, 256, (3, d), np.uint8), "y_test": np.array([2, 1, 0], np.uint8),
            "names": np.array(["cat", "dog", "owl"]), "other": np.arange(5)}


def limited(program):
    """Run a program that has 300 MB of memory for what follows."""
    result = subprocess.run([sys.executable, "-c", LIMITED.format(tests=str(ROOT / "tests")) + program], text=True,
                            capture_output=True, timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    return result.stdout


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_every_changed_npz_is_refused_or_means_the_same(write, tmp_path):
    path = tmp_path / "some.npz"
    write(path, **arrays())
    content, expected = path.read_bytes(), from_npz(path)
    refused = 0
    for damaged in changed(content, np.random.default_rng(1), CASES):
        path.write_bytes(damaged)
        try:
            data = from_npz(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        assert data.class_names == expected.class_names
        for mine, theirs in zip(data, expected):
            assert np.array_equal(mine[0], theirs[0]) and np.array_equal(mine[1], theirs[1])
    assert refused > CASES / 4


def header(shape, descr="|u1"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_headers_that_lie(tmp_path):
    path = tmp_path / "some.npz"
    for text in (header((10**12,)), header((-1, -12)), header((3, 10**30)), header((10**12,), "<U0"), header((2,), "|O") + bytes(16),
                 header("(" * 500), b"\x93NUMPY\x03\x00", b"\x93NUMPY\x09\x00", b"", b"\x93NUM", header((3, 12)) + bytes(35)):
        for key in ("x_train", "y_test", "names"):
            np.savez(path, **{name: array for name, array in arrays().items() if name != key})
            with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{key}.npy", text)
            with pytest.raises(ValueError, match=r"some\.npz cannot be read"):
                from_npz(path)


def test_other_members_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "some.npz"
    np.savez(path, **arrays(), model=np.array([object()], object))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("notes.txt", "of any kind")
    read, open_ = [], zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, *n: read.append(self.name) or open_(self, *n))
    from_npz(path)
    assert {name.removesuffix(".npy") for name in read} == set(_npz._KEYS)


def test_a_size_that_compression_cannot_reach(tmp_path):
    path = tmp_path / "some.npz"
    np.savez_compressed(path, **arrays())
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("x_train.npy").file_size
    path.write_bytes(content.replace(struct.pack("<I", size), struct.pack("<I", 1 << 31)))
    with pytest.raises(ValueError, match=r"bytes cannot hold 2147483648|cannot be read"):
        from_npz(path)


@LINUX
def test_large_labels_take_no_memory(tmp_path):
    for number, label in enumerate((10**8, 10**10, 2**63 - 1)):
        np.savez(tmp_path / f"{number}.npz", **{**arrays(), "y_train": np.array([0, 1, 2, 0, 1, label])})
        np.savez(tmp_path / f"bare{number}.npz", **{k: v for k, v in {**arrays(), "y_train": np.array([0, 1, 2, 0, 1, label])}.items()
                                                    if k != "names"})
    printed = limited(f"""
from pathlib import Path
for path in sorted(Path({str(tmp_path)!r}).glob("*.npz")):
    try:
        from_npz(path)
    except ValueError as error:
        print(error)
""")
    assert printed.count("labels must be class numbers that start at 0, got 1") == 4
    assert printed.count("return_inverse=True") == 6


def test_many_classes_and_few_images(tmp_path):
    np.savez(tmp_path / "some.npz", **{**arrays(), "y_train": np.array([0, 1, 2, 0, 1, 21_840]), "names": np.array(["n"] * 21_841)})
    (_, y), _ = from_npz(tmp_path / "some.npz")
    assert y.shape == (6, 21_841) and (y.sum(axis=1) == 1).all() and y[5, 21_840] == 1


# --- CIFAR's pickles --------------------------------------------------------------------------------------------------


def small_pickle():
    content = cifar_files.contents({"train": 4})["train"]
    return cifar_files.python2_pickle({**content, "data": content["data"][:, :20]})


def test_every_changed_pickle_is_refused_or_read(tmp_path):
    path = tmp_path / "train"
    for damaged in changed(small_pickle(), np.random.default_rng(2), CASES):
        path.write_bytes(damaged)
        try:
            assert type(_pickles.load(path)) is dict
        except ValueError as error:
            assert str(path) in str(error)


HOSTILE = {
    "string": b"T" + struct.pack("<i", 2**31 - 1), "bytes": b"B" + struct.pack("<I", 2**32 - 1),
    "bytes8": b"\x8e" + struct.pack("<Q", 2**62), "bytearray": b"\x96" + struct.pack("<Q", 2**40), "text8": b"\x8d" + struct.pack("<Q", 2**40),
    "long": b"\x8b" + struct.pack("<i", 2**31 - 1), "frame": b"\x95" + struct.pack("<Q", 2**50), "put": b"Nr" + struct.pack("<I", 2**31),
    "text put": b"Np9999999999\n", "nested": b"(" * 10_000 + b"t" * 10_000,
}


@LINUX
def test_lengths_and_places_that_lie_take_no_memory(tmp_path):
    for name, content in HOSTILE.items():
        (tmp_path / name).write_bytes(b"\x80\x02" + content + b".")
    printed = limited(f"""
from pathlib import Path
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    try:
        print(path.name, "read", _pickles.load(path))
    except ValueError as error:
        assert str(path) in str(error)
        print(path.name, "refused")
""")
    assert printed.split() == [word for name in sorted(HOSTILE) for word in f"{name} refused".split()]


def test_labels_of_any_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "N_IMAGES", {"train": 4})
    content = cifar_files.contents({"train": 4})["train"]
    nested = [0]
    for _ in range(60):
        nested = [nested, nested]  # 2^60 elements, if anybody counted them
    for labels in (nested, [nested] * 4, [10**400] * 4, [0, 1, 2, True], [0, 1, 2, 2.0], "abcd", None, 5, [-1, 0, 1, 2], [0, 1, 2, 100]):
        with pytest.raises(ValueError, match="fine_labels"):
            _files._checked_images(tmp_path / "train", {**content, "fine_labels": labels}, 4)


def test_keys_of_any_kind(tmp_path):
    (tmp_path / "train").write_bytes(pickle.dumps({("a", "b"): 1, 5: 2, None: 4}, protocol=2))
    assert list(_pickles.load(tmp_path / "train")) == ["tuple", "int", "NoneType"]


# --- the archive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [zlib.error("invalid block type"), RecursionError(), MemoryError(), tarfile.ReadError("no"), KeyError("train"),
                                   OverflowError("too large")])
def test_whatever_unpacking_raises_is_a_sentence(error, tmp_path, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr(tarfile, "open", fails)
    with pytest.raises(_download.DownloadError, match=r"archive could not be unpacked: .+\.$"):
        _download._extract(tmp_path / "archive", tmp_path)


def test_every_changed_archive_is_refused_or_whole(tmp_path, monkeypatch):
    members = {name: bytes(100) + name.encode() for name in ("train", "test", "meta")}
    monkeypatch.setattr(_files, "MD5", {name: hashlib.md5(content).hexdigest() for name, content in members.items()})
    content = cifar_files.archive({f"cifar-100-python/{name}": body for name, body in members.items()})
    for damaged in changed(content, np.random.default_rng(3), CASES // 4):
        (tmp_path / "archive").write_bytes(damaged)
        try:
            _download._extract(tmp_path / "archive", tmp_path)
        except _download.DownloadError:
            continue
        assert all((tmp_path / name).read_bytes() == body for name, body in members.items())


@pytest.mark.parametrize("depth", [2_000, 500_000])
def test_a_key_of_tuples_in_tuples_does_not_overflow_the_stack(depth, tmp_path):
    (tmp_path / "train").write_bytes(b"\x80\x02})" + b"\x85" * depth + b"Ns.")
    program = f"from pathlib import Path; from fastnet.dataset import _pickles; _pickles.load(Path({str(tmp_path / 'train')!r}))"
    result = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.stderr.strip().endswith("it holds more than 1000 tuples.")


def test_why_an_archive_cannot_be_unpacked_is_one_line(tmp_path):
    (tmp_path / "archive").write_bytes(b"no archive")
    with pytest.raises(_download.DownloadError, match="could not be unpacked: file could not be opened successfully") as info:
        _download._extract(tmp_path / "archive", tmp_path)
    assert "\n" not in str(info.value)
