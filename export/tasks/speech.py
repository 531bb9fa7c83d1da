"""Speech recognition as a guest of the export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.artifact.card_metadata import Figure, base_name
from export.artifact.card_tables import Column, number, with_interval
from export.artifact.folder import FP32_FILE
from export.checks.ladder import Ladder
from export.checks.word_errors import (
    Heard,
    SpeechChecks,
    SpeechThresholds,
    choose_recordings,
)
from export.graph.feeds import Feed
from export.quantization.calibration import CALIBRATED, calibration_recordings, read_feeds
from export.runtime.bundle import SPEECH as SPEECH_BUNDLE
from export.tasks.task import Exported, Task
from finetune.recipes.kinds import SPEECH
from finetune.recipes.speech import SpeechExportSection
from finetune.run_folder import Run
from finetune.tasks.speech.ctc import Frames, SpeechSettings, decode_ids, run_batch, run_many

if TYPE_CHECKING:
    from export.runtime.transcriber import OnnxTranscriber

HEAD = ("lm_head",)
CONVOLUTIONS = ("Convolution", "GroupConvolution")  # in int8 they move the logits far more
PADDING = "onnx-fp32-padded"  # group norm only: what padding would do, which the runtime never does


COLUMNS: tuple[Column, ...] = (
    ("WER (95 %)", with_interval("wer", "wer_interval", ".2%")),
    ("CER", number("cer", ".2%")),
    ("largest logit difference", number("largest_logit_difference", ".1e")),
    ("mean", number("mean_logit_difference", ".1e")),
    ("changed transcripts", number("changed", "d")),
)


class SpeechCard:
    """What the card of a recogniser says."""

    pipeline_tag = "automatic-speech-recognition"
    library = "onnx"
    metrics = ("wer", "cer")
    columns = COLUMNS

    def introduce(self, manifest: dict[str, Any]) -> str:
        """Base model, method, rate, how long recordings are cut."""
        kotune = manifest["provenance"]["kotune"] or ""
        return f"""A wav2vec2 that transcribes speech by CTC: `{base_name(manifest["base"])}`,
fine-tuned ({manifest["method"]}) and exported to ONNX by kotune {kotune}. It works at
{manifest["sampling_rate_hz"]:,} Hz; recordings over {manifest["chunk_s"]:g} s are cut into chunks
that overlap by {manifest["stride_s"]:g} s on either side."""

    def show_use(self, manifest: dict[str, Any]) -> str:
        """predict.py, then the command."""
        return """`predict.py` needs Python 3.10 with numpy, onnxruntime, soundfile and soxr (an
.xml file: openvino):

