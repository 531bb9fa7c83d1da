"""What a worker runs in speech: one loader per runtime, each importing its own libraries.

Every engine takes the path of a file and gives its text, so that decoding, resampling and cutting
are inside what is timed, for all runtimes alike.
"""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engines.engine import Engine

MODEL = "finetune.tasks.speech.model"
LIBRARIES = {
    "pytorch": (MODEL, "finetune.run_folder", "transformers.models.wav2vec2.modeling_wav2vec2"),
    "merged": (MODEL, "finetune.run_folder", "transformers.models.wav2vec2.modeling_wav2vec2"),
    "onnx": ("export.runtime.transcriber",),
    "openvino": ("export.runtime.transcriber", "openvino"),
}
TORCH_RUNTIMES = ("pytorch", "merged")
PROCESSOR = ("preprocessor_config.json", "tokenizer_config.json", "vocab.json")


def import_libraries(variant: dict[str, Any], threads: int) -> None:
    """Import what the variant will need, so that load time is loading; fix torch's threads."""
    for name in LIBRARIES[variant["runtime"]]:
        importlib.import_module(name)
    if variant["runtime"] in TORCH_RUNTIMES:
        import torch

        torch.set_num_threads(threads)


def load_engine(variant: dict[str, Any], threads: int) -> Engine:
    """The engine of a variant as ``variants.contenders.Variant.as_job`` describes it."""
    loaders = {"pytorch": _load_pytorch, "merged": _load_merged}
    frames, settings = loaders.get(variant["runtime"], _load_exported)(variant, threads)
    from finetune.tasks.speech.transcription import transcribe_sources

    def answer(file: str) -> str:
        return next(transcribe_sources([file], settings, frames))

    def answer_many(files: Sequence[str], batch_tokens: int | None) -> list[str]:
        return [answer(file) for file in files]  # alone: int8's answers depend on their company

    return Engine(answer, answer_many)


def _load_exported(variant: dict[str, Any], threads: int) -> tuple[Any, Any]:
    from export.runtime.transcriber import OnnxTranscriber

    runtime = OnnxTranscriber(
        variant["folder"],
        variant["file"],
        threads=threads,
        verify=False,  # the benchmark has done so before it started its workers
        allow_failed=True,  # measured all the same; the report says that it failed
    )
    return runtime.frames, runtime.settings


def _load_pytorch(variant: dict[str, Any], threads: int) -> tuple[Any, Any]:
    """The run as it was trained; a model folder without a run is one of random weights."""
    from finetune.run_folder import open_run
    from finetune.tasks.speech.model import TorchFrames, load_trained_speech, run_settings

    if variant["run"] is None:
        return _load_merged(variant, threads)
    run = open_run(variant["folder"], verify=False)
    model = load_trained_speech(run, merge=False)
    return TorchFrames(model, variant["device"], variant["precision"]), run_settings(run)


def _load_merged(variant: dict[str, Any], threads: int) -> tuple[Any, Any]:
    """A whole model in one folder, cut into chunks as the run it comes from says."""
    from finetune.models.source import resolve_base
    from finetune.run_folder import open_run
    from finetune.tasks.speech.ctc import CHUNK_S, STRIDE_S
    from finetune.tasks.speech.model import TorchFrames, load_wav2vec2, read_model_settings

    cut = (CHUNK_S, STRIDE_S)
    if variant["run"] is not None:
        info = open_run(variant["run"], verify=False).info
        cut = (info.chunk_s, info.stride_s)
    base = resolve_base(variant["folder"])
    frames = TorchFrames(load_wav2vec2(base), variant["device"], variant["precision"])
    return frames, read_model_settings(base, *cut)


def write_merged(source: Path, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Merge a run's adapter, save model and processor; seconds, and bytes of the weights."""
    from bench.engines.prepare import weights_bytes
    from finetune.run_folder import open_run
    from finetune.tasks.speech.model import load_trained_speech

    run = open_run(source, verify=False)
    began = time.perf_counter()
    model = load_trained_speech(run, merge=True)
    seconds = time.perf_counter() - began
    model.save_pretrained(target, safe_serialization=True)
    for name in PROCESSOR:
        shutil.copyfile(run.folder / "model" / name, target / name)
    return {"seconds": seconds, "size_bytes": weights_bytes(target)}


def write_base(source: Path, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    """base-960h's architecture with random weights and its exported files; bytes of each.

    ``source`` is a run, whose validation recordings calibrate what is to be calibrated.
    """
    from bench.engines.speech_base import make_base_model

    return {"size_bytes": make_base_model(target, source, options["files"])}


def write_convolutions(source: Path, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    """An artifact's fp32 graph with convolutions in dynamic int8 as well; bytes of the graph."""
    from bench.engines.speech_base import add_convolutions

    shutil.copytree(source, target)
    return {"size_bytes": add_convolutions(target)}


MAKERS = {"merge": write_merged, "base": write_base, "convolutions": write_convolutions}
