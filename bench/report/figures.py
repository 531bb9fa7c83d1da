"""One variant of results.json → its row of derived figures, and rows against one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace

import numpy as np

from bench.report.row import Row
from bench.results.records import Results, Variant
from bench.statistics.decisions import Estimate, ratio_finding
from bench.statistics.latency import (
    Samples,
    collect_samples,
    compare_accuracy,
    latency_summary,
    median_interval,
    median_ratio,
)
from finetune.metrics.classification import (
    confusion_matrix,
    f1_interval,
    f1_scores,
    wilson_interval,
)

NOISE_SUFFIX = "-again"
SPEED_WORDS = {"higher": "faster", "lower": "slower", "tie": "tie"}


def describe_row(variant: Variant, results: Results) -> Row:
    """The figures of one variant by itself."""
    failed = variant.status == "failed"
    row = Row(
        name=variant.name,
        method=variant.method,
        runtime=variant.runtime,
        precision=variant.precision,
        description=" · ".join(filter(None, [_device(variant), variant.description])),
        run=variant.run,
        failed=failed,
        reason=variant.reason,
        is_baseline=variant.name == results.baseline,
        is_noise_pair=variant.name == results.baseline + NOISE_SUFFIX,
        export_failed=variant.export_checks == "failed",
    )
    if failed:
        return row
    return replace(
        row, **_accuracy_figures(variant, results), **_speed_figures(variant), **_sizes(variant)
    )


def _device(variant: Variant) -> str:
    """Where it ran, if not on the CPU as everything does."""
    return "" if variant.device == "cpu" else variant.device.upper()


def _accuracy_figures(variant: Variant, results: Results) -> dict[str, Estimate | None]:
    """Accuracy on all rows and on those not seen in training, and F1, with intervals."""
    if not (variant.predicted and results.truth):
        return {}
    truth, predicted = np.array(results.truth), np.array(variant.predicted)
    correct = truth == predicted
    unseen = (
        correct[np.array(results.seen_in_training, dtype=int) == 0]
        if results.seen_in_training
        else []
    )
    table = confusion_matrix(truth, predicted, len(results.labels))
    scores = f1_scores(table)
    f1 = {
        f"f1_{field.name}": Estimate(float(value), *f1_interval(table, field.name))
        for field in fields(scores)
        if (value := getattr(scores, field.name)) is not None
    }
    return {
        "accuracy": _share(correct),
        "accuracy_unseen": _share(unseen) if len(unseen) else None,
        **f1,
    }


def _share(correct: np.ndarray) -> Estimate:
    hits, rows = int(correct.sum()), len(correct)
    return Estimate(hits / rows, *wilson_interval(hits, rows))


def _speed_figures(variant: Variant) -> dict[str, object]:
    """Latency percentiles, throughput, start; empty parts stay None."""
    figures: dict[str, object] = {
        "first_call_ms": _typical(variant.first_call_ms),
        "load_s": _typical(variant.load_s),
    }
    if any(part.samples_ms for part in variant.latency):
        samples = collect_samples((p.process, p.round, p.samples_ms) for p in variant.latency)
        figures |= {
            "latency_samples": samples,
            "latency": latency_summary(samples),
            "p50_ms": median_interval(samples),
            "energy_j": _energy(variant),
        }
    if variant.throughput:
        rates = [(p.process, p.round, [p.rows / p.seconds]) for p in variant.throughput]
        figures["rows_per_s"] = median_interval(collect_samples(rates))
    return figures


def _energy(variant: Variant) -> float | None:
    """The median over rounds of joules a review, all sources together."""
    return _typical(
        [
            sum(one.energy_j.values()) / len(one.samples_ms)
            for one in variant.latency
            if one.energy_j
        ]
    )


def _typical(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _sizes(variant: Variant) -> dict[str, int | float | None]:
    """Bytes and parameters; a peak is the highest over the processes."""
    counts = variant.parameters
    share = counts.trainable / counts.total if counts and counts.total else None
    return {
        "peak_memory_bytes": max(variant.peak_memory_bytes, default=None),
        "peak_vram_bytes": max(variant.peak_vram_bytes, default=None),
        "device_bytes": max(variant.device_bytes, default=None),
        "size_bytes": variant.size_bytes,
        "adapter_bytes": variant.adapter_bytes,
        "parameters": counts.total if counts else None,
        "trainable": counts.trainable if counts else None,
        "trainable_share": share,
        "training_time_s": variant.training_time_s,
    }


def compare_accuracies(rows: Sequence[Row], results: Results) -> list[Row]:
    """Every row's accuracy against the baseline's, on the same test rows."""
    predicted = {
        variant.name: np.array(variant.predicted)
        for variant in results.variants
        if variant.predicted
        and variant.status == "ok"
        and variant.name != results.baseline + NOISE_SUFFIX
    }
    if results.baseline not in predicted:
        return rows
    found = compare_accuracy(np.array(results.truth), predicted, results.baseline)
    return [replace(row, comparison=found.get(row.name)) for row in rows]


def compare_speeds(rows: Sequence[Row]) -> list[Row]:
    """Speed-ups over the baseline; what its second measurement differs by is called a tie."""
    base = next((row.latency_samples for row in rows if row.is_baseline), None)
    pair = next((row.latency_samples for row in rows if row.is_noise_pair), None)
    if base is None:
        return list(rows)
    floor = None if pair is None else noise_floor(median_ratio(base, pair))
    return [_with_speedup(row, base, floor) for row in rows]


def compare_row_speeds(rows: Sequence[Row], floor: float | None) -> list[Row]:
    """The same with a noise floor that is known, and the noise pair as it is."""
    base = next((row.latency_samples for row in rows if row.is_baseline), None)
    if base is None:
        return list(rows)
    return [row if row.is_noise_pair else _with_speedup(row, base, floor) for row in rows]


def _with_speedup(row: Row, base: Samples, floor: float | None) -> Row:
    if row.latency_samples is None or row.is_baseline:
        return row
    ratio = median_ratio(base, row.latency_samples)
    finding = SPEED_WORDS[ratio_finding(ratio, floor or 0.0)]
    return replace(row, speedup=ratio, speed_finding=finding, noise_floor=floor)


def tie_on_speed(row: Row, other: Row, floor: float) -> bool:
    """Whether two rows' speeds cannot be told apart; what was not timed ties with nothing."""
    if row.latency_samples is None or other.latency_samples is None:
        return False
    return ratio_finding(median_ratio(row.latency_samples, other.latency_samples), floor) == "tie"


def noise_floor(pair: Estimate | None) -> float:
    """The relative difference that the same variant shows from itself; 0 when not measured."""
    return float(np.expm1(abs(np.log(pair.value)))) if pair else 0.0


def picture_axis(rows: Sequence[Row]) -> tuple[str, Callable[[Row], float | None]]:
    """What the first picture shows against latency: "accuracy", or "memory" without it."""
    if any(row.accuracy for row in rows):
        return "accuracy", lambda row: row.accuracy.value if row.accuracy else None
    return "memory", lambda row: row.peak_memory_bytes


def mark_front(rows: Sequence[Row]) -> list[Row]:
    """Mark the rows that no other dominates: lower p50, and more accuracy or less memory."""
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
