"""The performance gate, ``fastnet compare``: did this change make anything slower?

It compares two revisions of any project that has benchmarks for pytest-benchmark, and knows nothing of fastnet's layers
and kernels: importing it loads neither Numba nor a kernel. See ``README.md`` in this folder.

================  ==================================================================================
``command``       the command line
``compare``       two revisions: warm up, measure, measure the suspicious again, judge
``history``       many revisions against one baseline, and the search for the commit of a step
``files``         two JSON files of pytest-benchmark
``repository``    git: revisions, the working tree as a commit, worktrees, rooms that hold them
``environment``   virtual environments, made by pip from what a project declares
``pairing``       which benchmarks can be compared, and why the others cannot
``runs``          one process: run benchmarks with pytest, read one number per benchmark
``probe``         the pytest plugin loaded into those processes
``limits``        how much slower is too slow
``statistics``    ratios of paired timings, and their intervals
``judge``         from numbers to verdicts
``render``        verdicts as Markdown and JSON
``action``        the GitHub action, and the script that keeps its comment up to date
================  ==================================================================================
"""


class GateError(Exception):
    """The gate could not run; the text says why and what to do."""
