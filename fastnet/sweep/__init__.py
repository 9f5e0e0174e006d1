"""Learning-rate sweeps: many models trained on the same data, sharing what can be shared.

=============  =========================================================================================
``grid``       learning rates and seeds from lists and texts
``spec``       what a sweep was asked for, checked; its trials; builders of networks
``shared``     data, Gram matrix and first outputs: made once, used by all trials
``trial``      one network, one rate, one seed
``run``        `lr_sweep`: hands trials to threads or to an executor, and gathers what comes back
``places``     how data get to where the trials run: this process, processes of this machine, a Dask cluster
``journal``    the file that a sweep is resumed from
``result``     `SweepResult`: arrays, tables, the suggested rate
``plot``       its picture
``command``    ``fastnet sweep``
=============  =========================================================================================
"""
from fastnet.sweep.grid import rates
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run import SweepError, lr_sweep

__all__ = ["SweepError", "SweepResult", "lr_sweep", "rates"]
