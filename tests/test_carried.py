"""Kernels that an installation carries compiled: who uses them, for which CPU, and what makes fastnet compile instead."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from fastnet.kernels.codegen import cache, carried
from fastnet.kernels.codegen.carried import LEVELS, MANIFEST

import fastnet
from fastnet.cli import doctor

POSIX = pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
HERE = next(iter(carried.satisfied()), None)  # this CPU's level
pytestmark = pytest.mark.skipif(HERE is None, reason="no level for this CPU")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What a wheel has, with one file for a kernel that nobody asks for."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.nbc").write_bytes(b"12345")
    (tmp_path / "cache" / "b.nbc").write_bytes(b"678")
    place = tmp_path / "compiled"
    place.mkdir(mode=0o755)
    write_manifest(place, {level: carried.pack(tmp_path / "cache", place / f"{level}.kernels") for level in LEVELS})
    for file in place.iterdir():
        file.chmod(0o644)
    monkeypatch.setattr(carried, "FOLDER", place)
    return place


def write_manifest(place, levels, **other):
    (place / MANIFEST).write_text(json.dumps({"made_for": {**carried.made_for(), **other}, "levels": levels}))


def test_the_best_level_of_this_cpu_is_used(folder):
    found = carried._find()
    assert found.level == HERE and dict(found.files) == {"a.nbc": b"12345", "b.nbc": b"678"}


def refused(*words):
    found = carried._find()
    assert found.level is None and not found.files
    assert all(word in found.reason for word in words), found.reason


@pytest.mark.parametrize("what", ["fastnet", "Numba", "llvmlite", "NumPy", "Python", "system", "sources", "settings"])
def test_what_was_made_for_something_else_is_not_used(what, folder):
    levels = json.loads((folder / MANIFEST).read_text())["levels"]
    write_manifest(folder, levels, **{what: "1.2.3"})
    refused(what)


def test_settings_of_numba_count(folder, monkeypatch):
    monkeypatch.setattr(carried.config, "BOUNDSCHECK", 1, raising=False)
    refused("settings of Numba")


@pytest.mark.parametrize("name", [MANIFEST, f"{HERE}.kernels"])
@pytest.mark.parametrize("change", [lambda content: content[:-1] + b"\0", lambda content: content[:-1], lambda content: b""],
                         ids=["changed", "cut", "empty"])
def test_damaged_files_are_not_used(name, change, folder):
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    refused()


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"made_for": 1, "levels": 2}', '{"made_for": {}}', '"text"'])
def test_strange_manifests_are_not_used(text, folder):
    (folder / MANIFEST).write_text(text)
    refused()


@POSIX
@pytest.mark.parametrize("name", [MANIFEST, f"{HERE}.kernels", "."])
def test_what_others_may_change_is_not_used(name, folder):
    (folder / name).chmod(0o777 if name == "." else 0o646)
    refused("others may write")


@POSIX
def test_links_are_not_followed(folder, tmp_path):
    file = folder / f"{HERE}.kernels"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused("link")


V2, V4 = (LEVELS.get(f"x86-64-v{n}", LEVELS[next(iter(LEVELS))]).needs for n in (2, 4))


@pytest.mark.skipif("armv8" in LEVELS, reason="levels of x86-64")
@pytest.mark.parametrize(("features", "levels"), [
    ("", []),
    ("sse3", []),
    (V2, ["x86-64-v2"]),
    (V4, ["x86-64-v4", "x86-64-v3", "x86-64-v2"]),
    (V4.replace("avx512dq", ""), ["x86-64-v3", "x86-64-v2"]),
    (V4.replace(" fma", ""), ["x86-64-v2"]),
])
def test_features_decide(features, levels, monkeypatch):
    given = ",".join(f"+{feature}" for feature in features.split()) + ",-avx10.1"
    monkeypatch.setattr(carried, "get_host_cpu_features", lambda: given)
    assert carried.satisfied() == levels


def test_a_cpu_that_numba_was_told_to_compile_for(folder, monkeypatch):
    config, lowest = vars(carried.config), next(iter(LEVELS))
    monkeypatch.setitem(config, "CPU_NAME", LEVELS[lowest].cpu)
    monkeypatch.setitem(config, "CPU_FEATURES", LEVELS[lowest].features)
    assert carried._find().level == lowest
    monkeypatch.setitem(config, "CPU_FEATURES", "+avx2")
    refused("NUMBA_CPU_NAME")


def test_doctor_says_where_kernels_were_compiled(folder, monkeypatch):
    assert doctor.facts()["compiled"] == f"on this machine: {carried.CARRIED.reason}"
    monkeypatch.setattr(doctor, "CARRIED", carried._find())
    assert doctor.facts()["compiled"].startswith(f"with the package, 2 functions for {HERE}")


PROGRAM = """
import numpy as np
from fastnet.kernels import simd, sgd
from fastnet.kernels.codegen import carried, cache
from numba.core.registry import cpu_target
w = np.linspace(-1, 1, 37)
sgd.sgd_update(w, w, np.cos(w), 0.1)
misses = sum(sum(k.stats.cache_misses.values()) for k in vars(sgd).values() if hasattr(k, "stats"))
hits = sum(sum(k.stats.cache_hits.values()) for k in vars(sgd).values() if hasattr(k, "stats"))
print(carried.CARRIED.level, misses, hits, simd.TARGET[1], simd.VECTOR_BITS, cpu_target.target_context.codegen().magic_tuple()[1],
      cache.CACHE, w.tobytes().hex(), sep="|")
