"""Models that are measured and not shipped: base-960h's size with random weights, int8 Conv."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.variants.speech import CONV
from export.artifact.folder import FP32_FILE
from export.artifact.manifest import Draft
from export.graph.files import model_bytes
from export.graph.quiet import quiet_libraries
from export.precisions import asked_files, keep_files
from export.quantization.calibration import read_feeds
from export.quantization.candidates import FILES
from export.quantization.workshop import Workshop
from export.runtime.manifest import SCHEMA, read_manifest
from export.runtime.processor import host_instruction_set
from export.tasks.speech import CONVOLUTIONS, HEAD
from finetune.core.files import read_json
from finetune.data.audio import AudioSource
from finetune.run_folder import open_run, read_rows
from finetune.tasks.registry import SPEECH
from finetune.tasks.speech.ctc import CHUNK_S, STRIDE_S, read_speech_settings

CHARACTERS = list("ETAONIHSRDLUMWCFGYPBVK'XJQZ")  # with five special tokens: vocabulary 32
OPSET = 17
CALIBRATION_ROWS = 16
CONV_FILE = "onnx/model_int8conv.onnx"
CALIBRATED_S = 5.0  # of each recording: weights drawn at random have no range worth hours
MANIFEST = {
    "name": "wav2vec2-base-random",
    "task": SPEECH,
    "method": "full",
    "status": "passed",
    "labels": [],
    "max_length": None,
    "pad_token_id": 0,
    "chunk_s": CHUNK_S,
    "stride_s": STRIDE_S,
}


def make_base_model(target: Path, run: Path, files: Sequence[str], seed: int = 0) -> dict[str, int]:
    """Write ``target``/model and ``target``/artifact: 768 wide, 12 layers, conv_dim 512 x 7.

    Those are the defaults of transformers' Wav2Vec2Config, which describe base-960h. ``files``
    are keys of an artifact's files, CONV among them for the ablation; the run's validation
    recordings calibrate them. Returns the bytes of "model" and of each file.
    """
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    from export.graph.to_onnx import export_speech_onnx
    from finetune.tasks.speech.model import make_processor

    folder, artifact = target / "model", target / "artifact"
    torch.manual_seed(seed)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=32, pad_token_id=0)).eval()
    model.save_pretrained(folder, safe_serialization=True)
    for place in (folder, artifact):
        make_processor(CHARACTERS, 16_000, place)
        Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(place)
    model.config.save_pretrained(artifact)
    export_speech_onnx(model, artifact / FP32_FILE, opset=OPSET)
    draft = Draft(artifact, dict(MANIFEST), {"fp32": {"path": FP32_FILE}})
    recordings = read_rows(open_run(run, verify=False), "validation")["audio"].tolist()
    _quantize_base(draft, files, recordings[:CALIBRATION_ROWS])
    draft.write()
    if CONV in files:
        add_convolutions(artifact)
    written = read_manifest(artifact).files
    sizes = {key: model_bytes(artifact / entry.path) for key, entry in written.items()}
    return {"model": (folder / "model.safetensors").stat().st_size, **sizes}


def add_convolutions(artifact: Path) -> int:
    """Add an artifact's fp32 graph with int8 convolutions to its folder; the graph's bytes."""
    content = read_json(artifact / "manifest.json", SCHEMA)
    facts = {key: value for key, value in content.items() if key not in ("schema", "files")}
    draft, graph = Draft(artifact, facts, content["files"]), artifact / CONV_FILE
    quantize_convolutions(artifact / draft.opened.files["fp32"].path, graph)
    draft.files[CONV] = {"path": CONV_FILE}
    draft.write()
    return model_bytes(graph)


def _quantize_base(
    draft: Draft,
    precisions: Sequence[str],
    recordings: Sequence[AudioSource],
) -> None:
    """Make the files beside fp32 with the export's own hands; there is nothing to balance."""
    settings = read_speech_settings(draft.folder, CALIBRATED_S, 0)
    names = {key: precision for precision, (key, _) in FILES.items()}
    workshop = Workshop(
        draft=draft,
        head_modules=HEAD,
        plain=draft.folder / FP32_FILE,
        make_feeds=partial(read_feeds, recordings, settings, ["input_values"]),
        run_file=_runs_nothing,
        smooth_alpha=0,
        device="cpu",
        float_types=CONVOLUTIONS,
    )
    wanted = [names[key] for key in precisions if key in names]
    made = asked_files(workshop, wanted, "minmax")
    keep_files(workshop, made, lambda precision, step: None, "onnx-fp32")


def _runs_nothing(precision: str, rows: Sequence[Any]) -> Any:
    """Random weights have no answers worth a check."""
    raise NotImplementedError(precision)


def quantize_convolutions(source: Path, target: Path) -> None:
    """Dynamic int8 on MatMul and Conv, as ONNX Runtime's documentation suggests; the head too."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic

    with quiet_libraries(""):  # it asks for a pre-processing that changes nothing here
        ort_quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Conv"],
            per_channel=False,  # ConvInteger takes one scale
            reduce_range=host_instruction_set().reduce_range,
            weight_type=QuantType.QUInt8,
            extra_options={"DefaultTensorType": 1},
        )
