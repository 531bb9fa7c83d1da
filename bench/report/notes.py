"""What a reader must know of the method, from the settings that were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.report import text
from bench.report.summary import Summary, noise_floor
from bench.statistics import PROCESSES_FROM

BUSY = 0.5  # load average per core, before the benchmark began


def method_notes(summary: Summary) -> list[str]:
    """How the figures were made and how to read them; names of variants in backticks."""
    settings, results = summary.results.settings, summary.results
    notes = [_protocol(settings), *_conditions(summary)]
    if summary.baseline:
        notes.append(f"All comparisons are with `{results.baseline}`, on the same rows.")
    notes += _accuracy_notes(summary)
    notes.append(_latency_note(settings))
    if any(row.peak_memory_bytes for row in summary.measured):
        notes.append(
            "Memory is the highest resident size of the variant's own process, libraries included."
        )
    notes.append("A figure that was not measured is absent; it is never a zero. MB is 10⁶ bytes.")
    return notes


def _protocol(settings: Mapping[str, Any]) -> str:
    parts = ["Each variant runs in a process of its own"]
    if settings.get("processes"):
        parts.append(f"{text.plural(settings['processes'], 'fresh process', 'es')} each")
    if settings.get("rounds"):
        limit = "up to " if settings.get("time_budget_s") else ""
        parts.append(f"{limit}{text.plural(settings['rounds'], 'round')} per process")
    if settings.get("threads"):
        parts.append(text.plural(settings["threads"], "thread"))
    order = "; each round visits the variants in a new random order" if len(parts) > 1 else ""
    return f"{', '.join(parts)}{order}."


def _conditions(summary: Summary) -> list[str]:
    """What disturbed the measurement, and how much it shows."""
    settings, hardware = summary.results.settings, summary.results.environment.get("hardware") or {}
    notes = []
    pair = summary.noise_pair
    if pair is not None and pair.speedup is not None:
        notes.append(
            f"`{pair.name}` is the baseline measured a second time. Its p50 differs by "
            f"{100 * noise_floor(pair.speedup):.1f} %: a speed-up no larger than that is a tie."
        )
    if settings.get("memory_blocks"):
        notes.append("Memory did not hold all processes at once: they took turns in blocks.")
    load = settings.get("load_average")
    if load is not None and load > BUSY * (hardware.get("cores") or 1):
        notes.append(
            f"The machine was busy when the benchmark began (load average {load:.1f}); the "
            "figures hold for that."
        )
    return notes


def _accuracy_notes(summary: Summary) -> list[str]:
    if not summary.test_rows:
        return []
    notes = [
        "Accuracy has Wilson's interval, F1 a bootstrap interval. A difference of accuracy has "
        "a paired bootstrap interval and McNemar's test (exact below 25 discordant rows), "
        "adjusted after Holm for the number of variants. One run per method tells about that "
        "run, not about the method."
    ]
    if summary.unseen_rows and summary.unseen_rows < summary.test_rows:
        notes.append(
            f"“Unseen” is the accuracy on the {summary.unseen_rows:,} test rows whose text "
            "does not also stand in the training set."
        )
    return notes


def _latency_note(settings: Mapping[str, Any]) -> str:
    rows = settings.get("latency_rows")
    what = f"{rows:,} real reviews" if rows else "real reviews"
    note = (
        f"Latency is text in, label out at batch 1 on {what}, tokenisation included; percentiles "
        "are over all samples."
    )
    if settings.get("throughput_batch_size"):
        note += f" Throughput is in batches of {settings['throughput_batch_size']}."
    inside = (
        " With so few processes per variant, intervals hold for these processes and leave out "
        "what differs from start to start."
        if settings.get("processes", PROCESSES_FROM) < PROCESSES_FROM
        else " Intervals of medians resample whole processes."
    )
    return note + inside
