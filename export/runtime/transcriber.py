"""Torch-free transcription on an artifact folder: numpy, onnxruntime, soundfile, soxr.

    transcriber = OnnxTranscriber("artifacts/wav2vec2-fsdd")
    transcriber("recording.flac")            # "ONE TWO THREE", any rate, channels and length
    transcriber.transcribe_many(["a.wav", "b.wav"])
    for text in transcriber.stream(blocks):  # mono float32 blocks at transcriber.settings.rate_hz
        ...

The same code stands inside every speech artifact as one file, ``predict.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.runtime.arithmetic import executed_arithmetic
from export.runtime.manifest import ArtifactError, verify_opened
from export.runtime.processor import available_cores
from export.runtime.session import choose_model, open_again, open_session, warn_of_instructions
from finetune.data.audio import AudioSource, read_audio
from finetune.tasks.speech.ctc import read_speech_settings, run_batch, run_many
from finetune.tasks.speech.transcription import stream_text, transcribe_sources

SPEECH_TASK = "speech-recognition"
SETTINGS_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
)


class OnnxTranscriber:
    """A wav2vec2 read from an artifact folder; everything it needs stands there.

    ``precision`` is a key of the manifest's files ("int8", "openvino-int8", …); None takes the
    fastest one there is. ``threads`` defaults to the physical cores this process may use.
    ``verify`` hashes every file of the folder; "read" only those that are read here; False none.
    Raises ArtifactError, never falls back to another provider.

    Any number of threads may call one transcriber at a time; an iterator it gave belongs to one
    of them. A process forked from this one opens the file again at its first call (not with
    CUDA); pickled, as ``spawn`` does, it opens the folder again.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        precision: str | None = None,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        verify: bool | str = True,
        allow_failed: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.manifest, self.precision = choose_model(
            self.folder, SPEECH_TASK, precision, provider, allow_failed=allow_failed
        )
        self.threads = threads or available_cores()
        self._options = {
            "precision": self.precision,
            "threads": threads,
            "provider": provider,
            "verify": verify,
            "allow_failed": allow_failed,
        }
        entry = self.manifest.files[self.precision]
        verify_opened(self.folder, self.manifest, self.precision, verify, SETTINGS_FILES)
        warn_of_instructions(entry)
        try:
            cut = (self.manifest.chunk_s, self.manifest.stride_s)
            if None in cut:
                raise ValueError("manifest.json lacks chunk_s or stride_s")
            self.settings = read_speech_settings(self.folder, *cut)
        except (OSError, ValueError, KeyError) as fault:
            raise ArtifactError(f"{self.folder} is not a whole speech artifact: {fault}") from fault
        self._session = open_session(self.folder / entry.path, provider, self.threads, entry)
        self.executed = executed_arithmetic(self._session, entry, provider)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_again, (type(self), self.folder.absolute(), self._options, self.manifest)

    def __call__(self, source: AudioSource) -> str:
        """Text of one file (path or bytes) of any length; raises AudioError."""
        return next(transcribe_sources([source], self.settings, self.frames))

    def transcribe_many(self, sources: Iterable[AudioSource]) -> Iterator[str]:
        """Text of each file, in order; short ones share batches. Raises AudioError."""
        return transcribe_sources(sources, self.settings, self.frames)

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[str]:
        """The text so far after each chunk of mono float32 blocks at the model's rate."""
        return stream_text(blocks, self.settings, self.frames)

    def logits(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        """Logits (frames, labels) float32 of whole short recordings at the model's rate."""
        return run_many(waves, self.settings, self.frames)

    def answer_rows(self, files: Sequence[str]) -> list[np.ndarray]:
        """Logits (frames, labels) of each of the folder's own recordings, run alone."""
        rate_hz = self.settings.rate_hz
        waves = (read_audio(str(self.folder / file), rate_hz) for file in files)
        return [run_batch([wave], self.settings, self.frames)[0] for wave in waves]

    def frames(self, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """One padded batch through the graph: (n, samples) → logits (n, frames, labels)."""
        feed = {"input_values": values}
        if mask is not None:
            feed["attention_mask"] = mask
        logits = self._session.run(("logits",), feed)[0]
        if logits.shape[-1] != len(self.settings.labels):
            raise ArtifactError(
                f"{self.folder}: the {self.precision} file gives {logits.shape[-1]} outputs, "
                f"config.json and the tokens name {len(self.settings.labels)}"
            )
        return logits
