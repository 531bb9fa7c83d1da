"""Word and character error rate: counts by jiwer, intervals by bootstrap over recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetune.metrics.classification import CONFIDENCE, RESAMPLES, Interval, percentile_interval


@dataclass(frozen=True)
class ErrorCounts:
    """Per recording, int64 (n,): words and characters asked for, and errors made in them."""

    words: np.ndarray
    word_errors: np.ndarray
    characters: np.ndarray
    character_errors: np.ndarray


@dataclass(frozen=True)
class SpeechMetrics:
    """Transcripts against references; rates are errors over asked-for units and may exceed 1."""

    rows: int
    words: int
    word_errors: int
    wer: float
    wer_interval: Interval
    cer: float
    cer_interval: Interval
    exact: float  # share of recordings without any error

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """One line for the reader."""
        low, high = self.wer_interval
        return (
            f"WER {self.wer:.2%} (95 % interval {low:.2%} to {high:.2%}), CER {self.cer:.2%}, "
            f"{self.word_errors} errors in {self.words} words of {self.rows} recordings"
        )


@dataclass(frozen=True)
class WerDifference:
    """WER of a variant minus that of a baseline on the same recordings, and changed transcripts."""

    difference: float
    interval: Interval
    changed: int


def count_errors(references: Sequence[str], transcripts: Sequence[str]) -> ErrorCounts:
    """Substitutions, deletions and insertions of each recording (Levenshtein, jiwer)."""
    pairs = list(zip(references, transcripts, strict=True))
    words = np.array([_errors(*pair, by_word=True) for pair in pairs], dtype=np.int64)
    characters = np.array([_errors(*pair, by_word=False) for pair in pairs], dtype=np.int64)
    words, characters = words.reshape(-1, 2), characters.reshape(-1, 2)
    return ErrorCounts(words[:, 0], words[:, 1], characters[:, 0], characters[:, 1])


def speech_metrics(
    references: Sequence[str], transcripts: Sequence[str], *, seed: int = 0
) -> SpeechMetrics:
    """WER and CER over all recordings, with percentile bootstrap intervals over recordings.

    Raises ValueError where no word is asked for.
    """
    counts = count_errors(references, transcripts)
    if not counts.words.sum():
        raise ValueError("the references hold no word")
    return SpeechMetrics(
        rows=len(references),
        words=int(counts.words.sum()),
        word_errors=int(counts.word_errors.sum()),
        wer=float(counts.word_errors.sum() / counts.words.sum()),
        wer_interval=ratio_interval(counts.word_errors, counts.words, seed=seed),
        cer=float(counts.character_errors.sum() / counts.characters.sum()),
        cer_interval=ratio_interval(counts.character_errors, counts.characters, seed=seed),
        exact=float(np.mean(counts.word_errors == 0)),
    )


def wer_difference(
    references: Sequence[str],
    transcripts: Sequence[str],
    baseline: Sequence[str],
    *,
    seed: int = 0,
) -> WerDifference:
    """The paired difference of two systems; positive where ``transcripts`` are worse."""
    counts, before = count_errors(references, transcripts), count_errors(references, baseline)
    gap = counts.word_errors - before.word_errors
    return WerDifference(
        difference=float(gap.sum() / max(1, counts.words.sum())),
        interval=ratio_interval(gap, counts.words, seed=seed),
        changed=sum(one != two for one, two in zip(transcripts, baseline, strict=True)),
    )


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Interval of a ratio of sums, recordings drawn with replacement (Bisani and Ney 2004)."""
    generator = np.random.default_rng(seed)
    rows = len(numerators)
    draws = np.empty(resamples)
    for start in range(0, resamples, 1000):
        chosen = generator.integers(rows, size=(min(1000, resamples - start), rows))
        below = denominators[chosen].sum(axis=1)
        draws[start : start + len(chosen)] = numerators[chosen].sum(axis=1) / np.maximum(1, below)
    return percentile_interval(draws, confidence)


def _errors(reference: str, transcript: str, *, by_word: bool) -> tuple[int, int]:
    """(units asked for, errors); of an empty reference every unit said is an insertion."""
    import jiwer

    if not reference.split():
        return 0, len(transcript.split() if by_word else transcript)
    process = jiwer.process_words if by_word else jiwer.process_characters
    found = process(reference, transcript)
    asked = found.hits + found.substitutions + found.deletions
    return asked, found.substitutions + found.deletions + found.insertions