"""


def test_a_process_compiles_nothing_that_is_carried_and_the_rest_for_its_level(tmp_path):
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastnet.__file__).parent, site / "fastnet", ignore=ignored)
    shutil.copytree(Path(cache.__file__).parents[1], site / "fastnet" / "kernels", ignore=ignored, dirs_exist_ok=True)

    def run(program, **settings):
        plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
        result = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, timeout=300, cwd=tmp_path,
                                env={**plain, "PYTHONPATH": str(site), **settings})
        assert result.returncode == 0, result.stderr
        return result.stdout.strip().split("|")

    level = LEVELS[HERE]
    named = {"NUMBA_CPU_NAME": level.cpu, "NUMBA_CPU_FEATURES": level.features}
    none, misses, _, cpu, bits, _, kept, expected = run(PROGRAM, FASTNET_CACHE_DIR=str(tmp_path / "release"), **named)
    assert none == "None" and int(misses) > 0 and cpu == level.cpu
    place = site / "fastnet" / "kernels" / "compiled"
    place.mkdir()
    manifest = run(f"""
import json, pathlib
from fastnet.kernels.codegen import carried
digest = carried.pack(pathlib.Path({kept!r}), pathlib.Path({str(place / f"{HERE}.kernels")!r}))
print(json.dumps({{"made_for": carried.made_for(), "levels": {{{HERE!r}: digest}}}}))
""")
    (place / MANIFEST).write_text("|".join(manifest))
    found = run(PROGRAM, FASTNET_CACHE_DIR=str(tmp_path / "user"))
    assert found[:2] == [HERE, "0"] and int(found[2]) > 0
    assert found[3:5] == [cpu, bits] and found[7] == expected  # kernels are for the level, with its bits
    assert found[5] == llvm.get_host_cpu_name()  # Numba's own target stays as it is
    assert not list((tmp_path / "user").glob("*/*.nbc"))
    other = run(PROGRAM.replace("np.linspace(-1, 1, 37)", "np.linspace(-1, 1, 37).astype(np.float32)"),
                FASTNET_CACHE_DIR=str(tmp_path / "user"))
    assert other[0] == HERE and int(other[1]) > 0 and other[3] == cpu
    assert list((tmp_path / "user").glob("*/*.nbc"))
