"""Serve fastnet under the name ``layers``, to course scripts and tests that stay as they are.

::

    python -m fastnet.dropin script.py [arguments]            a script
    python -m fastnet.dropin --classes 3 script.py            a script of another edition of the course
    python -m fastnet.dropin -m unittest discover test        a module, unittest for one
    pytest -p fastnet.dropin                                  a test suite

From then on ``layers`` and its modules are fastnet's, in that process and in the Python processes it starts::

    import layers.full                              layers.full.FullLayer(3072, 500)
    import layers.FullLayer                         layers.FullLayer(3072, 500), as the chapter writes it
    from layers import FullLayer
    from layers.sequential import Sequential
    from layers.dataset import cifar100

**Whose code runs.** For the course's modules and classes, fastnet wins over a folder ``layers``, or a file
``layers.py``, next to the script: the drop-in is there to replace it, and prints on the error stream that it does.
Every other name comes from that folder, module or single name: ``layers.dropout``, ``from layers import Dropout``,
``from layers.dataset import fer2013``. Only what neither the course nor the folder has is looked for in the rest of
fastnet. Scripts inside the folder, which say ``from full import FullLayer``, work as well where the folder has all
five modules of the chapter.

**Which classes.** ``cifar100(seed)`` serves what the folder's own function serves: fastnet runs the file in a
separate process, where small files replace CIFAR-100's, and looks at the result. ``--classes``, or the environment
variable ``FASTNET_CLASSES``, changes what it names and nothing else: the number of classes, and after a comma
``replace`` or ``distinct``, ``images`` or ``rows``, ``onehot`` or ``integers`` (test labels). A ``cifar100`` that
does something else is left in charge.

**Which Sequential.** fastnet's, unless a script could tell it from the folder's own: by methods that only the
folder's class has, by what its ``fit`` takes, or by what ``fit`` and ``predict`` return. Then the drop-in serves the
folder's own class around fastnet's layers, and prints why before anything is trained.

**What else differs from fastnet without the drop-in.** ``cifar100`` seeds NumPy's global state, as the course's does;
``fit`` drops surplus targets, as a loop over slices does; ``import cPickle`` gives pickle, which reads texts
of Python 2; and unittest has its old names, ``assertAlmostEquals`` for one, on Python 3.12 and later too.

What Python does not allow: ``from layers.FullLayer import FullLayer``, because after ``import layers.FullLayer`` the name
stands for the class itself, which has no modules in it. Write ``from layers.full import FullLayer``.
"""

from __future__ import annotations

from typing import Any

from fastnet.dropin._finder import NAME, install, served

__all__ = ["install"]


def pytest_load_initial_conftests() -> None:
    """Called by ``pytest -p fastnet.dropin`` before it imports a conftest.py or a test."""
    install()


def pytest_report_header() -> str:
    """Said at the head of pytest's report, where what is printed during imports is not seen."""
    return f"fastnet.dropin: {NAME!r} is fastnet"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end if no test was about fastnet."""
    elsewhere = terminalreporter.config.pluginmanager.hasplugin("dsession")  # pytest-xdist: the tests ran in its workers
    if not served() and not elsewhere:
        terminalreporter.write_line(f"fastnet.dropin: no test imported {NAME!r}, so none ran on fastnet")
