"""The trials of a sweep as arrays."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnet.sweep.record import Record
from fastnet.sweep.spec import Setting, Spec, Trial


class Arrays:
    """The arguments of the sweep, the records of the trials, and arrays of them; `SweepResult` describes them."""

    spec: Spec
    records: Mapping[Trial, Record]
    settings_engines: dict[Setting, str]

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        return self.spec.axes

    @property
    def lrs(self) -> tuple[float, ...]:
        return self.spec.lrs

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.spec.seeds

    @property
    def names(self) -> tuple[str, ...]:
        return self.spec.names

    @property
    def metric(self) -> str | None:
        """What the sweep was told to judge by."""
        return None if self.spec.metric is None else self.spec.metric[0]

    @property
    def engines(self) -> dict[str, str]:
        def name(setting: Setting) -> str:
            return str(setting.asdict().get("name", ""))

        by_network = {name(setting): engine for setting, engine in self.settings_engines.items()}
        if all(by_network[name(setting)] == engine for setting, engine in self.settings_engines.items()):
            return by_network
        return {self.spec.label(setting): engine for setting, engine in self.settings_engines.items()}

    @property
    def losses(self) -> np.ndarray:
        return self._by_epoch(lambda record: record.losses)

    @property
    def val_losses(self) -> np.ndarray:
        return self._by_epoch(lambda record: record.val_losses)

    @property
    def val_accuracies(self) -> np.ndarray:
        return self._by_epoch(lambda record: record.val_accuracies)

    @property
    def accuracies(self) -> np.ndarray:
        return self._array(lambda record: record.final.get("test_accuracy", np.nan), np.nan)

    @property
    def test_losses(self) -> np.ndarray:
        return self._array(lambda record: record.final.get("test_loss", np.nan), np.nan)

    def curve(self, name: str) -> np.ndarray:
        """A curve by its name: an array with an axis for the epochs, nan where a trial did not come to."""
        self._known("curve", name, lambda record: record.curves)
        return self._by_epoch(lambda record: record.curves.get(name, []))

    def final(self, name: str) -> np.ndarray:
        """What was only reported, by its name, for every trial."""
        self._known("final", name, lambda record: record.final)
        return self._array(lambda record: record.final.get(name, np.nan), np.nan)

    def _known(self, what: str, name: str, of: Callable[[Record], Any]) -> None:
        there = list(dict.fromkeys(known for record in self.records.values() for known in of(record)))
        if self.records and name not in there:
            raise ValueError(f"SweepResult.{what}: no trial reported {name!r}. There is: "
                             f"{', '.join(map(repr, there)) or 'nothing'}.")

    @property
    def status(self) -> np.ndarray:
        return self._array(lambda record: record.status, "missing")

    @property
    def diverged_in(self) -> np.ndarray:
        return self._array(lambda record: record.epochs if record.status == "diverged" else 0, 0)

    @property
    def epochs_run(self) -> np.ndarray:
        return self._array(lambda record: record.epochs, 0)

    @property
    def seconds(self) -> np.ndarray:
        return self._array(lambda record: record.seconds, np.nan)

    @property
    def finished(self) -> int:
        """How many trials have been run."""
        return sum(trial in self.records for trial in self.spec.trials())

    @property
    def cost(self) -> float:
        """Epochs that were run, as a part of those of all trials to the end, or until they diverged or ended themselves."""
        records = [self.records[trial] for trial in self.spec.trials() if trial in self.records]
        full = sum(record.epochs if record.status == "diverged" or record.ended else self.spec.epochs for record in records)
        missing = sum(trial not in self.records for trial in self.spec.trials())
        return sum(record.epochs for record in records) / max(1, full + missing * self.spec.epochs)

    def _array(self, value: Callable[[Record], Any], missing: Any) -> np.ndarray:
        axes = self.axes
        cells = []
        for values in itertools.product(*axes.values()):
            at = dict(zip(axes, values))
            setting = Setting((name, at.get(name, given[0])) for name, given in self.spec.params)
            record = self.records.get(self.spec.trial(setting, at["lr"], at["seed"], at.get("fold", 0)))
            cells.append(missing if record is None else value(record))
        array = np.array(cells)
        return array.reshape(*map(len, axes.values()), *array.shape[1:])

    def _by_epoch(self, values: Callable[[Record], list[float]]) -> np.ndarray:
        empty = [np.nan] * self.spec.epochs
        return self._array(lambda record: (values(record) + empty)[:self.spec.epochs], empty)
