"""Latency over batch size and length: reviews of an exact number of tokens, one padded batch."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter, perf_counter_ns

FILLER = " ."  # one token in every vocabulary we know, and then counted all the same
CALLS_AT_LEAST = 3
CALLS_AT_MOST = 20
CELL_S = 0.5  # a cell ends after this long, once it has CALLS_AT_LEAST


def text_of_length(
    count_tokens: Callable[[str], int], words: Sequence[str], tokens: int
) -> str | None:
    """A text of exactly ``tokens`` tokens from the front of ``words``, filled up with full stops.

    None where there is none: the model truncates before, or the words do not suffice.
    """
    low, high = 0, min(len(words), tokens)  # no word has less than one token
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(" ".join(words[:middle])) <= tokens:
            low = middle
        else:
            high = middle - 1
    text = " ".join(words[:low])
    for _ in range(tokens):
        found = count_tokens(text)
        if found >= tokens:
            break
        text += FILLER
    return text if count_tokens(text) == tokens else None


def batch_of_length(
    count_tokens: Callable[[str], int], texts: Sequence[str], batch: int, tokens: int
) -> list[str] | None:
    """``batch`` different texts of the same length; None where the length cannot be had."""
    words = " ".join(texts).split()
    made = []
    for index in range(batch):
        start = index * len(words) // batch
        text = text_of_length(count_tokens, [*words[start:], *words[:start]], tokens)
        if text is None:
            return None
        made.append(text)
    return made


def time_batch(classify_batch: Callable[[Sequence[str]], object], batch: list[str]) -> list[float]:
    """Milliseconds per call, after one that is not counted."""
    classify_batch(batch)
    began, samples = perf_counter(), []
    for number in itertools.count(1):
        start = perf_counter_ns()
        classify_batch(batch)
        samples.append((perf_counter_ns() - start) / 1e6)
        late = perf_counter() - began > CELL_S
        if number >= CALLS_AT_MOST or (number >= CALLS_AT_LEAST and late):
            return samples
    raise AssertionError


def cell_median_ms(samples_by_process: Sequence[Sequence[float]]) -> float:
    """The median over processes of each process's median."""
    return statistics.median(statistics.median(samples) for samples in samples_by_process)
