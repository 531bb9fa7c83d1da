"""Speech recognition as a guest of the export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.artifact.card_metadata import Figure, base_name
from export.artifact.card_tables import Column, number, with_interval
from export.artifact.folder import FP32_FILE
from export.artifact.manifest import ArtifactManifest
from export.checks.ladder import Ladder
from export.checks.speech_edges import make_speech_edges
from export.checks.stability import Stability, measure_speech_stability
from export.checks.word_errors import (
    Heard,
    SpeechChecks,
    SpeechThresholds,
    choose_recordings,
)
from export.graph.feeds import Feed
from export.precisions import ALL
from export.quantization.calibration import CALIBRATED, calibration_recordings, read_feeds
from export.runtime.bundle import SPEECH as SPEECH_BUNDLE
from export.runtime.manifest import ANSWERS, Manifest
from export.tasks.task import Exported, Task
from finetune.core.escaping import markdown_code
from finetune.data.audio import encode_flac, stream_audio, to_int16
from finetune.recipes.speech import SpeechExportSection
from finetune.run_folder import Run
from finetune.tasks.registry import SPEECH
from finetune.tasks.speech.ctc import (
    Frames,
    SpeechSettings,
    cut_chunks,
    decode_ids,
    run_batch,
    run_many,
)

if TYPE_CHECKING:
    from export.runtime.transcriber import OnnxTranscriber

HEAD = ("lm_head",)
KEPT_S = 60  # seconds of recordings in answers/
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

    def introduce(self, manifest: ArtifactManifest) -> str:
        """Base model, method, rate, how long recordings are cut."""
        kotune = manifest.provenance.kotune or ""
        made = f"{markdown_code(base_name(manifest.base))}, fine-tuned ({manifest.method})"
        if manifest.base.random_weights:
            made = "trained from scratch"
        return f"""A wav2vec2 that transcribes speech by CTC, {made},
