"""What a reader must know of the method, from the settings that were recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from statistics import median
from typing import Any

from bench.report import text
from bench.report.figures import noise_floor
from bench.report.summary import Summary
from bench.results.records import Results
from bench.statistics.latency import PROCESSES_FROM, half_width

ROUNDS_FROM = 10  # over all processes
DISTURBED_CORES = 0.1  # on average; less is what any system does by itself
DISTURBED_GPU_PERCENT = 5
NAMED = {"cpu": "the CPU", "cuda": "the GPU"}
BUSY = 0.5  # load average per core, before the benchmark began


def method_notes(summary: Summary) -> list[str]:
    """How the figures were made and how to read them; names of variants in backticks."""
    settings, results = summary.results.settings, summary.results
    notes = measurement_notes(summary)
    if summary.baseline:
        notes.append(f"All comparisons are with `{results.baseline}`, on the same rows.")
    notes += _accuracy_notes(summary)
    notes.append(_latency_note(settings))
    if any(row.energy_j for row in summary.measured):
        notes.append(
            "Energy is what CPU packages (RAPL) and GPU (NVML) drew, per review, while one "
            "review after the other was answered, for two seconds at least; the machine's idle "
            "draw is in it, alike for all."
        )
    if any(row.peak_memory_bytes for row in summary.measured):
        notes.append(
            "Memory is the highest resident size of the variant's own process, libraries included."
        )
    notes.append("A figure that was not measured is absent; it is never a zero. MB is 10⁶ bytes.")
    return notes


def measurement_notes(summary: Summary) -> list[str]:
    """How it was measured, how narrow the ratios became, and what disturbed it."""
    return [_protocol(summary), *_precision(summary), *_conditions(summary)]


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
        calls = "reviews" if summary.length is None else "calls at one length"
        order = (
            f"; they take turns of {settings['turn_calls']} {calls}, each time in a random order"
        )
    return f"{', '.join(parts)}{order}."


def _rounds_told(summary: Summary) -> str:
    """Rounds per process as they were run; a number that differs between processes as a range."""
    longest = max(summary.results.variants, key=lambda one: len(one.latency))
    visits = {(entry.process, entry.round) for entry in longest.latency}
    counts = Counter(process for process, _ in visits).values()
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
    rounds = max(
        len({(entry.process, entry.round) for entry in one.latency})
        for one in summary.results.variants
    )
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
    tokens = settings.get("throughput_tokens")
    if tokens:
        told = " or ".join(f"{count:,} on {NAMED[device]}" for device, count in tokens.items())
        note += (
            " Throughput is in batches of at most so many padded tokens, longest texts first, the "
            f"same for every runtime: {told}."
        )
    elif settings.get("throughput_batch_size"):
        note += f" Throughput is in batches of {settings['throughput_batch_size']}."
    inside = (
        " With so few processes per variant, intervals hold for these processes and leave out "
        "what differs from start to start."
        if settings.get("processes", PROCESSES_FROM) < PROCESSES_FROM
        else " Intervals of medians resample whole processes."
    )
    return note + inside


def is_disturbed(results: Results) -> bool:
    """Whether the median round had to share the CPU or the GPU."""
    cores, gpu = (
        _median_taken(results, "foreign_cores"),
        _median_taken(results, "foreign_gpu_percent"),
    )
    return (cores or 0) > DISTURBED_CORES or (gpu or 0) > DISTURBED_GPU_PERCENT


def load_notes(results: Results) -> list[str]:
    """Foreign load in sentences; none where it was not recorded."""
    notes = []
    cores = _taken(results, "foreign_cores")
    if cores:
        available = (results.environment.get("hardware") or {}).get("cores")
        of = f" of {available}" if available else ""
        busy = sum(1 for value in cores if value > DISTURBED_CORES)
        notes.append(
            f"Other programs kept {text.significant(median(cores), 2)}{of} cores busy in the "
            f"median round and {text.significant(max(cores), 2)} in the worst; {busy} of "
            f"{text.plural(len(cores), 'round')} had more than {DISTURBED_CORES:g}."
        )
        notes += _advice(results, median(cores), available)
    gpu = _taken(results, "foreign_gpu_percent")
    if gpu:
        told = f"While all variants slept the GPU was busy {max(gpu):.0f} % of the time at most"
        others = _taken(results, "foreign_gpu_processes")
        notes.append(told + (f"; {max(others):.0f} other processes used it." if others else "."))
    return notes


def _advice(results: Results, taken: float, available: int | None) -> list[str]:
    """What to do about cores that others keep."""
    threads = results.settings.get("threads")
    free = max(1, available - round(taken)) if available else None
    if free is None or not threads or round(taken) == 0 or threads <= free:
        return []
    return [
        f"{text.plural(threads, 'thread')} had to share cores with them, which widens the "
        f"intervals: `threads={free}` keeps to the free ones."
    ]


def _taken(results: Results, name: str) -> list[float]:
    found = [getattr(one, name) for one in results.load]
    return [value for value in found if value is not None]


def _median_taken(results: Results, name: str) -> float | None:
    values = _taken(results, name)
    return median(values) if values else None
