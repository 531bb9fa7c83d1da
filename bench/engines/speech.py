"""One speech variant in one fresh process, driven over a pipe as ``bench/engines/worker.py`` is."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

from bench.engines.worker import main
from bench.instruments.timing import peak_memory_bytes, round_sample
from finetune.core.worker_process import Message
from finetune.tasks.speech.ctc import CHUNK_S, STRIDE_S, Frames, SpeechSettings

WARM_UP_CALLS = 2


class SpeechWorker:
    """The state of the process: one model."""

    def __init__(self) -> None:
        self.frames: Frames | None = None
        self.settings: SpeechSettings | None = None

    def load(self, message: Message) -> Message:
        """Import what the variant needs, load it, and hear the first recording: seconds."""
        began = time.perf_counter()
        self.frames, self.settings = load_variant(message["variant"], message["threads"])
        loaded_s = time.perf_counter() - began
        first_ms = self._time(message["file"])
        return {"load_s": round_sample(loaded_s), "first_call_ms": first_ms}

    def latency(self, message: Message) -> Message:
        """``calls`` timings of one file, from its path to its text; milliseconds."""
        gc.collect()
        for _ in range(WARM_UP_CALLS):
            self._time(message["file"])
        return {"samples_ms": [self._time(message["file"]) for _ in range(message["calls"])]}

    def transcribe(self, message: Message) -> Message:
        """Text of each file, each run alone."""
        return {"transcripts": [self._hear(file) for file in message["files"]]}

    def memory(self, message: Message) -> Message:
        """Peak resident memory until now."""
        return {"peak_memory_bytes": peak_memory_bytes()}

    def _time(self, file: str) -> float:
        began = time.perf_counter_ns()
        self._hear(file)
        return round_sample((time.perf_counter_ns() - began) / 1e6)

    def _hear(self, file: str) -> str:
        from finetune.tasks.speech.transcription import transcribe_sources

        return next(transcribe_sources([file], self.settings, self.frames))


def load_variant(variant: dict[str, Any], threads: int) -> tuple[Frames, SpeechSettings]:
    """The variant's frames function and settings; nothing else is imported."""
    folder = Path(variant["folder"])
    if variant["file"] is not None:
        from export.runtime.transcriber import OnnxTranscriber

        runtime = OnnxTranscriber(
            folder, variant["file"], threads=threads, verify=False, allow_failed=True
        )
        return runtime.frames, runtime.settings
    import torch

    torch.set_num_threads(threads)
    from finetune.models.source import resolve_base
    from finetune.run_folder import open_run
    from finetune.tasks.speech.model import (
        TorchFrames,
        load_trained_speech,
        load_wav2vec2,
        read_model_settings,
        run_settings,
    )

    if (folder / "run.json").is_file():
        run = open_run(folder, verify=False)
        model, settings = load_trained_speech(run, merge=True), run_settings(run)
    else:
        base = resolve_base(str(folder))
        model, settings = load_wav2vec2(base), read_model_settings(base, CHUNK_S, STRIDE_S)
    return TorchFrames(model, "cpu", variant["precision"]), settings


COMMANDS = {
    name: getattr(SpeechWorker, name) for name in ("load", "latency", "transcribe", "memory")
}

if __name__ == "__main__":
    main(SpeechWorker(), COMMANDS)
