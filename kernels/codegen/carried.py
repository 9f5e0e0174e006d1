"""Kernels that come compiled: what a wheel for one system and one Python carries for a few levels of CPUs.

Such a wheel has a folder ``compiled`` next to the kernels. It holds one file for each level and a manifest, which says what
the files were made for and gives the digest of each. fastnet uses the highest level whose features this CPU has, where
sources, versions and settings are those of the manifest. `cache` looks for a kernel there first.

A process that uses such a file compiles every other kernel for the same level: memory that is packed for vectors of one
width is no use to a kernel that expects another. Numba's own target, and the user's functions with it, stay as they are.

The files contain code that is run, so they are read from this package only, where nobody but its owner and root can change
them, and fastnet never writes there. `pack` makes a file when a release is built.
"""
import functools
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from fastnet.kernels.codegen.digest import SOURCES, VERSIONS, settings
from fastnet.kernels.system import trusted_file
from numba import config
from numba.core.codegen import JITCPUCodegen, get_host_cpu_features
from numba.core.registry import cpu_target

FOLDER = Path(__file__).parents[1] / "compiled"
MANIFEST = "manifest.json"
_LENGTH = struct.Struct("<Q")


class Level(NamedTuple):
    """A class of CPUs, in LLVM's words."""

    cpu: str
    features: str  # what is changed of that CPU's
    needs: str  # the features of every CPU of the level


_V2 = "cx16 popcnt sahf sse3 sse4.1 sse4.2 ssse3"
_V3 = f"{_V2} avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave"

_TRIPLE = llvm.get_process_triple()
LEVELS = {  # of this architecture, lowest first
    "armv8": Level("generic", "+neon", ""),
} if _TRIPLE.startswith(("aarch64", "arm64")) else {
    "x86-64-v2": Level("x86-64-v2", "", _V2),
    "x86-64-v3": Level("x86-64-v3", "", _V3),
    # LLVM would vectorise loops with 256 bits for a CPU it knows no better
    "x86-64-v4": Level("x86-64-v4", "-prefer-256-bit", f"{_V3} avx512bw avx512cd avx512dq avx512f avx512vl"),
}


class Carried(NamedTuple):
    """The compiled kernels of this installation that are used."""

    level: str | None  # a key of `LEVELS`
    reason: str  # why this one, or why none
    files: Mapping[str, bytes]  # by the name that each would have in the cache


def made_for() -> dict[str, Any]:
    """What must be the same where a kernel is compiled and where it is used."""
    return {**VERSIONS, "system": _TRIPLE, "sources": SOURCES,
            "settings": hashlib.sha256(repr(settings()).encode()).hexdigest()}


def satisfied() -> list[str]:
    """The levels for which Numba is to compile here, best first: those of the CPU, or the one that its settings name."""
    named = vars(config)["CPU_NAME"], vars(config)["CPU_FEATURES"]
    if named != (None, None):
        return [name for name, level in LEVELS.items() if named == (level.cpu, level.features)]
    found = set(get_host_cpu_features().split(","))
    return [name for name, level in reversed(LEVELS.items()) if found.issuperset(f"+{need}" for need in level.needs.split())]


def _find() -> Carried:
    none: Mapping[str, bytes] = {}
    if not FOLDER.is_dir():
        return Carried(None, "this installation carries no compiled kernels", none)
    try:
        manifest = json.loads(trusted_file(FOLDER / MANIFEST).read_bytes())
        for what, here in made_for().items():
            if manifest["made_for"].get(what) != here:
                other = {"sources": "sources", "settings": "settings of Numba"}.get(
                    what, f"versions: {what} {manifest['made_for'].get(what)}, and here is {here}")
                return Carried(None, f"those of this installation were made for other {other}", none)
        level = next((name for name in satisfied() if name in manifest["levels"]), None)
        if level is None:
            return Carried(None, "those of this installation were made for other CPUs, "
                                 f"{', '.join(manifest['levels'])}, or NUMBA_CPU_NAME or _FEATURES asks for another", none)
        content = trusted_file(FOLDER / f"{level}.kernels").read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["levels"][level]:
            return Carried(None, f"the file of this installation for {level} is damaged", none)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Carried(None, f"those of this installation cannot be used ({error})", none)
    return Carried(level, "this CPU has the level's features", _Files(content))


class _Files(Mapping[str, bytes]):
    """The files in a file that `pack` made."""

    def __init__(self, content: bytes) -> None:
        start = _LENGTH.size + _LENGTH.unpack_from(content)[0]
        self._content, self._start = content, start
        self._places: dict[str, list[int]] = json.loads(content[_LENGTH.size:start])

    def __getitem__(self, name: str) -> bytes:
        start, size = self._places[name]
        return self._content[self._start + start:self._start + start + size]

    def __iter__(self) -> Any:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def pack(cache: Path, to: Path) -> str:
    """Put the kernels in a folder of the cache into one file, in the order of their names; returns its digest."""
    places, blobs, size = {}, [], 0
    for file in sorted(cache.glob("*.nbc")):
        blobs.append(file.read_bytes())
        places[file.name] = [size, len(blobs[-1])]
        size += len(blobs[-1])
    index = json.dumps(places).encode()
    content = b"".join([_LENGTH.pack(len(index)), index, *blobs])
    to.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


CARRIED = _find()


class _Codegen(JITCPUCodegen):
    """Compiles for the level of the kernels that are carried."""

    def _get_host_cpu_name(self) -> str:
        return LEVELS[CARRIED.level].cpu

    def _get_host_cpu_features(self) -> str:
        return LEVELS[CARRIED.level].features


@functools.cache
def codegen() -> JITCPUCodegen:
    """What makes machine code of kernels: Numba's own, for the host's CPU, or one for a level."""
    return cpu_target.target_context.codegen() if CARRIED.level is None else _Codegen("fastnet")
