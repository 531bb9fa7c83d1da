"""Figures that speech has of its own: error rates, and speed by the length of the audio."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median_low

from bench.results.records import Results, Variant
from bench.statistics.decisions import Estimate, Finding, judge_interval
from bench.statistics.latency import (
    LatencySummary,
    Samples,
    collect_samples,
    latency_summary,
    median_interval,
)
from finetune.metrics.word_errors import speech_metrics, wer_difference


@dataclass(frozen=True)
class LengthFigures:
    """A variant at one length of audio.

    ``rtf`` (real-time factor) is the median latency over the audio's length, ``speedup`` the
    baseline's latency over this one's, ``noise_floor`` what the noise pair differed by.
    """

    samples: Samples
    latency: LatencySummary
    rtf: Estimate
    speedup: Estimate | None = None
    speed_finding: str | None = None
    noise_floor: float | None = None


@dataclass(frozen=True)
class ErrorComparison:
    """One variant's word error rate minus the baseline's, a share.

    On the same recordings an interval decides, and ``changed`` counts the transcripts that
    differ; over seeds a ``test`` does, whose p-value is adjusted after Holm.
    """

    difference: Estimate
    finding: Finding
    changed: int | None = None
    test: str | None = None
    p_adjusted: float | None = None


def length_key(length_s: float | None) -> str | None:
    """A length as it stands in tables; None where there is none."""
    return None if length_s is None else f"{length_s:g}"


def lengths_of(results: Results) -> tuple[str, ...]:
    """The lengths that were timed, in seconds, as the settings have them; none for text."""
    measured = {part.length_s for one in results.variants for part in one.latency}
    asked = results.settings.get("lengths_s") or sorted(measured - {None})
    return tuple(dict.fromkeys(length_key(length) for length in asked))


def shown_length(results: Results) -> str | None:
    """The length that headline and pictures speak of: the median one."""
    lengths = lengths_of(results)
    return f"{median_low(float(length) for length in lengths):g}" if lengths else None


def error_figures(variant: Variant, results: Results) -> dict[str, Estimate]:
    """Word and character error rate, where the variant's transcripts mean something."""
    if not (variant.transcripts and results.references):
        return {}
    found = speech_metrics(results.references, variant.transcripts)
    return {
        "wer": Estimate(found.wer, *found.wer_interval),
        "cer": Estimate(found.cer, *found.cer_interval),
    }


def length_figures(variant: Variant) -> dict[str, LengthFigures]:
    """Latency and real-time factor at every length that was timed."""
    taken: dict[str, list[tuple[int, int, list[float]]]] = {}
    for part in variant.latency:
        length = length_key(part.length_s)
        if length is not None and part.samples_ms:
            entry = (part.process, part.round, part.samples_ms)
            taken.setdefault(length, []).append(entry)
    return {length: _at_length(collect_samples(all_), length) for length, all_ in taken.items()}


def compare_errors(variant: Variant, baseline: Variant, results: Results) -> ErrorComparison | None:
    """A variant's word errors against the baseline's, on the same recordings."""
    if not (variant.transcripts and baseline.transcripts):
        return None
    found = wer_difference(results.references, variant.transcripts, baseline.transcripts)
    finding = judge_interval(*found.interval, more_is_better=False)
    return ErrorComparison(Estimate(found.difference, *found.interval), finding, found.changed)


def _at_length(samples: Samples, length: str) -> LengthFigures:
    found, audio_ms = median_interval(samples), 1000 * float(length)
    low, high = (None if end is None else end / audio_ms for end in (found.low, found.high))
    rtf = Estimate(found.value / audio_ms, low, high)
    return LengthFigures(samples, latency_summary(samples), rtf)
