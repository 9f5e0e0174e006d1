"""The command ``fastnet data``: it finds or downloads CIFAR-100."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastnet.cli import failed
from fastnet.dataset import _places
from fastnet.dataset._download import DownloadError, download


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two actions of ``fastnet data``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    loads = actions.add_parser(
        "download", help="download CIFAR-100 (169 MB)",
        description="Download CIFAR-100, verify it, and unpack its three files. If you interrupt the download, the same "
        "command resumes it. Set the environment variable FASTNET_CIFAR100_URL to download from another address.")
    loads.add_argument("--to", metavar="FOLDER", type=Path,
                       help="folder for the files (default: $FASTNET_DATA, or the user's cache folder)")
    loads.set_defaults(action=_download)
    path = actions.add_parser("path", help="print the folder from which fastnet reads CIFAR-100")
    path.set_defaults(action=_path)


def execute(arguments: argparse.Namespace) -> int:
    """Run the action."""
    return arguments.action(arguments)


def _download(arguments: argparse.Namespace) -> int:
    try:
        folder = arguments.to or _places.download_folder()
        print(f"Downloading CIFAR-100 (169 MB) to {folder}. The authors' site may take up to an hour. If you stop, the same "
              "command resumes the download.", file=sys.stderr)
        new = download(folder)
    except (DownloadError, OSError) as error:
        return failed(error)
    print(f"CIFAR-100 {'is' if new else 'was already'} in {folder}, verified.")
    if arguments.to and not any(place == folder.absolute() for place, _ in _places.places()):
        print(f"To use this folder: export FASTNET_DATA={folder.absolute()}")
    return 0


def _path(_: argparse.Namespace) -> int:
    try:
        print(_places.find())
    except FileNotFoundError as error:
        return failed(error)
    return 0
