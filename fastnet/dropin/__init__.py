"""Run the course's scripts and tests on fastnet, without a change: ``import layers`` imports fastnet.

::

    python -m fastnet.dropin script.py [arguments]            a script
    python -m fastnet.dropin --classes 3 script.py            a script from another year of the course
    python -m fastnet.dropin -m unittest discover test        a module, for example unittest
    pytest -p fastnet.dropin                                  a test suite

Then ``layers`` and its modules are fastnet's, in that process and in the Python processes that it starts::

    import layers.full                              layers.full.FullLayer(3072, 500)
    import layers.FullLayer                         layers.FullLayer(3072, 500), as the chapter writes it
    from layers import FullLayer
    from layers.sequential import Sequential
    from layers.dataset import cifar100

**Code that runs.** fastnet replaces the course's modules and classes, also those in a folder ``layers`` or a file
``layers.py`` next to the script, and prints to the error stream that it does. All other names come from that folder
or file: ``layers.dropout``, ``from layers import Dropout``, ``from layers.dataset import fer2013``. fastnet provides a name
outside the course only if the folder does not have it. Scripts inside the folder, with ``from full import FullLayer``,
run on fastnet if the folder has all five modules of the chapter.

**Classes of CIFAR-100.** ``cifar100(seed)`` returns the same classes as the folder's function. To find out which these are,
fastnet runs the folder's file in a separate process, with small files in place of CIFAR-100's. ``--classes``, or the
environment variable ``FASTNET_CLASSES``, changes the number of classes and, after commas, ``replace`` or ``distinct``,
``images`` or ``rows``, ``onehot`` or ``integers`` (test labels); it changes nothing that it does not name. If the folder's
``cifar100`` does anything else, the folder's function runs.

**Sequential.** fastnet's class replaces the folder's, unless a script could notice the difference: by methods that only
the folder's class has, by the arguments of its ``fit``, or by the return values of ``fit`` and ``predict``. In that case the
folder's class runs with fastnet's layers, and the drop-in prints the reason before training starts.

**Other differences from fastnet without the drop-in.** ``cifar100`` seeds NumPy's global state, as the course's does.
``fit`` drops surplus targets, as a loop over slices does. ``import cPickle`` imports pickle, which then reads text from
Python 2. unittest has its old names, such as ``assertAlmostEquals``, on Python 3.12 and later too.

**Limitation.** Python does not allow ``from layers.FullLayer import FullLayer``: after ``import layers.FullLayer`` that
name is the class, which contains no modules. Write ``from layers.full import FullLayer``.
"""

from __future__ import annotations

from typing import Any

from fastnet.dropin._finder import NAME, install, served

__all__ = ["install"]


def pytest_load_initial_conftests() -> None:
    """Install the drop-in before ``pytest -p fastnet.dropin`` imports a conftest.py or a test."""
    install()


def pytest_report_header() -> str:
    """Return a line for the head of pytest's report, since pytest hides what imports print."""
    return f"fastnet.dropin: {NAME!r} is fastnet"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line at the end if no test used fastnet."""
    elsewhere = terminalreporter.config.pluginmanager.hasplugin("dsession")  # pytest-xdist: the tests ran in its workers
    if not served() and not elsewhere:
        terminalreporter.write_line(f"fastnet.dropin: no test imported {NAME!r}, so none ran on fastnet")
