"""What other programs took of the machine while the rounds ran, from the record of each round."""

from __future__ import annotations

from statistics import median

from bench.report import text
from bench.results.records import Results

DISTURBED_CORES = 0.1  # on average; less is what any system does by itself
DISTURBED_GPU_PERCENT = 5


def is_disturbed(results: Results) -> bool:
    """Whether the median round had to share the CPU or the GPU."""
    cores, gpu = _median(results, "foreign_cores"), _median(results, "foreign_gpu_percent")
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


def _median(results: Results, name: str) -> float | None:
    values = _taken(results, name)
    return median(values) if values else None
