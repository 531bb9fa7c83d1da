"""The one sentence of a speech report: the fastest variant that still hears as well."""

from __future__ import annotations

from bench.report import text
from bench.report.speech_summary import SpeechRow, SpeechSummary

MAX_WER_INCREASE = 0.005  # where the settings are older than the key


def headline(summary: SpeechSummary) -> str:
    """The fastest variant of the trained model within ``max_wer_increase``, and what it costs."""
    limit = summary.results.settings.get("max_wer_increase", MAX_WER_INCREASE)
    baseline, length = summary.baseline_of(summary.groups[0]), summary.shown
    if baseline.failed:
        return f"`{baseline.name}`, the baseline, failed: nothing to compare with."
    able = [
        row
        for row in summary.trained
        if length in row.speedup and row.gap is not None and row.gap.difference <= limit + 1e-9
    ]
    fastest = max(able, key=lambda row: row.speedup[length].value, default=None)
    if fastest is None or (fastest.speedup[length].low or fastest.speedup[length].value) <= 1:
        return (
            f"Nothing is measurably faster than `{baseline.name}` within "
            f"{text.points(limit)} points of word error rate."
        )
    return f"{_gain(fastest, length)} `{baseline.name}` at {length} s of audio {_price(fastest)}."


def _gain(row: SpeechRow, length: str) -> str:
    return f"`{row.name}` is {text.times(row.speedup[length].value)} times as fast as"


def _price(row: SpeechRow) -> str:
    if row.gap.changed == 0:
        return "and changes no transcript"
    return f"and changes the word error rate by {text.points(row.gap.difference)} points"
