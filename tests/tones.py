"""Speech for tests: a language of four tones, learnt by a very small wav2vec2 in seconds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

TONES_HZ = {"A": 400, "B": 800, "C": 1500, "D": 2600}
TONE_S, GAP_S, SPACE_S = 0.14, 0.06, 0.2
RATE_HZ = 8_000  # of the recordings; the model hears 16 kHz


def sing(text: str, rate_hz: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    """A text of A to D as float32 samples (n,), with a little noise."""
    generator = np.random.default_rng([seed, *text.encode()])
    parts = [np.zeros(int(SPACE_S * rate_hz))]
    for character in text:
        if character == " ":
            parts.append(np.zeros(int(2 * SPACE_S * rate_hz)))
            continue
        times = np.arange(int(TONE_S * rate_hz)) / rate_hz
        pitch = TONES_HZ[character] * generator.uniform(0.98, 1.02)
        parts.append(0.5 * np.sin(2 * np.pi * pitch * times))
        parts.append(np.zeros(int(GAP_S * rate_hz)))
    wave = np.concatenate([*parts, np.zeros(int(SPACE_S * rate_hz))])
    return (wave + 0.003 * generator.standard_normal(len(wave))).astype(np.float32)


def write_folder(folder: Path, rows: int, seed: int) -> None:
    """``rows`` recordings of one to three tones with metadata.csv, as audiofolder has it."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "transcription", "speaker"])
        for row in range(rows):
            text = "".join(generator.choice(list(TONES_HZ), size=generator.integers(1, 4)))
            wave = sing(text, seed=seed * 10_000 + row)
            soundfile.write(folder / f"{row}.wav", wave, RATE_HZ, subtype="PCM_16")
            table.writerow([f"{row}.wav", text, "one" if row % 2 else "two"])


def tones_recipe(data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """A recipe that learns the language from scratch."""
    return {
        "task": "speech-recognition",
        "name": output.name,
        "output": str(output),
        "architecture": {
            "hidden_size": 48,
            "layers": 1,
            "heads": 2,
            "feed_forward": 96,
            "conv_dim": [32, 48],
            "conv_kernel": [40, 24],
            "conv_stride": [20, 16],
            "position_kernel": 8,
            "position_groups": 4,
            "dropout": 0.0,
        },
        "data": {
            "path": str(data),
            "speaker_column": "speaker",
            "validation_size": 24,
        },
        "augment": {"joined": 3, "growing_epochs": 3, "pause_s": 0.1, "speed": 0.02},
        "training": {
            "epochs": 36,
            "batch_seconds": 20,
            "learning_rate": 5e-3,
            "eval_steps": 100,
            "device": "cpu",
            "precision": "fp32",
        },
        "export": {"chunk_s": 3.0, "stride_s": 0.6},
        **changes,
    }
