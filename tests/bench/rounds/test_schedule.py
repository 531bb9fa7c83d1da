"""When a benchmark goes on and when it ends."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from bench.rounds.checkpoint import Measurement
from bench.rounds.schedule import EXTEND_AT_MOST, Schedule, widest_half_width
from bench.settings import BenchSection


def measured(spread: float, processes: int = 4, rounds: int = 3) -> dict[str, Measurement]:
    """Two variants whose processes differ by ``spread``."""
    generator = np.random.default_rng(0)
    found = {}
    for name in ("base", "other"):
        one = Measurement()
        for process in range(processes):
            shift = float(np.exp(generator.normal(0, spread)))
            for number in range(rounds):
                samples = (shift * generator.lognormal(2, 0.05, 60)).tolist()
                entry = {"process": process, "round": number, "samples_ms": samples}
                one.latency.append(entry)
        found[name] = one
    return found


NARROW, WIDE = measured(0.0), measured(0.2)


def schedule(**settings: Any) -> Schedule:
    asked = {"processes": 4, "rounds": 3, "target_half_width": 0.03, **settings}
    return Schedule(BenchSection.model_validate(asked), "base")


def test_the_half_width_is_that_of_the_widest_ratio() -> None:
    assert 0 < widest_half_width(NARROW, "base") < 0.03 < widest_half_width(WIDE, "base")
    assert widest_half_width(WIDE, "gone") == 0
    alone = {"base": NARROW["base"], "other": Measurement(reason="died")}
    assert widest_half_width(alone, "base") == 0


def test_planned_processes_run_and_more_only_while_intervals_are_wide() -> None:
    plan = schedule()
    assert all(plan.wants_process(done, NARROW) for done in range(4))
    assert not plan.wants_process(4, NARROW)
    assert plan.wants_process(4, WIDE)
    assert not plan.wants_process(4 * EXTEND_AT_MOST, WIDE)
    assert not schedule(target_half_width=None).wants_process(4, WIDE)


def test_few_processes_get_more_rounds_instead() -> None:
    plan, never = schedule(processes=1), float("inf")
    one = measured(0.0, processes=1, rounds=3)
    for entry in one["other"].latency[1:]:
        entry["samples_ms"] = [2 * value for value in entry["samples_ms"]]
    assert plan.wants_round(2, 0, never, one)
    assert plan.wants_round(3, 0, never, one)
    assert not plan.wants_round(3 * EXTEND_AT_MOST, 0, never, one)
    assert not schedule(processes=4).wants_round(3, 0, never, WIDE)
    assert not plan.wants_process(1, one)


def test_a_budget_ends_it_but_one_round_always_runs() -> None:
    plan = schedule(time_budget_s=0.001)
    time.sleep(0.002)
    assert plan.wants_process(0, {})
    assert not plan.wants_process(1, WIDE)
    deadline = plan.deadline(0, 1)
    assert plan.wants_round(0, 0, deadline, {})
    assert not plan.wants_round(1, 0, deadline, WIDE)


def test_planned_processes_share_the_budget() -> None:
    plan = schedule(time_budget_s=100)
    assert plan.deadline(0, 1) - plan.began == pytest.approx(25, abs=1)
    assert plan.deadline(0, 2) - plan.began == pytest.approx(12.5, abs=1)
    assert plan.deadline(9, 1) - plan.began == pytest.approx(100, abs=1)


def test_with_a_budget_it_goes_on_past_twice_the_plan() -> None:
    assert schedule(time_budget_s=1e6).wants_process(4 * EXTEND_AT_MOST + 1, WIDE)
    assert not schedule(time_budget_s=1e6).wants_process(9, NARROW)


def test_what_is_done_once_does_not_use_up_the_budget() -> None:
    plan = schedule(time_budget_s=0.5)
    before = plan.seconds_left()
    with plan.outside():
        time.sleep(0.6)
    assert plan.seconds_left() == pytest.approx(before, abs=0.3)
    assert plan.wants_process(1, WIDE)
