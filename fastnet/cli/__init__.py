"""The ``fastnet`` command.

Each subcommand is a module. Its function ``add_arguments(parser)`` declares the arguments, and ``execute(arguments)`` does
the work and returns the exit code. ``DESCRIPTION``, ``EPILOG`` and ``FORMATTER`` are optional; they go to the parser.
``main`` imports only the module of the subcommand that it runs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {  # name: module, and the line that ``fastnet --help`` prints
    "sweep": ("fastnet.sweep.command", "train with many learning rates and suggest the best"),
    "train": ("fastnet.cli.train", "train one network and write its pictures and a report"),
    "data": ("fastnet.cli.data", "find or download CIFAR-100"),
    "cache": ("fastnet.cli.cache", "show or empty the cache of compiled kernels"),
    "warmup": ("fastnet.cli.warmup", "compile the kernels, so that the first fit starts at once"),
    "doctor": ("fastnet.cli.doctor", "show CPU, threads, cache and speed, and advise on problems"),
    "compare": ("fastnet.gate.command", "find out whether a change made a project's benchmarks slower"),
    "check": ("fastnet.check._command", "check the layers that you wrote for the course"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    from fastnet.base.system import print_what_can_be_shown, until_reader_leaves

    print_what_can_be_shown()
    return until_reader_leaves(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    from fastnet import __version__

    parser = argparse.ArgumentParser(prog="fastnet", description="The course's neural network, on compiled kernels.")
    parser.add_argument("--version", action="version", version=f"fastnet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    given = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, (path, summary) in COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=summary)
            continue
        module = importlib.import_module(path)
        command = commands.add_parser(
            name, help=summary, description=getattr(module, "DESCRIPTION", None), epilog=getattr(module, "EPILOG", None),
            formatter_class=getattr(module, "FORMATTER", argparse.HelpFormatter))
        module.add_arguments(command)
        command.set_defaults(run=module.execute)
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
