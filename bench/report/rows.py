"""One variant of results.json → one line of the report: everything that is derived of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from bench.report.speech_figures import (
    ErrorComparison,
    LengthFigures,
    error_figures,
    length_figures,
    length_key,
    shown_length,
)
from bench.results.records import Results, Variant
from bench.statistics.decisions import AccuracyComparison, Estimate
from bench.statistics.latency import (
    LatencySummary,
    Samples,
    collect_samples,
    latency_summary,
    median_interval,
)
from finetune.metrics.classification import (
    confusion_matrix,
    f1_interval,
    f1_scores,
    wilson_interval,
)

NOISE_SUFFIX = "-again"


@dataclass(frozen=True)
class Row:
    """One variant; shares between 0 and 1, None where a thing was not measured.

    ``speedup`` is the baseline's median latency over this one's, ``speed_finding`` one of
    "faster", "slower", "tie". ``is_noise_pair``: the baseline measured a second time, whose
    difference from it is the noise floor; no contender. ``on_front``: no other variant is as
    good in both axes of the first picture and better in one. ``peak_vram_bytes`` is PyTorch's
    own count, ``device_bytes`` NVML's; ``energy_j`` is joules a review, the machine's idle draw
    included. ``noise_floor`` is the relative difference that the noise pair showed.
    ``export_failed``: of an artifact whose checks failed; measured, and never recommended.
    ``seeds`` are those of the runs that a row of several stands for, ``seed_accuracies`` theirs.
    Of speech: ``group`` is that of a model with a baseline of its own, ``errors`` the comparison of
    word error rates, ``lengths`` the figures by the length of the audio; latency and speed-up
    without a length are those at the one that is shown.
    """

    name: str
    method: str
    runtime: str
    precision: str
    description: str
    run: str | None
    failed: bool
    reason: str | None
    is_baseline: bool
    is_noise_pair: bool = False
    export_failed: bool = False
    accuracy: Estimate | None = None
    accuracy_unseen: Estimate | None = None
    f1_binary: Estimate | None = None
    f1_macro: Estimate | None = None
    f1_micro: Estimate | None = None
    f1_weighted: Estimate | None = None
    comparison: AccuracyComparison | None = None
    latency_samples: Samples | None = None
    latency: LatencySummary | None = None
    p50_ms: Estimate | None = None
    speedup: Estimate | None = None
    speed_finding: str | None = None
    noise_floor: float | None = None
    rows_per_s: Estimate | None = None
    first_call_ms: float | None = None
    load_s: float | None = None
    peak_memory_bytes: int | None = None
    peak_vram_bytes: int | None = None
    device_bytes: int | None = None
    energy_j: float | None = None
    size_bytes: int | None = None
    adapter_bytes: int | None = None
    parameters: int | None = None
    trainable: int | None = None
    trainable_share: float | None = None
    training_time_s: float | None = None
    on_front: bool = False
    seeds: tuple[int, ...] = ()
    seed_accuracies: Mapping[int, float] | None = None
    group: str | None = None
    wer: Estimate | None = None
    cer: Estimate | None = None
    errors: ErrorComparison | None = None
    seed_wers: Mapping[int, float] | None = None
    lengths: Mapping[str, LengthFigures] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name as it is shown: with the seeds it stands for, or that its export failed."""
        counted = f"{self.name}, {len(self.seeds)} seeds" if self.seeds else self.name
        return mark_failed(counted, self.export_failed)


def mark_failed(name: str, failed: bool) -> str:
    """The name of a variant of an export that ``failed`` its checks says so wherever it stands."""
    return f"{name} (failed export)" if failed else name


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
        is_baseline=variant.name == results.baselines.get(variant.group, results.baseline),
        is_noise_pair=variant.name == results.baseline + NOISE_SUFFIX,
        export_failed=variant.export_checks == "failed",
        group=variant.group,
    )
    if failed:
        return row
    return replace(
        row,
        **_accuracy_figures(variant, results),
        **error_figures(variant, results),
        **_speed_figures(variant, shown_length(results)),
        **_sizes(variant),
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


def _speed_figures(variant: Variant, length: str | None) -> dict[str, object]:
    """Latency percentiles, at the ``length`` shown where there is one; empty parts stay None."""
    figures: dict[str, object] = {
        "first_call_ms": _typical(variant.first_call_ms),
        "load_s": _typical(variant.load_s),
        "lengths": length_figures(variant),
    }
    timed = [part for part in variant.latency if length_key(part.length_s) == length]
    if any(part.samples_ms for part in timed):
        samples = collect_samples((p.process, p.round, p.samples_ms) for p in timed)
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
