"""Speech results → one tidy row of derived figures per variant, computed once for every writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median_low

from bench.report.figures import SPEED_WORDS, find_front
from bench.report.row import mark_failed
from bench.results.speech_records import BASE, SpeechResults, SpeechVariant
from bench.statistics.decisions import Estimate, Finding, judge_interval, ratio_finding
from bench.statistics.latency import (
    LatencySummary,
    Samples,
    collect_samples,
    latency_summary,
    median_interval,
    median_ratio,
)
from finetune.metrics.word_errors import WerDifference, speech_metrics, wer_difference


@dataclass(frozen=True)
class SpeechRow:
    """One variant; rates are shares, ``latency``, ``rtf`` and ``speedup`` go by length in seconds.

    ``gap`` is the paired difference of WER to the group's baseline, ``rtf`` (real-time factor)
    the median latency over the audio's length, ``speedup`` the baseline's latency over this one's.
    ``export_failed``: of an artifact whose checks failed; measured, and never recommended.
    """

    name: str
    group: str
    runtime: str
    precision: str
    description: str
    failed: bool
    reason: str | None
    is_baseline: bool
    size_bytes: int
    export_failed: bool = False
    load_s: float | None = None
    first_call_ms: float | None = None
    peak_memory_bytes: int | None = None
    wer: Estimate | None = None
    cer: Estimate | None = None
    gap: WerDifference | None = None
    latency: Mapping[str, LatencySummary] = field(default_factory=dict)
    rtf: Mapping[str, Estimate] = field(default_factory=dict)
    speedup: Mapping[str, Estimate] = field(default_factory=dict)
    on_front: bool = False

    @property
    def title(self) -> str:
        """The name as it is shown: with a mark where the export failed."""
        return mark_failed(self.name, self.export_failed)

    @property
    def finding(self) -> Finding:
        """What the difference of error rates is shown to be, by its interval."""
        ends = self.gap.interval if self.gap else (None, None)
        return judge_interval(*ends, more_is_better=False)

    def speed_finding(self, length: str) -> str:
        """ "faster", "slower" or "tie" against the baseline at a length."""
        found = self.speedup.get(length)
        return SPEED_WORDS[ratio_finding(found)] if found else "tie"


@dataclass(frozen=True)
class SpeechSummary:
    """Everything the writers show; ``lengths`` as in the file, ``shown`` the one in pictures."""

    results: SpeechResults
    rows: tuple[SpeechRow, ...]
    lengths: tuple[str, ...]
    shown: str

    @property
    def measured(self) -> tuple[SpeechRow, ...]:
        """The variants that ran."""
        return tuple(row for row in self.rows if not row.failed)

    @property
    def trained(self) -> tuple[SpeechRow, ...]:
        """Those of the trained model, which have error rates."""
        return tuple(row for row in self.measured if row.group != BASE)

    @property
    def contenders(self) -> tuple[SpeechRow, ...]:
        """Those of them that can be chosen: whose export, if they have one, did not fail."""
        return tuple(row for row in self.trained if not row.export_failed)

    @property
    def groups(self) -> tuple[str, ...]:
        """The trained model's group first, then the base size where it was measured."""
        return tuple(self.results.baselines)

    def of_group(self, group: str) -> list[SpeechRow]:
        """All rows of a group, failed ones too."""
        return [row for row in self.rows if row.group == group]

    def baseline_of(self, group: str) -> SpeechRow:
        """The row that a group's others are compared with."""
        return next(row for row in self.of_group(group) if row.is_baseline)


def summarise_speech(results: SpeechResults) -> SpeechSummary:
    """Derive every figure of the report."""
    lengths = tuple(f"{one:g}" for one in results.settings["lengths_s"])
    known = {one.name: one for one in results.variants}
    rows = [_describe(one, known[results.baselines[one.group]], results) for one in known.values()]
    shown = f"{median_low(results.settings['lengths_s']):g}"
    points = {
        row.name: (row.rtf[shown].value, row.wer.value)
        for row in rows
        if row.wer and shown in row.rtf and not row.export_failed
    }
    front = find_front(points)
    rows = [replace(row, on_front=row.name in front) for row in rows]
    return SpeechSummary(results, tuple(rows), lengths, shown)


def _describe(one: SpeechVariant, baseline: SpeechVariant, results: SpeechResults) -> SpeechRow:
    row = SpeechRow(
        name=one.name,
        group=one.group,
        runtime=one.runtime,
        precision=one.precision,
        description=one.description,
        failed=one.status == "failed",
        reason=one.reason,
        is_baseline=one is baseline,
        size_bytes=one.size_bytes,
        export_failed=one.export_checks == "failed",
        load_s=one.load_s,
        first_call_ms=one.first_call_ms,
        peak_memory_bytes=one.peak_memory_bytes,
    )
    if row.failed:
        return row
    samples = {length: _samples(rounds) for length, rounds in one.latency.items()}
    return replace(
        _with_errors(row, one, baseline, results.references),
        latency={length: latency_summary(taken) for length, taken in samples.items()},
        rtf={length: _real_time_factor(taken, length) for length, taken in samples.items()},
        speedup={
            length: median_ratio(_samples(baseline.latency[length]), taken)
            for length, taken in samples.items()
            if one is not baseline and baseline.status == "ok" and length in baseline.latency
        },
    )


def _with_errors(
    row: SpeechRow, one: SpeechVariant, baseline: SpeechVariant, references: list[str]
) -> SpeechRow:
    """The row with error rates, where the variant's transcripts mean something."""
    if not one.transcripts:
        return row
    found = speech_metrics(references, one.transcripts)
    gap = None
    if one is not baseline and baseline.transcripts:
        gap = wer_difference(references, one.transcripts, baseline.transcripts)
    return replace(
        row,
        wer=Estimate(found.wer, *found.wer_interval),
        cer=Estimate(found.cer, *found.cer_interval),
        gap=gap,
    )


def _real_time_factor(samples: Samples, length: str) -> Estimate:
    found, audio_ms = median_interval(samples), 1000 * float(length)
    low, high = (None if end is None else end / audio_ms for end in (found.low, found.high))
    return Estimate(found.value / audio_ms, low, high)


def _samples(rounds: list[list[float]]) -> Samples:
    return collect_samples((0, number, samples) for number, samples in enumerate(rounds))