```
python predict.py recording.wav
kotune transcribe FOLDER recording.wav
```"""

    def figures(self, measured: dict[str, Any]) -> list[Figure]:
        """Word and character error rate."""
        return [
            Figure("wer", "WER ({what})", measured["wer"]),
            Figure("cer", "CER ({what})", measured["cer"]),
        ]

    def describe_test(self, measured: dict[str, Any]) -> str:
        """WER with its interval, CER."""
        low, high = measured["wer_interval"]
        return f"WER {measured['wer']:.2%} ({low:.2%} to {high:.2%}), CER {measured['cer']:.2%}"


class SpeechTask(Task):
    """Rows are recordings at the model's rate, answers are transcripts and their logits."""

    name = SPEECH
    bundle = SPEECH_BUNDLE
    card = SpeechCard()
    vocabulary_file = "vocab.json"
    trained_metrics = ("rows", "wer", "wer_interval", "cer", "cer_interval")
    float_types = CONVOLUTIONS
    checks: SpeechChecks

    def __init__(self, run: Run, settings: SpeechExportSection) -> None:
        from finetune.tasks.speech.model import run_settings

        super().__init__(run, settings)
        thresholds = SpeechThresholds(settings.max_logit_difference, settings.max_wer_increase)
        self.checks = SpeechChecks(choose_recordings(run, settings.check_rows), thresholds)
        self.inference = run_settings(run)
        calibrated = set(CALIBRATED) & set(settings.precisions or ())
        count = settings.calibration_rows
        self._training = calibration_recordings(run, count) if calibrated else []

    def climb_trained(self, ladder: Ladder) -> None:
        """Training's stored transcripts, then the model read back from disk."""
        from finetune.tasks.speech.model import load_trained_speech

        ladder.climb("training", "reference", Heard(list(self.checks.chosen.stored)))
        ladder.climb("reloaded", "float", self._hear(load_trained_speech(self.run)), "training")

    def export_merged(self, ladder: Ladder, folder: Path) -> Exported:
        """Merge, check, write fp32 ONNX, config.json and the processor."""
        from export.graph.merging import check_finite
        from export.graph.to_onnx import export_speech_onnx
        from finetune.tasks.speech.model import load_trained_speech

        model = load_trained_speech(self.run, merge=True)
        check_finite(model)
        ladder.climb("merged", "float", self._hear(model), "reloaded")
        model.config._name_or_path = ""
        model.config.save_pretrained(folder)
        _copy_processor(self.run.folder / "model", folder)
        graph = export_speech_onnx(model, folder / FP32_FILE, opset=self.settings.opset)
        facts = {"opset": graph.opset, "inputs": list(graph.inputs), "outputs": list(graph.outputs)}
        return Exported(facts, HEAD)

    def open_runtime(
        self, folder: Path, precision: str, *, provider: str = "cpu"
    ) -> OnnxTranscriber:
        """The transcriber as predict.py has it."""
        from export.runtime.transcriber import OnnxTranscriber

        return OnnxTranscriber(folder, precision, provider=provider, verify=False)

    def answer(self, runtime: OnnxTranscriber, rows: Sequence[np.ndarray]) -> Heard:
        """Each recording alone: in dynamic int8 its neighbours would change it."""
        return self._decode([_alone(wave, runtime) for wave in rows])

    def climb_fp32(self, ladder: Ladder, folder: Path, name: str, before: str) -> None:
        """In the runtime's batches, then each recording alone, or padded as others would."""
        transcriber = self.open_runtime(folder, "fp32")
        waves = list(self.checks.rows)
        ladder.climb(name, "float", self._decode(transcriber.logits(waves)), before)
        if self.inference.masked:
            alone = [_alone(wave, transcriber) for wave in waves]
            ladder.climb(f"{name}-unpadded", "float", self._decode(alone), before)
        else:
            padded = pad_all(waves, self.inference, transcriber.frames)
            ladder.climb(PADDING, "reported", self._decode(padded), name)

    @property
    def texts(self) -> Sequence[str]:
        """What was said."""
        return self.checks.chosen.references

    def describe(self) -> dict[str, Any]:
        """The blank, the rate, and how long files are cut."""
        run = self.run
        return {
            "pad_token_id": run.labels.index("<pad>"),
            "sampling_rate_hz": run.info["sampling_rate_hz"],
            "chunk_s": self.settings.chunk_s,
            "stride_s": self.settings.stride_s,
        }

    def make_feeds(self, folder: Path, manifest: dict[str, Any]) -> list[Feed]:
        """Training recordings, one a batch."""
        return read_feeds(self._training, self.inference, manifest["inputs"])

    def _hear(self, model: Any) -> Heard:
        from finetune.tasks.speech.model import TorchFrames

        return self._decode(run_many(list(self.checks.rows), self.inference, TorchFrames(model)))

    def _decode(self, logits: list[np.ndarray]) -> Heard:
        texts = [decode_ids(one.argmax(axis=-1), self.inference) for one in logits]
        return Heard(texts, logits)


def pad_all(waves: list[np.ndarray], settings: SpeechSettings, frames: Frames) -> list[np.ndarray]:
    """Logits of recordings padded in batches of eight, as transformers' processor would do."""
    order = sorted(range(len(waves)), key=lambda row: -len(waves[row]))
    result: list[Any] = [None] * len(waves)
    for start in range(0, len(order), 8):
        rows = order[start : start + 8]
        logits = run_batch([waves[row] for row in rows], settings, frames)
        for row, one in zip(rows, logits, strict=True):
            result[row] = one
    return result


def _alone(wave: np.ndarray, transcriber: OnnxTranscriber) -> np.ndarray:
    return run_batch([wave], transcriber.settings, transcriber.frames)[0]


def _copy_processor(source: Path, folder: Path) -> None:
    """The processor's files, read and written again by transformers."""
    from transformers import Wav2Vec2Processor

    Wav2Vec2Processor.from_pretrained(source, local_files_only=True).save_pretrained(folder)
