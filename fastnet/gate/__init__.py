"""The performance gate, ``fastnet compare``, which finds out whether a change made a project's benchmarks slower.

It compares two revisions of any project that has benchmarks for pytest-benchmark. It is independent of fastnet's layers and
kernels: importing it loads neither Numba nor a kernel. See ``README.md`` in this folder.

================  ==================================================================================
``command``       the command line
``prepare``       the sides of a comparison: checked out, installed, given head's benchmarks
``compare``       two revisions: warm up, measure rounds until every row is decided, judge
``history``       many revisions against one baseline, and the search for the commit of a step
``record``        results stored per commit, and the commits at which a benchmark changed
``files``         two JSON files of pytest-benchmark
``imports``       importing the package as the benchmark
``repository``    git: the user's repository, which the gate only reads, and the gate's store
``workspace``     folders that hold the checkouts and environments of one comparison
``discover``      finds a project's benchmarks by the fixture that they use
``declared``      what a project declares: requirements, and options of pytest
``environment``   virtual environments, made by pip or uv from what a project declares
``children``      the environment variables of child processes
``pairing``       which benchmarks can be compared, and why the others cannot
``runs``          processes: run benchmarks with pytest, read their numbers
``turns``         the processes of a round compute one after the other, for milliseconds each
``probe``         the pytest plugin loaded into those processes
``limits``        the allowed slowdown of each benchmark
``statistics``    ratios of paired timings, and intervals that hold at every look
``judge``         from numbers to verdicts
``render``        verdicts as Markdown and JSON
``plot``          curves as pictures
``action``        the GitHub action, and the script that keeps its comment up to date
================  ==================================================================================
"""


class GateError(Exception):
    """The gate could not run; the message says why and what to do."""
