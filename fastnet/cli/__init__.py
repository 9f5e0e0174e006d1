"""The ``fastnet`` command.

A subcommand is two functions. ``_<name>(arguments)`` does the work, imports the modules that it needs, and returns the exit
code. The other, decorated with ``@subcommand``, declares its arguments. ``_ELSEWHERE`` lists subcommands in other modules,
which ``main`` imports only for that command.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Subcommand = Callable[[Any], None]

_SUBCOMMANDS: list[Subcommand] = []
_ELSEWHERE = {
    "sweep": ("fastnet.sweep.command", "train with many learning rates and suggest the best"),
    "train": ("fastnet.cli.train", "train one network and write its pictures and a report"),
}


def subcommand(declare: Subcommand) -> Subcommand:
    """Add a subcommand: ``declare(commands)`` calls ``commands.add_parser(...)`` and ``set_defaults(run=...)`` on it."""
    _SUBCOMMANDS.append(declare)
    return declare


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    from fastnet.base.system import print_what_can_be_shown, until_reader_leaves

    print_what_can_be_shown()
    return until_reader_leaves(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="fastnet", description="The course's neural network, on compiled kernels.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    given = list(sys.argv[1:] if argv is None else argv)
    for name, (module, summary) in _ELSEWHERE.items():
        if name in given[:1]:
            importlib.import_module(module)
        elif module not in sys.modules:
            commands.add_parser(name, help=summary)
    for declare in _SUBCOMMANDS:
        declare(commands)
    arguments = parser.parse_args(given)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("fastnet: stopped.", file=sys.stderr)
        return 130


def failed(error: Exception) -> int:
    """Print an expected error, and return the exit code."""
    print(f"fastnet: {error}", file=sys.stderr)
    return 1


def _version() -> str:
    from fastnet import __version__

    return f"fastnet {__version__}"


@subcommand
def _declare_data(commands: Any) -> None:
    data = commands.add_parser("data", help="find or download CIFAR-100").add_subparsers(
        metavar="ACTION", required=True
    )
    download = data.add_parser(
        "download",
        help="download CIFAR-100 (169 MB)",
        description="Download CIFAR-100, verify it, and unpack its three files. If you interrupt the download, the same "
        "command resumes it. Set the environment variable FASTNET_CIFAR100_URL to download from another address.",
    )
    download.add_argument(
        "--to",
        metavar="FOLDER",
        type=Path,
        help="folder for the files (default: $FASTNET_DATA, or the user's cache folder)",
    )
    download.set_defaults(run=_data_download)
    path = data.add_parser("path", help="print the folder from which fastnet reads CIFAR-100")
    path.set_defaults(run=_data_path)


def _data_download(arguments: argparse.Namespace) -> int:
    from fastnet.dataset import _places
    from fastnet.dataset._download import DownloadError, download

    try:
        folder = arguments.to or _places.download_folder()
        print(
            f"Downloading CIFAR-100 (169 MB) to {folder}. The authors' site may take up to an hour. If you stop, the same "
            "command resumes the download.",
            file=sys.stderr,
        )
        new = download(folder)
    except (DownloadError, OSError) as error:
        return failed(error)
    print(f"CIFAR-100 {'is' if new else 'was already'} in {folder}, verified.")
    if arguments.to and not any(place == folder.absolute() for place, _ in _places.places()):
        print(f"To use this folder: export FASTNET_DATA={folder.absolute()}")
    return 0


def _data_path(_: argparse.Namespace) -> int:
    from fastnet.dataset import _places

    try:
        print(_places.find())
    except FileNotFoundError as error:
        return failed(error)
    return 0


@subcommand
def _declare_cache(commands: Any) -> None:
    cache = commands.add_parser("cache", help="show or empty the cache of compiled kernels")
    cache.add_argument("--clear", action="store_true",
                       help="delete all compiled kernels; fastnet compiles them again when it needs them")
    cache.set_defaults(run=_cache)


def _cache(arguments: argparse.Namespace) -> int:
    from fastnet.kernels.codegen.cache import DIGEST, UNREADABLE, cache_info, clear_cache

    if arguments.clear:
        print(f"Removed the compiled kernels of {clear_cache()} versions.")
        return 0
    info = cache_info()
    if info.folder is None:
        print("fastnet cannot write to any cache folder. Set FASTNET_CACHE_DIR to a folder that you can write." if DIGEST
              else f"fastnet does not store compiled kernels: {UNREADABLE}")
        return 1
    print(f"{info.folder}\n{info.kernels} compiled functions, {info.size / 1e6:.1f} MB; caches of {info.others} other "
          "versions of fastnet.\nTo delete all: fastnet cache --clear")
    return 0


@subcommand
def _declare_warmup(commands: Any) -> None:
    warmup = commands.add_parser(
        "warmup", help="compile the kernels, so that the first fit starts at once",
        description="Compile the kernels for float32 and float64 and store them in the cache, so that the first fit starts "
        "at once. This takes about a minute on two cores, and a second if they are compiled already.")
    warmup.set_defaults(run=_warmup)


def _warmup(_: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fastnet.cli.warm_up import parts, warm_up
    from fastnet.kernels.codegen.beside import CompilationError

    try:
        print("Compiling the kernels; this takes about a minute on two cores.", file=sys.stderr)
        with tqdm(warm_up(), total=parts(), unit="part", desc="compiling") as bar:
            for part in bar:
                bar.set_postfix_str(part)
    except CompilationError as error:
        return failed(error)
    return _cache(argparse.Namespace(clear=False))


@subcommand
def _declare_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor", help="show CPU, threads, cache and speed, and advise on problems",
        description="Show versions, CPU, threads and cache, measure the speed of matrix products (about 15 seconds), and "
        "advise on problems.")
    doctor.set_defaults(run=_doctor)


def _doctor(_: argparse.Namespace) -> int:
    import numpy as np

    from fastnet.cli import doctor as _machine
    from fastnet.cli.peak import fma_peak

    for name, value in _machine.facts().items():
        print(f"{name:8s} {value}")
    print("\nMeasuring the speed of matrix products; this takes about 15 seconds ...", flush=True)
    measured = []
    for dtype in (np.float32, np.float64):
        peak, products = fma_peak(dtype), _machine.products(dtype)
        busy = _machine.busy(peak, products)
        print(f"\n{np.dtype(dtype).name}: peak of {peak.best / 1e9:.0f} GFLOP/s for multiply-adds on all threads. Products "
              "(higher is better):")
        for product in products:
            share = "machine busy" if busy else f"{product.share(peak):4.0%} of peak"
            print(f"  {product.what:36s} {product.rate.best / 1e9:6.0f} GFLOP/s  {share}")
        measured.append((peak, products))
    print("\n" + ("\n".join(f"! {line}" for line in _machine.advice(measured)) or "No problems found."))
    return 0


@subcommand
def _declare_compare(commands: Any) -> None:
    from fastnet.gate import command

    compare = commands.add_parser("compare", help="find out whether a change made a project's benchmarks slower",
                                  description=command.DESCRIPTION, epilog=command.EPILOG,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(compare)
    compare.set_defaults(run=command.execute)


@subcommand
def _declare_check(commands: Any) -> None:
    from fastnet.check import _command as command

    check = commands.add_parser("check", help="check the layers that you wrote for the course",
                                description=command.DESCRIPTION, epilog=command.EPILOG)
    command.add_arguments(check)
    check.set_defaults(run=command.execute)
