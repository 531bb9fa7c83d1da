"""What a model hears of a fixed synthetic recording: kept beside it and compared on opening.

A resampler, a decoder or a normalisation that changed with a library would change every answer.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

from finetune.core.errors import FolderError, ModelError
from finetune.core.files import read_json, write_json
from finetune.core.libraries import installed_versions, name_versions, pin_versions
from finetune.core.processes import is_main_process
from finetune.data.audio import read_audio
from finetune.tasks.speech.ctc import SpeechSettings, prepare_wave

FEATURES = "audio_features.json"
SCHEMA = "kotune.audio_features/1"
LIBRARIES = ("numpy", "soundfile", "soxr", "transformers")
RATE_HZ, SECONDS = 44_100, 0.5
EVERY = 16  # of the values that are kept
LARGEST_DIFFERENCE = 1e-3  # of values with unit variance; a bit of 16 is about 1e-4


def synthetic_recording() -> bytes:
    """Half a second of stereo WAV, 16 bits at 44.1 kHz: a rising tone, and noise by formula."""
    time = np.arange(int(RATE_HZ * SECONDS)) / RATE_HZ
    tone = 0.4 * np.sin(2 * np.pi * (200 * time + 3000 * time**2))
    noise = (np.arange(len(time)) * 7919 % 1009) / 1009 - 0.5
    stream = io.BytesIO()
    both = np.stack([tone + 0.05 * noise, 0.7 * tone - 0.05 * noise], axis=1)
    soundfile.write(stream, both, RATE_HZ, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def take_features(settings: SpeechSettings) -> np.ndarray:
    """What the model is given of the synthetic recording, float32 (samples,)."""
    return prepare_wave(read_audio(synthetic_recording(), settings.rate_hz), settings)


def hold_features(settings: SpeechSettings, folder: Path) -> None:
    """Keep the features in ``folder`` where it has none, else compare them; raises ModelError."""
    if (folder / FEATURES).is_file():
        check_features(settings, folder)
    elif is_main_process():
        values = take_features(settings)
        content = {
            "libraries": installed_versions(LIBRARIES),
            "samples": len(values),
            "values": " ".join(f"{value:.5f}" for value in values[::EVERY]),
        }
        write_json(folder / FEATURES, SCHEMA, content)


def check_features(settings: SpeechSettings, folder: Path) -> None:
    """Hold the features here against those of ``folder``, where it keeps some.

    Raises ModelError with the libraries then and now, FolderError where the file is damaged.
    """
    if not (folder / FEATURES).is_file():
        return
    kept = read_json(folder / FEATURES, SCHEMA)
    values = take_features(settings)
    try:
        then = np.array([float(value) for value in kept["values"].split()])
        samples, libraries = int(kept["samples"]), dict(kept["libraries"])
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise FolderError("damaged features", received=folder / FEATURES) from fault
    now = values[::EVERY]
    if len(values) == samples and len(now) == len(then):
        difference = float(np.abs(now - then).max())
        if difference <= LARGEST_DIFFERENCE:
            return
        found = f"values that differ by up to {difference:.2g}"
    else:
        found = f"{len(values)} samples instead of {samples}"
    raise ModelError(
        f"recordings sound otherwise here than when {folder} was made",
        received=f"{found} with {name_versions(installed_versions(LIBRARIES))}",
        allowed=f"{LARGEST_DIFFERENCE:g}, as with {name_versions(libraries)}",
        next_step=pin_versions(libraries),
    )
