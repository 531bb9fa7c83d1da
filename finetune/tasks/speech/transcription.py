"""Recordings in, text out, whatever runs the model: files of any length, many files, streams.

Imports nothing of kotune but its two neighbours, and travels with them beside a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from finetune.data.audio import AudioSource, describe_audio, read_audio, stream_audio
from finetune.tasks.speech.ctc import (
    BATCH_S,
    Frames,
    SpeechSettings,
    decode_ids,
    run_many,
    stream_ids,
)

WINDOW_S = 300.0  # short recordings held at once to share batches


def transcribe_blocks(
    blocks: Iterable[np.ndarray], settings: SpeechSettings, frames: Frames
) -> str:
    """Text of one recording of any length, given as mono blocks at the model's rate."""
    ids = [np.zeros(0, dtype=np.int64), *stream_ids(blocks, settings, frames)]
    return decode_ids(np.concatenate(ids), settings)


def stream_text(
    blocks: Iterable[np.ndarray], settings: SpeechSettings, frames: Frames
) -> Iterator[str]:
    """The text so far after each chunk of a stream that need not end."""
    heard = np.zeros(0, dtype=np.int64)
    for ids in stream_ids(blocks, settings, frames):
        heard = np.concatenate([heard, ids])
        yield decode_ids(heard, settings)


def transcribe_sources(
    sources: Iterable[AudioSource], settings: SpeechSettings, frames: Frames
) -> Iterator[str]:
    """Text of each file, in order: short ones share batches, long ones are cut into chunks.

    Raises AudioError at the first file that cannot be read.
    """
    window: list[np.ndarray] = []
    held_s = 0.0
    for source in sources:
        seconds = describe_audio(source).seconds
        if seconds > settings.chunk_s or held_s + seconds > WINDOW_S:
            yield from transcribe_waves(window, settings, frames)
            window, held_s = [], 0.0
        if seconds > settings.chunk_s:
            yield transcribe_blocks(stream_audio(source, settings.rate_hz), settings, frames)
        else:
            window.append(read_audio(source, settings.rate_hz))
            held_s += seconds
    yield from transcribe_waves(window, settings, frames)


def transcribe_waves(
    waves: list[np.ndarray],
    settings: SpeechSettings,
    frames: Frames,
    *,
    batch_s: float = BATCH_S,
) -> list[str]:
    """Text of short recordings at the model's rate, each as a whole, batched by length."""
    found = run_many(waves, settings, frames, batch_s=batch_s)
    return [decode_ids(logits.argmax(axis=-1), settings) for logits in found]
