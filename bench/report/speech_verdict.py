"""What a speech report comes to: the fastest variant that still hears as well."""

from __future__ import annotations

from bench.report import text
from bench.report.speech_summary import SpeechRow, SpeechSummary

MAX_WER_INCREASE = 0.005  # where the settings are older than the key


def headline(summary: SpeechSummary) -> str:
    """The fastest variant of the trained model within ``max_wer_increase``, and what it costs.

    What failed the checks of its export is never named.
    """
    limit = summary.results.settings.get("max_wer_increase", MAX_WER_INCREASE)
    baseline, length = summary.baseline_of(summary.groups[0]), summary.shown
    if baseline.failed:
        return f"`{baseline.name}`, the baseline, failed: nothing to compare with."
    able = [
        row
        for row in summary.contenders
        if row.speed_finding(length) == "faster"
        and row.gap is not None
        and row.gap.difference <= limit + 1e-9
    ]
    fastest = max(able, key=lambda row: row.speedup[length].value, default=None)
    if fastest is None:
        return (
            f"Nothing is measurably faster than `{baseline.name}` within "
            f"{text.points(limit)} points of word error rate."
        )
    return f"{_gain(fastest, length)} `{baseline.name}` at {length} s of audio {_price(fastest)}."


def failed_exports(summary: SpeechSummary) -> str:
    """What was measured although its export failed; empty where nothing was."""
    names = [f"`{row.name}`" for row in summary.measured if row.export_failed]
    if not names:
        return ""
    are = "is of an export" if len(names) == 1 else "are of exports"
    return f"{text.listed(names)} {are} that failed its checks: measured, and not to be used."


def _gain(row: SpeechRow, length: str) -> str:
    return f"`{row.name}` is {text.times(row.speedup[length].value)} times as fast as"


def _price(row: SpeechRow) -> str:
    """What the speed costs: a change is called so only where its interval shows one."""
    if row.gap.changed == 0:
        return "and changes no transcript"
    moved = f"{100 * abs(row.gap.difference):.2f} points"
    if row.finding == "worse":
        return f"and raises the word error rate by {moved}"
    if row.finding == "better":
        return f"and lowers the word error rate by {moved}"
    low, high = (text.points(end) for end in row.gap.interval)
    return (
        "with no difference of word error rate shown "
        f"({text.points(row.gap.difference)} points, {low} to {high})"
    )
