"""Made-up recordings: what a data set of clean speech has not, and microphones and users have."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr

from export.checks.edges import Edge
from finetune.tasks.speech.ctc import SpeechSettings

RATES_HZ = (8_000, 22_050, 48_000)  # a telephone's, and two of sound cards
CLIPPED_GAIN = 50.0
QUIET_GAIN = 1e-4  # below one step of 16 bits
SILENCE_S = 1.0
BEYOND_CHUNK = 1.2  # chunks


def make_speech_edges(
    waves: Sequence[np.ndarray], settings: SpeechSettings, seed: int
) -> list[Edge]:
    """Made-up rows out of a recording of middle length, and of no recording at all.

    Rows are samples at the model's rate, taken whole, or a file's bytes, read and cut as any.
    """
    rate = settings.rate_hz
    wave = sorted(waves, key=len)[len(waves) // 2]
    noise = np.random.default_rng(seed).standard_normal(rate).astype(np.float32)
    long = np.resize(wave, int(BEYOND_CHUNK * settings.chunk_s * rate))
    rows: dict[str, np.ndarray | bytes] = {
        "shortest": wave[:1],
        "one frame": wave[: settings.receptive_field],
        "silence": np.zeros(int(SILENCE_S * rate), dtype=np.float32),
        "clipped": np.clip(CLIPPED_GAIN * wave, -1, 1),
        "quiet": QUIET_GAIN * wave,
        "white noise": 0.1 * noise,
        "longer than a chunk": _write_wav(long, rate),
        "stereo": _write_wav(np.stack([wave, 0.5 * wave], axis=1), rate),
    }
    for other in RATES_HZ:
        if other != rate:
            rows[f"{other:,} Hz"] = _write_wav(soxr.resample(wave, rate, other), other)
    return [Edge(name, row) for name, row in rows.items()]


def _write_wav(samples: np.ndarray, rate_hz: int) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()
