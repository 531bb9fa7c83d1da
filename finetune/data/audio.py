"""Audio files as mono blocks at one sampling rate: soundfile, soxr and numpy, nothing else.

Imports nothing of kotune, so that it travels beside an exported model.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

BLOCK_S = 10.0
RATES_HZ = (1_000, 768_000)  # outside of them a header is damaged
AudioSource = str | os.PathLike[str] | bytes


class AudioError(Exception):
    """A file that is no audio we can read; one line, the file's name first."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's own header says; a data set's metadata may say otherwise and is not asked."""

    seconds: float
    rate_hz: int
    channels: int


def describe_audio(source: AudioSource) -> AudioInfo:
    """Length, rate and channels from the header; raises AudioError."""
    with _open(source) as file:
        return AudioInfo(file.frames / file.samplerate, file.samplerate, file.channels)


def read_audio(source: AudioSource, rate_hz: int) -> np.ndarray:
    """A whole file, mono float32 (samples,) at ``rate_hz``; raises AudioError."""
    return np.concatenate(list(stream_audio(source, rate_hz)))


def stream_audio(
    source: AudioSource, rate_hz: int, *, block_s: float = BLOCK_S
) -> Iterator[np.ndarray]:
    """Mono float32 blocks at ``rate_hz``, one after the other, whatever the file's length.

    Channels are averaged; the resampler keeps its state between blocks, so that their
    concatenation is the resampled file. Amplitudes are those of 16 bits, clipped, which is what
    training hears, whatever the file holds. Raises AudioError, also for a file without samples.
    """
    name = _name(source)
    with _open(source) as file:
        resampler = None
        if file.samplerate != rate_hz:
            resampler = soxr.ResampleStream(file.samplerate, rate_hz, 1, dtype="float32")
        samples = 0
        for block in _blocks(file, int(block_s * file.samplerate), name):
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
            if not np.isfinite(mono).all():
                raise AudioError(f"{name}: samples that are not finite numbers")
            samples += len(mono)
            yield _as_kept(mono if resampler is None else resampler.resample_chunk(mono))
        if samples == 0:
            raise AudioError(f"{name}: no samples")
        if resampler is not None:
            yield _as_kept(resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))


def _as_kept(samples: np.ndarray) -> np.ndarray:
    return to_float(to_int16(samples))


def encode_flac(samples: np.ndarray, rate_hz: int) -> bytes:
    """int16 samples (n,) as FLAC, which gives back the same numbers."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float32 in -1 … 1 to int16, clipped."""
    return (np.clip(samples, -1, 32767 / 32768) * 32768).round().astype(np.int16)


def to_float(samples: np.ndarray) -> np.ndarray:
    """int16 to float32 in -1 … 1, as soundfile does."""
    return samples.astype(np.float32) / 32768


def _open(source: AudioSource) -> soundfile.SoundFile:
    if not isinstance(source, str | os.PathLike | bytes):
        raise AudioError(
            f"{source!r:.40}: a path or the bytes of a file, not {type(source).__name__}"
        )
    target: Any = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
    if isinstance(target, str) and not os.path.isfile(target):
        raise AudioError(f"{target}: no such file")
    if _bytes_of(target) == 0:
        raise AudioError(f"{_name(source)}: an empty file")
    try:
        # a name that is no text is bytes to the file system, and soundfile encodes strings strictly
        bare = isinstance(target, str) and os.name != "nt"
        file = soundfile.SoundFile(os.fsencode(target) if bare else target)
    except (soundfile.LibsndfileError, TypeError) as fault:  # TypeError: .raw without a rate
        raise AudioError(f"{_name(source)}: no audio that libsndfile reads ({fault})") from fault
    if not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
        file.close()
        raise AudioError(f"{_name(source)}: a sampling rate of {file.samplerate} Hz")
    return file


def _blocks(file: soundfile.SoundFile, frames: int, name: str) -> Iterator[np.ndarray]:
    while True:
        try:
            block = file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as fault:
            raise AudioError(f"{name}: damaged ({fault})") from fault
        if not len(block):
            return
        yield block


def _bytes_of(target: str | BinaryIO) -> int:
    return os.path.getsize(target) if isinstance(target, str) else len(target.getbuffer())


def _name(source: AudioSource) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)
