"""What a reader must know of the method, from the settings that were recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from statistics import median
from typing import Any

from bench.report import text
from bench.report.figures import noise_floor
from bench.report.load import load_notes
from bench.report.summary import Summary
from bench.statistics.latency import PROCESSES_FROM, half_width

ROUNDS_FROM = 10  # over all processes
BUSY = 0.5  # load average per core, before the benchmark began


def method_notes(summary: Summary) -> list[str]:
    """How the figures were made and how to read them; names of variants in backticks."""
    settings, results = summary.results.settings, summary.results
    notes = [_protocol(summary), *_precision(summary), *_conditions(summary)]
    if summary.baseline:
        notes.append(f"All comparisons are with `{results.baseline}`, on the same rows.")
    notes += _accuracy_notes(summary)
    notes.append(_latency_note(settings))
    if any(row.energy_j for row in summary.measured):
        notes.append(
            "Energy is what CPU packages (RAPL) and GPU (NVML) drew during the single-stream "
            "passes, per review; the machine's idle draw is in it, alike for all."
        )
    if any(row.peak_memory_bytes for row in summary.measured):
        notes.append(
            "Memory is the highest resident size of the variant's own process, libraries included."
        )
    notes.append("A figure that was not measured is absent; it is never a zero. MB is 10⁶ bytes.")
    return notes


def _protocol(summary: Summary) -> str:
    settings = summary.results.settings
    parts = ["Each variant runs in a process of its own"]
    if settings.get("processes"):
        parts.append(f"{text.plural(settings['processes'], 'fresh process', 'es')} each")
    if settings.get("rounds"):
        parts.append(_rounds_told(summary))
    if settings.get("threads"):
        parts.append(text.plural(settings["threads"], "thread"))
    order = "; each round visits the variants in a new random order" if len(parts) > 1 else ""
    if order and settings.get("turn_calls"):
        order = (
            f"; they take turns of {settings['turn_calls']} reviews, each time in a random order"
        )
    return f"{', '.join(parts)}{order}."


def _rounds_told(summary: Summary) -> str:
    """Rounds per process as they were run; a number that differs between processes as a range."""
    longest = max(summary.results.variants, key=lambda one: len(one.latency))
    counts = Counter(entry.process for entry in longest.latency).values()
    if not counts:
        return f"{text.plural(summary.results.settings['rounds'], 'round')} per process"
    least, most = min(counts), max(counts)
    told = text.plural(most, "round") if least == most else f"{least} to {most} rounds"
    return f"{told} per process"


def _precision(summary: Summary) -> list[str]:
    """How narrow the ratios became, and whether enough rounds were run."""
    settings = summary.results.settings
    widths = [half_width(row.speedup) for row in summary.measured if row.speedup]
    notes = []
    if widths and isfinite(max(widths)):
        target = settings.get("target_half_width")
        goal = f"; asked for were {100 * target:.3g} %" if target else ""
        notes.append(
            f"The intervals of the speed-ups reach {100 * median(widths):.1f} % up and down at "
            f"the median variant, {100 * max(widths):.1f} % at the widest{goal}."
        )
    rounds = max((len(one.latency) for one in summary.results.variants), default=0)
    if 0 < rounds < ROUNDS_FROM:
        notes.append(
            f"Only {text.plural(rounds, 'round')} in all: a quick look, no proof of a difference."
        )
    return notes


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
    if settings.get("priority", 0) < 0:
        notes.append(
            f"Variants ran before other programs (priority {settings['priority']}, nice): what "
            "those took is less than it would be without."
        )
    notes += load_notes(summary.results)
    load = settings.get("load_average")
    if not summary.results.load and load and load > BUSY * (hardware.get("cores") or 1):
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
        "adjusted after Holm for the number of variants. The marks ▲ ▼ ≈ and every loss or gain "
        "in words follow the adjusted test; an interval stands for one comparison alone."
    ]
    several = [row for row in summary.merged_rows if row.seeds]
    notes.append(
        "Recipes with several seeds are judged over their runs: means, Student's t on the logit "
        "scale, a t-test against the baseline's runs; their latencies are pooled."
        if several
        else "One run per method tells about that run, not about the method."
    )
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
