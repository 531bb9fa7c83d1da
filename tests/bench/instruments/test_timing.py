"""Order, rows, blocks and clocks of a benchmark."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from itertools import islice

import numpy as np
import pytest

from bench.instruments import timing
from bench.instruments.scenarios import offline, single_stream

NAMES = [f"variant-{index}" for index in range(6)]


def test_the_same_seed_gives_the_same_rounds() -> None:
    first = list(islice(timing.round_orders(NAMES, (42, 0)), 5))
    assert first == list(islice(timing.round_orders(NAMES, (42, 0)), 5))
    assert first != list(islice(timing.round_orders(NAMES, (42, 1)), 5))


def test_every_round_visits_all_and_orders_differ() -> None:
    orders = list(islice(timing.round_orders(NAMES, (1,)), 20))
    assert all(sorted(order) == NAMES for order in orders)
    assert len({tuple(order) for order in orders}) > 15
    firsts = {order[0] for order in islice(timing.round_orders(NAMES, (1,)), 200)}
    assert firsts == set(NAMES)


def test_rows_are_drawn_without_repetition_and_sorted() -> None:
    rows = timing.choose_rows(1000, 100, 7)
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, timing.choose_rows(1000, 100, 7))
    np.testing.assert_array_equal(timing.choose_rows(5, None, 7), np.arange(5))
    np.testing.assert_array_equal(timing.choose_rows(5, 9, 7), np.arange(5))


@pytest.mark.parametrize(
    ("room", "expected"),
    [(100, [["a", "b", "c"]]), (6, [["a", "b"], ["c"]]), (1, [["a"], ["b"], ["c"]])],
)
def test_variants_take_turns_where_memory_is_short(room: int, expected: list) -> None:
    assert timing.plan_blocks(["a", "b", "c"], {"a": 2, "b": 4, "c": 5}, room) == expected


def test_warm_up_ends_once_calls_are_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=1_000_000)
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: next(clock))
    ended = timing.warm_up(lambda text: 0, ["a", "b"], limit_s=60)
    assert ended.stable
    assert ended.calls == 3 * timing.WINDOW


def warm_up_of(windows: Iterable[float], monkeypatch: pytest.MonkeyPatch) -> timing.WarmUp:
    """A warm-up of calls that last so many milliseconds, a window each."""
    lasting = (value for value in windows for _ in range(timing.WINDOW))
    clock = [0]

    def classify(text: str) -> int:
        clock[0] += round(1e6 * next(lasting))
        return 0

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0] / 1e9)
    return timing.warm_up(classify, ["a"], limit_s=1.0)


def test_warm_up_goes_on_while_calls_grow_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = warm_up_of([9, 7, 5, 5, 3, 3, 3, 3, 3], monkeypatch)
    assert (ended.calls, ended.stable) == (7 * timing.WINDOW, True)


def test_noise_after_warming_up_does_not_prolong_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = warm_up_of([9, 3, 4, 3.1, 6, 3], monkeypatch)
    assert (ended.calls, ended.stable) == (4 * timing.WINDOW, True)


def test_warm_up_is_bounded_where_calls_never_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = warm_up_of((50 * 0.9**number for number in itertools.count()), monkeypatch)
    assert not ended.stable
    assert 1.0 <= ended.seconds < 1.5


def test_turns_cover_every_review_once() -> None:
    assert timing.turns(50) == [(0, 20), (20, 40), (40, 50)]
    assert timing.turns(7) == [(0, 7)]


def test_single_stream_times_each_text_alone() -> None:
    samples = single_stream(lambda text: time.sleep(0.02 if text == "slow" else 0), ["", "slow"])
    assert samples[1] >= 20 > samples[0]


def test_offline_hands_over_all_texts_at_once() -> None:
    seconds, predicted = offline(lambda texts, size: [size] * len(texts), ["a", "b", "c"], 2)
    assert predicted == [2, 2, 2]
    assert seconds >= 0


def test_samples_keep_four_digits() -> None:
    assert timing.round_sample(12.345678) == 12.35
    assert timing.round_sample(0.000123456) == 0.0001235


def test_peak_memory_is_this_processs_own() -> None:
    before = timing.peak_memory_bytes()
    block = np.ones(50_000_000, dtype=np.uint8)
    assert timing.peak_memory_bytes() >= max(before, len(block))
    assert timing.free_memory_bytes() > 0
