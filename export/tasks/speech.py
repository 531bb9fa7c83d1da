"""The story of a speech export: a run folder in, a checked artifact folder out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.artifact.folder import (
    Artifact,
    building_folder,
    check_target,
    failed_target,
    open_artifact,
    publish_artifact,
    write_draft,
    write_manifest,
)
from export.artifact.speech_card import write_speech_card
from export.checks.word_errors import (
    CheckRecordings,
    SpeechLadder,
    SpeechThresholds,
    choose_recordings,
)
from export.graph.files import model_bytes
from export.precisions import asked_files, check_precisions, keep_files
from export.quantization.calibration import CALIBRATED, calibration_recordings, read_feeds
from export.quantization.workshop import Workshop
from export.runtime.bundle import SPEECH as SPEECH_BUNDLE
from export.runtime.bundle import write_predict
from finetune.core.files import sha256_file
from finetune.core.provenance import collect_provenance
from finetune.data.audio import AudioSource
from finetune.recipes.kinds import SPEECH
from finetune.recipes.speech import SpeechExportSection
from finetune.run_folder import Run
from finetune.tasks.speech.ctc import SpeechSettings, run_batch, run_many

FP32_FILE = "onnx/model.onnx"
HEAD = ("lm_head",)
CONVOLUTIONS = ("Convolution", "GroupConvolution")  # in int8 they move the logits far more
PADDING = "onnx-fp32-padded"  # group norm only: what padding would do, which the runtime never does


def export_speech_run(
    run: Run,
    target: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Artifact:
    """Merge, export, quantise and check a speech run; publish ``target`` (artifacts/<run name>).

    Every stage is compared with the one before on validation recordings; when a limit is
    crossed, everything made is published as ``<target>.failed`` and GateError is raised.
    Raises KotuneError for what cannot be made here; then nothing is written.
    """
    from export.exporting import export_settings

    settings = export_settings(run.recipe, overrides)
    target = Path(target) if target is not None else Path("artifacts") / run.name
    check_target(target)
    check_target(failed_target(target))
    check_precisions(settings.precisions, settings.device)
    recordings = choose_recordings(run, settings.check_rows)
    calibrated = set(CALIBRATED) & set(settings.precisions or ())
    training = calibration_recordings(run, settings.calibration_rows) if calibrated else []
    with building_folder(target) as folder:
        ladder = _build(run, settings, recordings, training, folder, report)
        published = failed_target(target) if ladder.failures else target
        publish_artifact(folder, published)
    ladder.gate(kept=published)
    return open_artifact(published, verify=False)


def _build(
    run: Run,
    settings: SpeechExportSection,
    recordings: CheckRecordings,
    training: Sequence[AudioSource],
    folder: Path,
    report: Callable[[str], None],
) -> SpeechLadder:
    """Fill ``folder`` stage by stage; PyTorch's model is freed before the runtime's are loaded.

    ``training`` recordings calibrate.
    """
    from finetune.tasks.speech.model import run_settings

    thresholds = SpeechThresholds(settings.max_logit_difference, settings.max_wer_increase)
    ladder = SpeechLadder(recordings, run_settings(run), thresholds, report)
    ladder.start()
    facts = _export_merged(run, settings, ladder, folder)
    gc.collect()
    manifest = _describe(run, settings, facts)
    files = manifest["files"]

    files["fp32"] = {"path": FP32_FILE}
    _check_runtime(folder, manifest, ladder, "fp32", ("onnx-fp32", "float", "merged"))

    workshop = Workshop(
        folder=folder,
        manifest=manifest,
        head_modules=HEAD,
        plain=folder / FP32_FILE,
        make_feeds=partial(read_feeds, training, ladder.settings, manifest["inputs"]),
        smooth_alpha=settings.smooth_alpha,
        device=settings.device,
        float_types=CONVOLUTIONS,
    )

    def check(precision: str, step: tuple[str, Any, str]) -> None:
        _check_runtime(folder, manifest, ladder, precision, step, provider=settings.device)

    made = asked_files(workshop, settings.precisions, settings.calibration)
    keep_files(workshop, made, check, "onnx-fp32")
    for entry in files.values():
        entry["bytes"] = model_bytes(folder / entry["path"])
    manifest["status"] = "failed" if ladder.failures else "passed"
    manifest["ladder"] = [step.as_dict() for step in ladder.steps]
    write_predict(folder, SPEECH_BUNDLE)
    write_speech_card(folder, manifest)
    write_manifest(folder, manifest)
    return ladder


def _export_merged(
    run: Run, settings: SpeechExportSection, ladder: SpeechLadder, folder: Path
) -> dict[str, Any]:
    """Reload, merge, write fp32 ONNX, config and processor; PyTorch is done after this."""
    from export.graph.merging import check_finite
    from export.graph.speech_onnx import export_speech_onnx
    from finetune.tasks.speech.model import TorchFrames, load_trained_speech

    waves = list(ladder.recordings.waves)
    reloaded = TorchFrames(load_trained_speech(run))
    ladder.climb("reloaded", "float", run_many(waves, ladder.settings, reloaded), "training")
    model = load_trained_speech(run, merge=True)
    check_finite(model)
    merged = run_many(waves, ladder.settings, TorchFrames(model))
    ladder.climb("merged", "float", merged, "reloaded")
    model.config._name_or_path = ""
    model.config.save_pretrained(folder)
    _copy_processor(run.folder / "model", folder)
    graph = export_speech_onnx(model, folder / FP32_FILE, opset=settings.opset)
    return {"opset": graph.opset, "inputs": list(graph.inputs), "outputs": list(graph.outputs)}


def _copy_processor(source: Path, folder: Path) -> None:
    """The processor's files, read and written again by transformers."""
    from transformers import Wav2Vec2Processor

    Wav2Vec2Processor.from_pretrained(source, local_files_only=True).save_pretrained(folder)


