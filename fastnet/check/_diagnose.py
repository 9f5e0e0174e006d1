"""The diagnosis of a class: for each wrong number the equation, the line of code and the mistake."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.check import _counterexample, _repair, _source
from fastnet.check._cases import Case, cases
from fastnet.check._fault import Diagnosis, Fault, difference, matrix, raised
from fastnet.check._model import Observed, observe_model
from fastnet.check._observe import Step, agree, observe
from fastnet.check._reference import EQUATIONS
from fastnet.check._remarks import READINGS, initial, is_double, unstable
from fastnet.check._slips import named

_FIRST = ("initial W", "initial b", "the layers", "the layer", "the output", "the loss")


def diagnose(stem: str, klass: Any, source: _source.Source, own: dict[str, type], images: bool = False) -> Diagnosis:
    """Compare a class with the right one, and explain what differs.

    Parameters
    ----------
    stem : str
    klass : type
    source : Source
    own : dict
        The folder's classes by name.
    images : bool
        Whether the folder has layers for images.
    """
    return (_Model if stem == "sequential" else _Layer)(stem, klass, source, own, images).diagnosis


class _Layer:
    """The diagnosis of a layer."""

    def __init__(self, stem: str, klass: Any, source: _source.Source, own: dict[str, type], images: bool) -> None:
        self.stem, self.klass, self.source, self.own = stem, klass, source, own
        self.equations = EQUATIONS[stem]
        self.cases = [] if stem == "sequential" else cases(stem, images)
        self.diagnosis = Diagnosis()
        self.variance: str | None = None  # another reading of (3.12)
        self.observe()
        self.explain()
        self.remark()

    # --- what differs -------------------------------------------------------------------------------------------------

    def observe(self) -> None:
        self.steps = observe(self.stem, self.klass, self.cases)
        self.diagnosis.compared = sum(len(step.expected) for step in self.steps)
        self.diagnosis.matrices = [matrix(self.equations[name], name, self.steps[0].found.get(name), value)
                                   for name, value in self.steps[0].expected.items() if not name.startswith("initial")]

    def wrong(self) -> list[str]:
        names = {name for step in self.steps for name in step.wrong()}
        spread = self.spread()
        if spread:
            names.add(spread[0])
        return [name for name in ("the layer", *self.equations) if name in names]

    def spread(self) -> tuple[str, str] | None:
        """Return which initial parameter is wrong and how; None if the constructor draws them as (3.12) and (3.13) say."""
        if self.stem != "full" or any(step.error and step.error[0] == "initial W" for step in self.steps):
            return None
        found = initial(self.klass)
        if found is None:
            return None
        W, b = found
        std, right = float(np.std(W)), float(np.sqrt(2 / 500))
        self.variance = next((text for value, text in READINGS if abs(std / value - 1) < 0.05), None)
        if abs(np.mean(W)) > 0.1 * right:
            return "initial W", f"the weights have the mean {np.mean(W):.4g}, expected 0"
        if abs(std / right - 1) > 0.05 and self.variance is None:
            return (
                "initial W",
                f"the weights of FullLayer(300, 200) have the standard deviation {std:.4g}, expected {right:.4g}",
            )
        if np.max(np.abs(b), initial=0) > 0.5:
            return "initial b", f"the biases are as large as {np.max(np.abs(b)):.4g}; expected zeros or small numbers"
        return None

    def judge(self, klass: type, quick: bool) -> set[str] | None:
        tried = [self.failing] if quick else self.cases
        steps = observe(self.stem, klass, tried)
        before = [step for step in self.steps if step.case is self.failing] if quick else self.steps
        if sum(len(step.found) for step in steps) < sum(len(step.found) for step in before):
            return None  # the changed class stops earlier
        names = {name for step in steps for name in step.wrong()}
        if not quick and self.stem == "full":
            layer = _Layer.__new__(_Layer)
            layer.stem, layer.klass, layer.steps, layer.equations = self.stem, klass, steps, self.equations
            names |= {"initial W"} & set(layer.wrong())
        return names

    def judge_initial(self, klass: type, quick: bool) -> set[str] | None:
        found = initial(klass)
        if found is None:
            return None
        std = float(np.std(found[0]))
        good = np.shape(found[0]) == (200, 300) and abs(std / np.sqrt(2 / 500) - 1) < 0.05 and abs(np.mean(found[0])) < 0.005
        return set() if good and np.size(found[1]) in (1, 200) and np.max(np.abs(found[1]), initial=0) <= 0.5 else None

    # --- what explains it ---------------------------------------------------------------------------------------------

    def explain(self) -> None:
        wrong = self.wrong()
        errors = [step.error for step in self.steps if step.error is not None]
        explained: set[str] = set()
        for name in wrong:
            if name in explained:
                continue
            error = next((e for quantity, e in errors if quantity == name), None)
            fault, fixed = self.fault(name, error, set(wrong))
            same = next((f for f in self.diagnosis.faults if f.line == fault.line and f.line and f.method == fault.method
                         and f.slip == fault.slip), None)
            explained |= fixed | {name}
            if same is not None:
                same.also.append(name)
                continue
            fault.also = [other for other in wrong if other in fixed and other != name]
            self.diagnosis.faults.append(fault)

    def fault(self, name: str, error: BaseException | None, wrong: set[str]) -> tuple[Fault, set[str]]:
        """Return the fault behind a wrong quantity, and the quantities that are wrong because of it."""
        equation = self.equations.get(name) or next(iter(self.equations.values()))
        method = equation.method if name != "the layer" else "__init__"
        step = next((s for s in self.steps if name in s.wrong()), None)
        initial = self.spread() if name.startswith("initial") and step is None else None
        if initial:
            message = initial[1]
        elif error is not None:
            message = raised(error)
        else:
            assert step is not None
            message = difference(step.found.get(name), step.expected[name])
        fault = Fault(method, name, equation.number, equation.formula, message)
        fault.slip = None if error is not None else named(self.stem, name, self.steps)
        fault.line = self.source.frame(error) if error is not None else None
        line = self.source.line(fault.line) if fault.line else ""
        if error is not None:
            fault.slip = _source.python_2(error, line) or _of_error(error)
        fixed = self.find_line(fault, step, wrong, error)
        if fault.line is None:
            fault.line = self.source.line_of(fault.method, name)
        fault.source = self.source.line(fault.line) if fault.line else ""
        if error is not None and fault.repair is None and step is not None and fault.line:
            self.name_by_line(fault)
        if not name.startswith("initial"):
            fault.counterexample = _counterexample.show(self.stem, self.klass, name, self.cases)
        return fault, fixed

    def find_line(self, fault: Fault, step: Step | None, wrong: set[str], error: BaseException | None) -> set[str]:
        """Look for the wrong line: first among the attributes that forward stores, then by repairs."""
        forgotten = self.source.forgotten() if fault.method == "backward" else None
        if forgotten:
            fault.method, fault.slip = "forward", (
                f"forward does not keep self.{forgotten[0]}, which backward reads in line {forgotten[1]}")
            function = self.source.methods.get("forward")
            fault.line = function.lineno if function is not None else None
            return {name for name in wrong if self.equations[name].method == "backward"}
        later = fault.method == "backward" and all(s.before is not None for s in self.steps if fault.quantity in s.wrong())
        guarded = self.source.guarded() if later and "added to" not in (fault.slip or "") else None
        if guarded:
            fault.method, fault.line = "forward", guarded
            fault.slip = "forward keeps something of the first batch only; every call must keep its own"
            return {name for name in wrong if self.equations[name].method == "backward"}
        if isinstance(error, (NotImplementedError, SystemExit, EOFError)):
            return set()
        self.failing: Case = step.case if step is not None else self.cases[0]
        initial = fault.quantity.startswith("initial")
        kept = step.kept_wrong() if step is not None and fault.method == "backward" else None
        first = "forward" if kept else fault.method
        found = _repair.search(
            self.source,
            self.klass,
            self.judge_initial if initial and step is None else self.judge,
            wrong,
            fault.quantity,
            first,
        )
        if found is None and kept:
            fault.method, fault.line = "forward", self.source.kept_at(kept)
            fault.slip = fault.slip or f"what forward keeps as self.{kept} is not what backward needs"
        if found is None:
            return set()
        fault.line, fault.repair = found.line, str(found)
        if found.method in {"__init__", *(equation.method for equation in self.equations.values())}:
            fault.method = found.method
        elif found.method == "update_params":
            fault.method = "update_param"
        if initial:
            return {fault.quantity}
        variant = self.repaired(found)
        return wrong - variant if variant is not None else set()

    def repaired(self, found: _repair.Repair) -> set[str] | None:
        """Return the quantities that are still wrong after a repair."""
        function = self.source.methods[found.method]
        for rank in range(_repair._RANKS):
            for line, old, new in _repair.edits(function, rank, self.source):
                if (line, old, new) == found[1:]:
                    variant = _repair.compiled(self.klass, function, self.source.path)
                    return None if variant is None else self.judge(variant, False)
        return None

    def name_by_line(self, fault: Fault) -> None:
        """Name the fault after the quantity that the line of an exception computes."""
        for name, equation in self.equations.items():
            if equation.method == fault.method and fault.line == self.source.line_of(fault.method, name):
                fault.quantity, fault.equation, fault.formula = name, equation.number, equation.formula

    # --- remarks ----------------------------------------------------------------------------------------------------------

    def remark(self) -> None:
        said = self.diagnosis.remarks
        for step in self.steps:
            said += [text for text in step.remarks if text.startswith("it writes") and text not in said]
        if self.variance is not None:
            said.append(self.variance)
        slow = self.source.slow(self.stem)
        if slow is not None:
            said.append(f"line {slow} loops over single elements in Python; NumPy's operations on whole arrays are some "
                        "hundred times faster")
        if not self.diagnosis.faults:
            said += unstable(self.stem, self.klass)
            close = next(
                (
                    step
                    for step in self.steps
                    for name, value in step.expected.items()
                    if self.stem == "cross_entropy"
                    and not agree(step.found.get(name), value, name, 1e-9)
                    and is_double(step.found.get(name))
                ),
                None,
            )
            if close is not None:
                off = abs(float(np.ravel(close.found["the loss"])[0]) - float(close.expected["the loss"]))
                said.append(
                    f"the loss differs by {off:.1g}, as with a small number added inside the logarithm; the course's tests "
                    "accept this"
                )


class _Model(_Layer):
    """The diagnosis of Sequential."""

    def observe(self) -> None:
        self.seen: Observed = observe_model(self.klass, self.own)
        self.steps = []
        self.diagnosis.compared = 3 * len(self.seen.results)
        self.diagnosis.matrices = [
            matrix(self.equations[name], name, r.found, r.expected) for name, r in self.seen.results.items()
            if name in ("the output", "the gradient of x", "the labels", "the losses") and r.expected is not None]

    def wrong(self) -> list[str]:
        return [name for name in self.equations if name in self.seen.wrong()]

    def judge(self, klass: type, quick: bool) -> set[str] | None:
        return set(observe_model(klass, self.own).wrong())

    def explain(self) -> None:
        wrong, explained = self.wrong(), set()
        for name in wrong:
            if name in explained:
                continue
            result, equation = self.seen.results[name], self.equations[name]
            error = result.error
            if error is not None:
                message = raised(error)
            elif isinstance(result.expected, str):
                message = f"{name}: {result.found}; expected {result.expected}"
            else:
                message = difference(result.found, result.expected)
            fault = Fault(equation.method, name, equation.number, equation.formula, message, result.slip)
            if error is not None:
                others = {e.method for n, e in self.equations.items() if n not in wrong} | {"update_params"}
                fault.line = self.source.frame(error, others - {equation.method})
                fault.slip = _source.python_2(error, self.source.line(fault.line or 0)) or _of_error(error) or result.slip
            lost = self.source.never_kept(error) if error is not None else None
            if lost is not None and (init := self.source.methods.get("__init__")) is not None:
                fault.method, fault.line, fault.slip = "__init__", init.lineno, f"__init__ does not keep self.{lost}"
            found = None
            if lost is None and not isinstance(error, (NotImplementedError, SystemExit, EOFError)):
                found = _repair.search(self.source, self.klass, self.judge, set(wrong), name, fault.method, tries=250)
            if found is not None:
                fault.line, fault.repair = found.line, str(found)
                fault.method = (
                    found.method
                    if found.method in {"__init__", *(e.method for e in self.equations.values())}
                    else fault.method
                )
                left = self.repaired(found)
                explained |= set(wrong) - (left if left is not None else set(wrong))
                fault.also = [other for other in wrong if other in explained and other != name]
            fault.line = fault.line or self.source.line_of(fault.method, name)
            same = next((f for f in self.diagnosis.faults if (f.method, f.line) == (fault.method, fault.line)), None)
            if same is not None:
                same.also.append(name)
                continue
            fault.source = self.source.line(fault.line) if fault.line else ""
            fault.counterexample = _counterexample.show_model(self.klass, name)
            self.diagnosis.faults.append(fault)

    def remark(self) -> None:
        self.diagnosis.remarks += dict.fromkeys(self.seen.remarks)


def _of_error(error: BaseException) -> str | None:
    if isinstance(error, NotImplementedError):
        return "it is not written yet"
    if isinstance(error, SystemExit):
        return "it ends the program"
    if isinstance(error, EOFError):
        return "it waits for input, which a layer has not"
    return None
