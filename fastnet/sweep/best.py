"""The trial of a sweep whose network `SweepResult.best_model` trains again: the weights of trials are not kept."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastnet.sequential import Sequential
from fastnet.sweep.choice.metrics import value_of
from fastnet.sweep.choice.suggestion import Suggestion
from fastnet.sweep.spec import Setting, Trial

if TYPE_CHECKING:
    from fastnet.sweep.result import SweepResult

_WHO = "SweepResult.best_model"


def best_model(result: SweepResult, lr: float | None, seed: int | None, fold: int | None,
               wanted: dict[str, Any]) -> Sequential:
    """What `SweepResult.best_model` says."""
    if result._train is None:
        raise ValueError(f"{_WHO}: a sweep of a function of yours, or one that was loaded from a file, has no data and no "
                         "networks. Call lr_sweep with them and resume=the file: it runs nothing again.")
    if lr is None:
        lr = result._suggestion(None, wanted)
    setting = lr.setting if isinstance(lr, Suggestion) and not wanted else _setting(result, wanted)
    rate = next((known for known in result.lrs if f"{known:.6g}" == f"{lr:.6g}"), float(lr))
    spec, trial = result.spec, _best_trial(result, setting, rate, seed, fold)
    if trial is None:
        wanted_trial = spec.described(spec.trial(setting, rate, seed or 0, fold or 0))
        raise ValueError(f"{_WHO}: no trial of {wanted_trial} is finished. "
                         f"Rates: {', '.join(f'{known:g}' for known in result.lrs)}; seeds: {list(result.seeds)}"
                         + (f"; names: {list(result.names)}." if result.names != ("",) else "."))
    return result._train(spec, trial, result.settings_engines[setting], fold if spec.folds else None)


def _setting(result: SweepResult, wanted: dict[str, Any]) -> Setting:
    """Where a choice is left, the one of the suggestion."""
    try:
        return result._setting(_WHO, wanted)
    except ValueError:
        best = result.suggestion()
        if best is None or any(best.setting.asdict().get(field) != value for field, value in wanted.items()):
            raise
        return best.setting


def _best_trial(result: SweepResult, setting: Setting, lr: float, seed: int | None, fold: int | None) -> Trial | None:
    """The best finished trial of a rate; of one seed, whether it is done or not."""
    metric = result.judged_by(None)
    records = result.records
    trials = [result.spec.trial(setting, lr, *repeat) for repeat in result.spec.repeats()
              if seed in (None, repeat[0]) and fold in (None, repeat[1])]
    trials = [trial for trial in trials if trial in records and (seed is not None or records[trial].status == "done")]
    return max(trials, key=lambda trial: metric.sign * value_of(records[trial], metric), default=None)