def _check_runtime(
    folder: Path,
    manifest: dict[str, Any],
    ladder: SpeechLadder,
    precision: str,
    step: tuple[str, Any, str],
    provider: str = "cpu",
) -> None:
    """Climb one step with the shipped runtime; in fp32 also each recording alone, or padded."""
    from export.runtime.transcriber import OnnxTranscriber

    write_draft(folder, manifest)
    transcriber = OnnxTranscriber(folder, precision, provider=provider, verify=False)
    name, kind, before = step
    waves = list(ladder.recordings.waves)
    if precision != "fp32":
        alone = [_alone(wave, transcriber) for wave in waves]
        ladder.climb(name, kind, alone, before)
        return
    ladder.climb(name, kind, transcriber.logits(waves), before)
    if ladder.settings.masked:
        alone = [_alone(wave, transcriber) for wave in waves]
        ladder.climb(f"{name}-unpadded", kind, alone, before)
    else:
        padded = pad_all(waves, ladder.settings, transcriber.frames)
        ladder.climb(PADDING, "reported", padded, name)


def _alone(wave: np.ndarray, transcriber: Any) -> np.ndarray:
    return run_batch([wave], transcriber.settings, transcriber.frames)[0]


def pad_all(waves: list[np.ndarray], settings: SpeechSettings, frames: Any) -> list[np.ndarray]:
    """Logits of recordings padded in batches of eight, as transformers' processor would do."""
    order = sorted(range(len(waves)), key=lambda row: -len(waves[row]))
    result: list[Any] = [None] * len(waves)
    for start in range(0, len(order), 8):
        rows = order[start : start + 8]
        logits = run_batch([waves[row] for row in rows], settings, frames)
        for row, one in zip(rows, logits, strict=True):
            result[row] = one
    return result


def _describe(run: Run, settings: SpeechExportSection, facts: dict[str, Any]) -> dict[str, Any]:
    """The manifest so far: everything that is known before the graphs are checked."""
    return {
        "name": run.name,
        "task": SPEECH,
        "status": "building",
        "method": run.method,
        "parent": {"run": run.name, "run_sha256": sha256_file(run.folder / "run.json")},
        "base": run.base,
        "labels": list(run.labels),
        "max_length": None,
        "pad_token_id": run.labels.index("<pad>"),
        "sampling_rate_hz": run.info["sampling_rate_hz"],
        "chunk_s": settings.chunk_s,
        "stride_s": settings.stride_s,
        **facts,
        "files": {},
        "settings": settings.model_dump(mode="json"),
        "ladder": [],
        "provenance": collect_provenance(run.recipe.seed),
    }
