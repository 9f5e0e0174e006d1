"""Sweeps of learning rates and other hyperparameters: `lr_sweep` of fastnet's networks, `sweep` of any training function.

===============  =======================================================================================
``grid``         learning rates, seeds and other values from lists and strings
``spec``         the arguments of a sweep, checked, and its trials; ``record``: the results of a trial
``run``          runs trials: networks (`lr_sweep`), searches, executors
``store``        what is kept on disk: the journal, and states of stopped trials
``choice``       which rate to take, and how sure that is
``show``         arrays, tables, the picture, the report
``result``       `SweepResult`, what a sweep returns
``command``      ``fastnet sweep``
===============  =======================================================================================
"""
import sys
import types
from typing import Any

from fastnet.sweep.choice.finished import choose
from fastnet.sweep.choice.suggestion import Suggestion
from fastnet.sweep.grid import rates
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.function import Training, sweep
from fastnet.sweep.run.networks import lr_sweep
from fastnet.sweep.run.session import SweepError

__all__ = ["Suggestion", "SweepError", "SweepResult", "Training", "choose", "lr_sweep", "rates", "sweep"]


class _Callable(types.ModuleType):
    """``fastnet.sweep(train, ...)`` is ``fastnet.sweep.sweep(train, ...)``."""

    def __call__(self, *args: Any, **options: Any) -> SweepResult:
        return sweep(*args, **options)


sys.modules[__name__].__class__ = _Callable
