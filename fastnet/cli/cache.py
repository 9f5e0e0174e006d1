"""The command ``fastnet cache``: it shows or empties the cache of compiled kernels."""
from __future__ import annotations

import argparse

from fastnet.kernels.codegen import cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what follows ``fastnet cache``."""
    parser.add_argument("--clear", action="store_true",
                        help="delete all compiled kernels; fastnet compiles them again when it needs them")


def execute(arguments: argparse.Namespace) -> int:
    """Show or empty the cache."""
    if arguments.clear:
        print(f"Removed the compiled kernels of {cache.clear_cache()} versions.")
        return 0
    return show()


def show() -> int:
    """Print where the cache is and what it holds; return the exit code."""
    info = cache.cache_info()
    if info.folder is None:
        print("fastnet cannot write to any cache folder. Set FASTNET_CACHE_DIR to a folder that you can write."
              if cache.DIGEST else f"fastnet does not store compiled kernels: {cache.UNREADABLE}")
        return 1
    print(f"{info.folder}\n{info.kernels} compiled functions, {info.size / 1e6:.1f} MB; caches of {info.others} other "
          "versions of fastnet.\nTo delete all: fastnet cache --clear")
    return 0
