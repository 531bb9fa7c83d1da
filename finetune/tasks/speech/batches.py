"""Batches of a seconds budget: recordings joined at random, changed a little, padded.

A batch is a function of its step and the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import soxr
import torch

from finetune.data import IGNORED
from finetune.data.audio import to_float
from finetune.data.recordings import Waves
from finetune.loop.planned_batches import Batch, PlannedBatches, plan_batches
from finetune.recipes.speech import AugmentSection
from finetune.tasks.speech.ctc import normalize

QUIETEST_NOISE_DB = 40.0
ROOM_NOISE = 1e-4  # in a pause: digital silence is found nowhere else


class SpeechBatches(PlannedBatches):
    """All micro-batches of a training: recordings joined to sequences, changed and padded."""

    def __init__(
        self,
        waves: Waves,
        seconds: Sequence[float],
        texts: Sequence[str],
        encode: Callable[[str], list[int]],
        *,
        augment: AugmentSection,
        masked: bool,
        batch_seconds: float,
        epochs: float,
        batches: int | None,
        seed: int,
        least_samples: int = 0,
        normalized: bool = True,
    ) -> None:
        self.waves, self.texts, self.encode = waves, list(texts), encode
        self.seconds = np.asarray(seconds, dtype=np.float64)
        self.augment, self.masked, self.normalized = augment, masked, normalized
        self.batch_seconds, self.seed, self.least_samples = batch_seconds, seed, least_samples
        super().__init__(epochs=epochs, batches=batches)

    def plan_epoch(self, epoch: int) -> list[list[list[int]]]:
        """Batches of sequences of recordings; every recording comes once an epoch."""
        generator = np.random.default_rng([self.seed, 0, epoch])
        most = self.augment.joined
        if epoch < self.augment.growing_epochs:
            most = 1 + (most - 1) * epoch // self.augment.growing_epochs
        sequences = _cut(generator.permutation(len(self.seconds)), most, generator)
        lengths = [self._expected_seconds(rows) for rows in sequences]
        plan = plan_batches(lengths, self.batch_seconds, generator)
        return [[sequences[place] for place in places.tolist()] for places in plan]

    def make_batch(self, number: int, rows: list[list[int]], part: int) -> Batch:
        """Values, labels and mask; of a part, also its ``weight`` in the batch's mean loss."""
        generator = np.random.default_rng([self.seed, 1, number])
        values = [self._join(sequence, generator) for sequence in rows]
        labels = [self.encode(" ".join(self.texts[row] for row in sequence)) for sequence in rows]
        if self.parts == 1:
            return pad_batch(values, labels, masked=self.masked)
        own = list(range(part, len(rows), self.parts)) or [0]
        batch = pad_batch(
            [values[place] for place in own], [labels[place] for place in own], masked=self.masked
        )
        count = len(own) if part < len(rows) else 0
        return {**batch, "weight": torch.tensor(count * self.parts / len(rows))}

    def seconds_before(self, number: int) -> float:
        """Seconds of recordings, each as often as it came, before a batch."""
        epochs = self.epoch_of(number)
        return epochs * float(self.seconds.sum())

    def _expected_seconds(self, rows: Sequence[int]) -> float:
        pauses = (len(rows) + 1) * self.augment.pause_s / 2
        return float(self.seconds[list(rows)].sum()) + pauses

    def _join(self, rows: Sequence[int], generator: np.random.Generator) -> np.ndarray:
        """One sequence of recordings, each changed by itself, as the model takes it."""
        parts = [self._pause(generator)]
        for row in rows:
            parts += [change(to_float(self.waves[row]), self.augment, generator)]
            parts += [self._pause(generator)]
        wave = np.concatenate(parts)
        if len(wave) < self.least_samples:
            wave = np.concatenate([wave, np.zeros(self.least_samples - len(wave), np.float32)])
        wave = add_noise(wave, self.augment.noise_db, generator)
        return normalize(wave) if self.normalized else wave

    def _pause(self, generator: np.random.Generator) -> np.ndarray:
        samples = int(generator.random() * self.augment.pause_s * self.waves.rate_hz)
        return generator.standard_normal(samples, dtype=np.float32) * np.float32(ROOM_NOISE)


def change(wave: np.ndarray, augment: AugmentSection, generator: np.random.Generator) -> np.ndarray:
    """Another speed (pitch moves with it, Ko et al. 2015) and another gain."""
    if augment.speed:
        factor = 1 + augment.speed * generator.uniform(-1, 1)
        wave = soxr.resample(wave, factor, 1.0, quality="LQ")
    if augment.gain_db:
        wave = wave * np.float32(10 ** (augment.gain_db * generator.uniform(-1, 1) / 20))
    return wave.astype(np.float32, copy=False)


def add_noise(
    wave: np.ndarray, noise_db: float | None, generator: np.random.Generator
) -> np.ndarray:
    """White noise at ``noise_db`` … 40 dB below the wave's own level."""
    if noise_db is None:
        return wave
    level = float(np.sqrt(np.mean(np.square(wave), dtype=np.float64)))
    below = generator.uniform(noise_db, QUIETEST_NOISE_DB)
    noise = generator.standard_normal(len(wave), dtype=np.float32)
    return wave + noise * np.float32(level * 10 ** (-below / 20))


def pad_batch(
    values: Sequence[np.ndarray], labels: Sequence[Sequence[int]], *, masked: bool
) -> Batch:
    """input_values (n, longest), labels (n, longest; -100 pads) and, if masked, attention_mask."""
    width, longest = max(map(len, values)), max(1, *map(len, labels))
    padded = np.zeros((len(values), width), dtype=np.float32)
    mask = np.zeros((len(values), width), dtype=np.int64)
    targets = np.full((len(values), longest), IGNORED, dtype=np.int64)
    for row, (value, label) in enumerate(zip(values, labels, strict=True)):
        padded[row, : len(value)] = value
        mask[row, : len(value)] = 1
        targets[row, : len(label)] = label
    batch = {"input_values": torch.from_numpy(padded), "labels": torch.from_numpy(targets)}
    if masked:
        batch["attention_mask"] = torch.from_numpy(mask)
    return batch


def _cut(order: np.ndarray, most: int, generator: np.random.Generator) -> list[list[int]]:
    """``order`` cut into pieces of 1 to ``most``."""
    pieces, start = [], 0
    while start < len(order):
        size = int(generator.integers(1, most + 1))
        pieces.append(order[start : start + size].tolist())
        start += size
    return pieces