and exported to ONNX by kotune {kotune}. It works at
{manifest.sampling_rate_hz:,} Hz; recordings over {manifest.chunk_s:g} s are cut into chunks
that overlap by {manifest.stride_s:g} s on either side."""

    def show_use(self, manifest: ArtifactManifest) -> str:
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
    call = "export.runtime.transcriber:OnnxTranscriber.transcribe_many"
    card = SpeechCard()
    loss_key = SpeechChecks.loss_key
    vocabulary_file = "vocab.json"
    trained_metrics = ("rows", "wer", "wer_interval", "cer", "cer_interval")
    float_types = CONVOLUTIONS
    checks: SpeechChecks

    def __init__(self, run: Run, settings: SpeechExportSection) -> None:
        from finetune.tasks.speech.model import run_settings

        super().__init__(run, settings)
        thresholds = SpeechThresholds(
            settings.max_logit_difference, settings.max_wer_increase, settings.flip_margin
        )
        rows = choose_recordings(run, settings.check_rows, settings.max_check_rows)
        chunks = {"chunk_s": settings.chunk_s, "stride_s": settings.stride_s}
        self.inference = replace(run_settings(run), **chunks)
        edges = make_speech_edges(rows.waves, self.inference, run.recipe.seed)
        self.checks = SpeechChecks(rows, thresholds, edges)
        asked = settings.precisions or (ALL if settings.search else ())
        calibrated = set(CALIBRATED) & set(asked)
        count = settings.calibration_rows
        self._training = calibration_recordings(run, count) if calibrated else []

    def climb_trained(self, ladder: Ladder) -> None:
        """Training's stored transcripts, then the model read back from disk."""
        from finetune.tasks.speech.model import load_trained_speech

        ladder.climb("training", "reference", Heard(list(self.checks.chosen.stored)))
        self._climb_torch(ladder, "reloaded", load_trained_speech(self.run), "training")

    def export_merged(self, ladder: Ladder, folder: Path) -> Exported:
        """Merge, check, write fp32 ONNX, config.json and the processor."""
        from export.graph.merging import check_finite
        from export.graph.to_onnx import export_speech_onnx
        from finetune.tasks.speech.features import hold_features
        from finetune.tasks.speech.model import load_trained_speech

        model = load_trained_speech(self.run, merge=True)
        check_finite(model)
        self._climb_torch(ladder, "merged", model, "reloaded")
        model.config._name_or_path = ""
        model.config.save_pretrained(folder)
        _copy_processor(self.run.folder / "model", folder)
        hold_features(self.inference, folder)
        graph = export_speech_onnx(model, folder / FP32_FILE, opset=self.settings.opset)
        facts = {"opset": graph.opset, "inputs": list(graph.inputs), "outputs": list(graph.outputs)}
        return Exported(facts, HEAD)

    def open_runtime(
        self, folder: Path, precision: str, *, provider: str = "cpu"
    ) -> OnnxTranscriber:
        """The transcriber as predict.py has it."""
        from export.runtime.transcriber import OnnxTranscriber

        return OnnxTranscriber(folder, precision, provider=provider, verify=False)

    def answer(
        self,
        runtime: OnnxTranscriber,
        rows: Sequence[np.ndarray | bytes],
        *,
        alone: bool = True,
    ) -> Heard:
        """Each recording alone: in dynamic int8 its neighbours would change it."""
        return self._hear(rows, runtime.settings, runtime.frames)

    def climb_fp32(self, ladder: Ladder, folder: Path, name: str, before: str) -> None:
        """In the runtime's batches, then each recording alone, or padded as others would."""
        transcriber = self.open_runtime(folder, "fp32")
        waves = list(self.checks.rows)
        again = partial(self.run_file, folder, "fp32")
        edges = self.answer(transcriber, [edge.row for edge in self.checks.edges])
        batched = self._decode(transcriber.logits(waves))
        ladder.climb(name, "float", batched, before, edges=edges, again=again)
        if self.inference.masked:
            ladder.climb(f"{name}-unpadded", "float", self.answer(transcriber, waves), before)
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
            "pad_token_id": self.inference.blank_id,
            "sampling_rate_hz": run.info.sampling_rate_hz,
            "chunk_s": self.settings.chunk_s,
            "stride_s": self.settings.stride_s,
        }

    def make_feeds(self, folder: Path, manifest: Manifest) -> list[Feed]:
        """Training recordings, one a batch."""
        return read_feeds(self._training, self.inference, manifest.inputs)

    def list_timed(self, folder: Path) -> list[str]:
        """The first recordings, as files."""
        names = []
        for place, wave in enumerate(self.checks.rows[: self.settings.timing_rows]):
            path = folder / f"{place}.flac"
            path.write_bytes(encode_flac(to_int16(wave), self.inference.rate_hz))
            names.append(str(path))
        return names

    def keep_rows(self, folder: Path, count: int) -> list[str]:
        """The shortest recordings as FLAC, a minute in all at most, none longer than a chunk."""
        rate_hz, names, samples = self.inference.rate_hz, [], 0
        for wave in sorted(self.checks.rows, key=len)[:count]:
            kept = to_int16(wave[: int(self.inference.chunk_s * rate_hz)])
            samples += len(kept)
            if names and samples > KEPT_S * rate_hz:
                break
            names.append(f"{ANSWERS}/{len(names)}.flac")
            (folder / names[-1]).write_bytes(encode_flac(kept, rate_hz))
        return names

    def measure_stability(self, folder: Path, manifest: Manifest, precision: str) -> Stability:
        """Transcripts of recordings alone and in batches."""
        waves = self.checks.rows[: self.settings.stability_rows]
        runtime = self.open_runtime(folder, precision)
        return measure_speech_stability(runtime, waves, seed=self.run.recipe.seed)

    @property
    def max_unstable(self) -> float:
        """The share of words that may depend on company."""
        return self.settings.max_unstable_words

    def _climb_torch(self, ladder: Ladder, name: str, model: Any, before: str) -> None:
        from finetune.tasks.speech.model import TorchFrames

        frames = TorchFrames(model)
        batched = run_many(list(self.checks.rows), self.inference, frames)
        edges = self._hear([edge.row for edge in self.checks.edges], self.inference, frames)
        ladder.climb(name, "float", self._decode(batched), before, edges=edges)

    def _hear(
        self, rows: Sequence[np.ndarray | bytes], settings: SpeechSettings, frames: Frames
    ) -> Heard:
        """Each row by itself: samples as a whole, a file in chunks where it is long."""
        return self._decode(
            [
                run_batch([row], settings, frames)[0]
                if isinstance(row, np.ndarray)
                else run_chunks(stream_audio(row, settings.rate_hz), settings, frames)
                for row in rows
            ]
        )

    def _decode(self, logits: list[np.ndarray]) -> Heard:
        texts = [decode_ids(one.argmax(axis=-1), self.inference) for one in logits]
        return Heard(texts, logits)


def run_chunks(
    blocks: Iterable[np.ndarray], settings: SpeechSettings, frames: Frames
) -> np.ndarray:
    """Logits (frames, labels) of one recording of any length, its chunks' frames joined."""
    parts = [
        run_batch([chunk.samples], settings, frames)[0][chunk.first : chunk.last]
        for chunk in cut_chunks(blocks, settings)
    ]
    return np.concatenate(parts)


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


def _copy_processor(source: Path, folder: Path) -> None:
    """The processor's files, read and written again by transformers."""
    from transformers import Wav2Vec2Processor

    from finetune.tasks.speech.model import save_processor

    processor = Wav2Vec2Processor.from_pretrained(
        source, local_files_only=True, trust_remote_code=False
    )
    save_processor(processor, folder)
