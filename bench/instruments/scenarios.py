"""Scenarios after MLPerf Inference's definitions (mlcommons/inference): what one timing is.

Single-stream: the next review is sent when the answer to the last has come. Offline: all rows
are there at once and the runtime batches them as it likes best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns


def single_stream(classify: Callable[[str], int], texts: Sequence[str]) -> list[float]:
    """Milliseconds from text to class id, one text at a time, in the order of ``texts``."""
    samples = []
    for text in texts:
        start = perf_counter_ns()
        classify(text)
        samples.append(perf_counter_ns() - start)
    return [nanoseconds / 1e6 for nanoseconds in samples]


def offline(
    classify_many: Callable[[Sequence[str], int], list[int]],
    texts: Sequence[str],
    batch_size: int,
) -> tuple[float, list[int]]:
    """Seconds for all ``texts`` in bulk, and the class ids in their order."""
    start = perf_counter_ns()
    predicted = classify_many(texts, batch_size)
    return (perf_counter_ns() - start) / 1e9, predicted
