"""Training rows as calibration batches: never validation's or test's, and never padded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.checks.rows import draw_calibration
from export.graph.feeds import Feed, unpadded_feeds
from export.runtime.manifest import Manifest
from export.runtime.texts import open_encoder
from finetune.core.errors import DataError
from finetune.data.audio import AudioError, AudioSource, read_audio
from finetune.run_folder import Run, read_rows
from finetune.tasks.speech.ctc import SpeechSettings, prepare_wave

CALIBRATED = ("int8-static", "openvino-int8", "fp16")


def calibration_texts(run: Run, count: int) -> list[str]:
    """``count`` texts of the training split, drawn with the recipe's seed; never other rows."""
    texts = read_rows(run, "train")["text"].tolist()
    return [texts[index] for index in draw_calibration(len(texts), count, run.recipe.seed)]


def calibration_feeds(run: Run, count: int, folder: Path, manifest: Manifest) -> list[Feed]:
    """The same as batches without padding, by the tokenizer of the artifact's ``folder``."""
    rows = open_encoder(folder, manifest)(calibration_texts(run, count))
    return unpadded_feeds(rows, manifest.inputs)


def calibration_recordings(run: Run, count: int) -> list[AudioSource]:
    """``count`` recordings of the training split, drawn with the recipe's seed.

    The run folder lists them without their audio, so the recipe's data are read again. Raises
    DataError where they are gone or are not those of the training.
    """
    from finetune.data.recordings import load_speech_corpus

    corpus = load_speech_corpus(run.recipe.data, run.recipe.seed)
    if corpus.fingerprint != run.info.data_fingerprint:
        raise DataError(
            "calibration needs the recordings of the training, and the data have changed",
            received=f"{run.recipe.data.path}, fingerprint {corpus.fingerprint[:12]}",
            allowed=f"fingerprint {run.info.data_fingerprint[:12]}",
            next_step="export.precisions without " + " and ".join(CALIBRATED),
        )
    audio = corpus.train["audio"].tolist()
    return [audio[place] for place in draw_calibration(len(audio), count, run.recipe.seed)]


def read_feeds(
    recordings: Sequence[AudioSource], settings: SpeechSettings, inputs: Sequence[str]
) -> list[Feed]:
    """A batch of one recording each, cut after ``settings.chunk_s``; raises DataError."""
    longest = round(settings.chunk_s * settings.rate_hz)
    try:
        waves = [read_audio(one, settings.rate_hz)[:longest] for one in recordings]
    except AudioError as fault:
        raise DataError("a calibration recording cannot be read", received=fault) from fault
    return [make_speech_feed(wave, settings, inputs) for wave in waves]


def make_speech_feed(wave: np.ndarray, settings: SpeechSettings, inputs: Sequence[str]) -> Feed:
    """input_values (1, samples) float32 and attention_mask (1, samples) int64 where it is asked."""
    values = prepare_wave(wave, settings)[None]
    feed = {"input_values": values, "attention_mask": np.ones(values.shape, dtype=np.int64)}
    return {name: feed[name] for name in inputs}
