"""One line of the report: everything that is derived of one variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.statistics.decisions import AccuracyComparison, Estimate
from bench.statistics.latency import LatencySummary, Samples


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

    @property
    def title(self) -> str:
        """The name as it is shown: with the seeds it stands for, or that its export failed."""
        counted = f"{self.name}, {len(self.seeds)} seeds" if self.seeds else self.name
        return mark_failed(counted, self.export_failed)


def mark_failed(name: str, failed: bool) -> str:
    """The name of a variant of an export that ``failed`` its checks says so wherever it stands."""
    return f"{name} (failed export)" if failed else name
