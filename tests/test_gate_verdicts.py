"""The judge's errors, by simulation: a fast part of ``python -m bench.studies.verdicts``, and the theorem's parts."""
import math

import numpy as np
import pytest

from bench.studies import verdicts
from fastnet.gate import judge, statistics
from fastnet.gate.judge import Plan

MACHINES = {machine.name: machine for machine in verdicts.MACHINES}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("rows", [1, 10])
def test_errors_are_rare_on_every_machine(name, rows):
    """60 runs: with a rate of 1 %, more than 4 come with a probability below 0.001."""
    equal = verdicts.simulate(MACHINES[name], rows, 0.0, 60, seed=1)
    slow = verdicts.simulate(MACHINES[name], rows, 0.1, 60, seed=2)
    assert equal.regressed.any(axis=1).sum() <= 4 and slow.ok[:, 0].sum() <= 4 and slow.regressed[:, 1:].sum() <= 4


@pytest.mark.parametrize("rows", [1, 10, 100])
def test_equal_code_on_a_quiet_machine_is_ok_and_a_slowdown_is_found(rows):
    equal = verdicts.simulate(MACHINES["normal, 1 %"], rows, 0.0, 40, seed=3)
    slow = verdicts.simulate(MACHINES["normal, 1 %"], rows, 0.1, 40, seed=4)
    assert equal.ok.all(axis=1).mean() >= 0.9 and slow.regressed[:, 0].mean() >= 0.9
    assert np.median(equal.rounds) <= 2 * Plan().quick(rows)


def test_the_study_judges_as_the_gate_does():
    logs = verdicts.times(MACHINES["normal, 5 %"], np.log1p([0.0, 0.1, 0.25]), 4, 40, np.random.default_rng(5))
    plan = Plan(error=0.2)
    found = verdicts.judge(logs, verdicts.LIMIT, plan)
    for run in range(4):
        for row in range(3):
            expected = judge.INCONCLUSIVE
            for rounds in range(1, 41):
                times = {statistic: {side: list(np.exp(logs[:rounds, number, place, run, row])) for place, side in enumerate(verdicts.SIDES)}
                         for number, statistic in enumerate(judge.STATISTICS)}
                expected = judge.judge("a", times, verdicts.LIMIT, plan.row_error(3)).verdict
                if expected != judge.INCONCLUSIVE:
                    break
            assert found.regressed[run, row] == (expected == judge.REGRESSED)
            assert found.ok[run, row] == (expected in (judge.OK, judge.FASTER))
    assert found.regressed.any() and found.ok.any()


def test_the_capital_is_a_martingale():
    """The mean over the next round's two outcomes is the capital of now, so that Ville's inequality applies."""
    assert statistics.capital(0, 0) == pytest.approx(1)
    for wins in range(10):
        for losses in range(10):
            after = (statistics.capital(wins + 1, losses) + statistics.capital(wins, losses + 1)) / 2
            assert after == pytest.approx(statistics.capital(wins, losses))


def test_the_error_at_all_looks_together_is_kept():
    """The exact probability that fair coins ever reach the boundary in 200 rounds."""
    error, alive = 0.01, {0: 1.0}
    stopped = 0.0
    for rounds in range(1, 201):
        after: dict[int, float] = {}
        for wins, share in alive.items():
            for more in (0, 1):
                after[wins + more] = after.get(wins + more, 0) + share / 2
        needed = statistics.wins_needed(rounds, error)
        stopped += sum(share for wins, share in after.items() if needed is not None and wins >= needed)
        alive = {wins: share for wins, share in after.items() if needed is None or wins < needed}
    assert 0.003 < stopped <= error


@pytest.mark.parametrize("rounds", [5, 6, 7, 12, 40])
def test_the_fixed_interval_is_that_of_the_sign_test(rounds):
    ratios = np.arange(1.0, rounds + 1)
    estimate = statistics.paired_ratio(np.ones(rounds), ratios)
    if rounds < 6:
        assert (estimate.low, estimate.high) == (0, np.inf)
        return
    low = round(estimate.low)
    outside = sum(math.comb(rounds, count) for count in range(low)) / 2**rounds
    assert outside <= 0.025 < outside + math.comb(rounds, low) / 2**rounds
    assert estimate.low + estimate.high == pytest.approx(rounds + 1)


def test_the_command_of_the_study_prints_a_table(capsys):
    assert verdicts.main(["--runs", "2", "--rows", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(verdicts.MACHINES) and all(line.count("|") == 10 for line in lines)
