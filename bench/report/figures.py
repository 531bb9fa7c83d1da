"""Rows against one another: quality and speed over the baseline, ties, the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.report.rows import NOISE_SUFFIX, Row
from bench.report.speech_figures import compare_errors
from bench.results.records import Results
from bench.statistics.decisions import AccuracyComparison, Estimate, ratio_finding
from bench.statistics.latency import Samples, compare_accuracy, median_ratio

SPEED_WORDS = {"higher": "faster", "lower": "slower", "tie": "tie"}


def compare_quality(rows: Sequence[Row], results: Results) -> list[Row]:
    """Every row's accuracy or error rate against the baseline's, on the same test rows."""
    variants = {
        one.name: one
        for one in results.variants
        if one.status == "ok" and one.name != results.baseline + NOISE_SUFFIX
    }
    base = variants.get(results.baseline)
    if base is None:
        return list(rows)
    predicted = {name: np.array(one.predicted) for name, one in variants.items() if one.predicted}
    found: Mapping[str, AccuracyComparison] = {}
    if base.predicted:
        found = compare_accuracy(np.array(results.truth), predicted, results.baseline)
    errors = {
        name: compare_errors(one, base, results)
        for name, one in variants.items()
        if one is not base
    }
    return [
        replace(row, comparison=found.get(row.name), errors=errors.get(row.name)) for row in rows
    ]


def compare_speeds(rows: Sequence[Row]) -> list[Row]:
    """Speed-ups over the baseline; what its second measurement differs by is called a tie."""
    bases = _baselines(rows)
    pair = next((row for row in rows if row.is_noise_pair), None)
    floors = _floors(bases[None], pair) if pair and None in bases else {}
    return [_with_speedup(row, bases.get(row.group), floors) for row in rows]


def compare_row_speeds(rows: Sequence[Row], measured: Sequence[Row]) -> list[Row]:
    """The same with the noise floors of rows as they were ``measured``, the noise pair as it is."""
    bases, floors = _baselines(rows), known_floors(measured)
    return [
        row if row.is_noise_pair else _with_speedup(row, bases.get(row.group), floors)
        for row in rows
    ]


def known_floors(rows: Sequence[Row]) -> dict[str | None, float]:
    """The noise floor that rows were judged by, and that at every length."""
    floors: dict[str | None, float] = {}
    for row in rows:
        found = {None: row.noise_floor}
        found |= {length: one.noise_floor for length, one in row.lengths.items()}
        floors |= {key: floor for key, floor in found.items() if floor is not None}
    return floors


def _baselines(rows: Sequence[Row]) -> dict[str | None, Row]:
    """By group, the row that its others are compared with."""
    return {row.group: row for row in rows if row.is_baseline}


def _floors(base: Row, pair: Row) -> dict[str | None, float]:
    """What the same variant differs by from itself: by length, and None for the one shown."""
    samples = {None: (base.latency_samples, pair.latency_samples)}
    samples |= {
        length: (one.samples, pair.lengths[length].samples)
        for length, one in base.lengths.items()
        if length in pair.lengths
    }
    return {
        key: noise_floor(median_ratio(first, again))
        for key, (first, again) in samples.items()
        if first is not None and again is not None
    }


def _with_speedup(row: Row, base: Row | None, floors: Mapping[str | None, float]) -> Row:
    """The row against its baseline, as it is shown and at every length of audio."""
    if base is None or row.is_baseline:
        return row
    lengths = {
        length: replace(one, **_speedup(base.lengths[length].samples, one.samples, floors, length))
        if length in base.lengths
        else one
        for length, one in row.lengths.items()
    }
    row = replace(row, lengths=lengths)
    if row.latency_samples is None or base.latency_samples is None:
        return row
    return replace(row, **_speedup(base.latency_samples, row.latency_samples, floors, None))


def _speedup(
    base: Samples, own: Samples, floors: Mapping[str | None, float], length: str | None
) -> dict[str, Any]:
    ratio, floor = median_ratio(base, own), floors.get(length)
    finding = SPEED_WORDS[ratio_finding(ratio, floor or 0.0)]
    return {"speedup": ratio, "speed_finding": finding, "noise_floor": floor}


def tie_on_speed(row: Row, other: Row, floor: float) -> bool:
    """Whether two rows' speeds cannot be told apart; what was not timed ties with nothing."""
    if row.latency_samples is None or other.latency_samples is None:
        return False
    return ratio_finding(median_ratio(row.latency_samples, other.latency_samples), floor) == "tie"


def noise_floor(pair: Estimate | None) -> float:
    """The relative difference that the same variant shows from itself; 0 when not measured."""
    return float(np.expm1(abs(np.log(pair.value)))) if pair else 0.0


def picture_axis(rows: Sequence[Row]) -> tuple[str, Callable[[Row], float | None]]:
    """What the first picture shows against latency: "accuracy", "errors", or else "memory"."""
    if any(row.wer for row in rows):
        return "errors", lambda row: row.wer.value if row.wer else None
    if any(row.accuracy for row in rows):
        return "accuracy", lambda row: row.accuracy.value if row.accuracy else None
    return "memory", lambda row: row.peak_memory_bytes


def mark_front(rows: Sequence[Row]) -> list[Row]:
    """Mark what no other dominates: lower p50, and more accuracy, fewer errors or less memory."""
    kind, value = picture_axis(rows)
    sign = -1 if kind == "accuracy" else 1
    points = {
        row.name: (row.latency.p50_ms, sign * height)
        for row in rows
        if row.latency
        and not (row.is_noise_pair or row.export_failed)
        and (height := value(row)) is not None
    }

    front = find_front(points)
    return [replace(row, on_front=row.name in front) for row in rows]


def find_front(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """The names that no other dominates: less is better on both axes (Pareto)."""

    def dominated(mine: tuple[float, float]) -> bool:
        return any(
            other != mine and other[0] <= mine[0] and other[1] <= mine[1]
            for other in points.values()
        )

    return {name for name, mine in points.items() if not dominated(mine)}
