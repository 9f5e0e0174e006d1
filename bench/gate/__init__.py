"""The parts of ``python -m bench.compare``: limits, sides (worktree, environment), runs, judge, render."""


class GateError(Exception):
    """The gate could not run; the text says why and what to do."""
