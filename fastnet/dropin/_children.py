"""Processes that a script starts: told by the environment, served as they start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fastnet.base.confinement import DROPIN


def serve() -> None:
    """Let every Python of this installation that is started from here on install the drop-in.

    Python imports ``sitecustomize`` when it starts, from the first folder of its path that has one. PYTHONPATH comes
    before the installation's own, and reaches what multiprocessing spawns, its fork server, joblib and subprocesses.
    """
    site = str(Path(__file__).with_name("_site"))
    os.environ[DROPIN] = sys.prefix
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry != site]
    os.environ["PYTHONPATH"] = os.pathsep.join([site, *entries] if entries != [""] else [site])
