"""A network of a sweep, trained again."""
from __future__ import annotations

from typing import Any

from fastnet.sequential import Sequential
from fastnet.sweep.run.builders import Builders
from fastnet.sweep.run.folds import held_out, rows_of
from fastnet.sweep.run.shared import uses_nesterov
from fastnet.sweep.spec import Spec, Trial


def train_again(builders: Builders, data: tuple[Any, Any, Any, Any], spec: Spec, trial: Trial, engine: str,
                fold: int | None) -> Sequential:
    """Return the network of a trial with the same bits, trained on all data, or on all but those of a fold."""
    x, t, validation, _ = data
    if fold is not None:
        train, out = rows_of(held_out(t, spec.folds), fold)
        x, t, validation = x[train], t[train], (x[out], t[out])
    setting = trial.setting
    model = builders.build(setting.name, trial.seed)
    with builders.turns.taken(trial.seed):  # layers may draw from the global generators
        model.fit(x, t, spec.epochs, lambda epoch: spec.rate(trial, epoch), setting.batch_size, engine=engine,
                  validation=validation, shuffle=spec.shuffle, rng=trial.seed if spec.shuffle else None,
                  momentum=setting.momentum, weight_decay=setting.weight_decay, optimizer=setting.optimizer,
                  nesterov=uses_nesterov(setting), progress=False)
    return model
