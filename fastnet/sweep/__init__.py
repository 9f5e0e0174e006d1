"""Learning-rate sweeps: many models trained on the same data, sharing what can be shared.

===============  =======================================================================================
``grid``         learning rates, seeds and other values from lists and strings
``spec``         what a sweep was asked for, checked, and its trials; ``record``: what a trial gave
``run``          runs trials: networks (`lr_sweep`), searches, executors
``store``        what is kept on disk: the journal, and states of stopped trials
``choice``       which rate to take, and how sure that is
``show``         arrays, tables, the picture, the report
``result``       `SweepResult`, what a sweep returns
``command``      ``fastnet sweep``
===============  =======================================================================================
"""
from fastnet.sweep.choice.suggestion import Suggestion
from fastnet.sweep.grid import rates
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.networks import lr_sweep
from fastnet.sweep.run.session import SweepError

__all__ = ["Suggestion", "SweepError", "SweepResult", "lr_sweep", "rates"]
