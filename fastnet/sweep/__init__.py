"""Learning-rate sweeps: many models trained on the same data, sharing what can be shared.

===============  =======================================================================================
``grid``         learning rates, seeds and other values from lists and strings; ``schedules``
``spec``         what a sweep was asked for, checked; its trials; builders of networks
``folds``        cross-validation: which samples each fold holds out
``shared``       data, Gram matrix and first outputs: made once, used by all trials
``trial``        one network, one rate, one seed, one fold
``run``          `lr_sweep`
``search``       which trials to run: all, successive halving, or a grid that finds itself
``session``      hands trials to threads or to an executor, and keeps what comes back
``executors``    how data get to where trials run: threads, processes, a Dask ``cluster``
``journal``      the file that a sweep is resumed from, and its ``lines``; ``fingerprint``: what it may not change
``states``       where stopped trials wait to go on
``metrics``      what trials are judged by; ``candidates``: what can be chosen, in a table
``choice``       which rate to take, and how sure that is; ``ranking`` and ``statistics``
``result``       `SweepResult`: ``arrays``, ``tables``, the suggested rate, the ``best`` model trained again
``plot``         its picture; ``report``: its page
``command``      ``fastnet sweep``
===============  =======================================================================================
"""
from fastnet.sweep.choice import Suggestion
from fastnet.sweep.grid import rates
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run import lr_sweep
from fastnet.sweep.session import SweepError

__all__ = ["Suggestion", "SweepError", "SweepResult", "lr_sweep", "rates"]
