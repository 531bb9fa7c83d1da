"""facebook/wav2vec2-base-960h's exact architecture with random weights, for speed and size."""

from __future__ import annotations

from pathlib import Path

from export.artifact_folder import write_draft
from export.candidates import FILES
from export.processor import host_instruction_set
from export.quantize import quantize_dynamic
from export.quiet import quiet_libraries
from export.speech import FP32_FILE, HEAD
from finetune.ctc import CHUNK_S, STRIDE_S
from finetune.tasks import SPEECH

INT8_FILE = FILES["int8-dynamic"][1]
CHARACTERS = list("ETAONIHSRDLUMWCFGYPBVK'XJQZ")  # with five special tokens: vocabulary 32
OPSET = 17


def make_base_model(scratch: Path, seed: int = 0) -> tuple[Path, Path]:
    """(model folder, artifact folder): 768 wide, 12 layers, conv_dim 512 x 7, vocabulary 32.

    Those are the defaults of transformers' Wav2Vec2Config, which describe base-960h.
    """
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    from export.speech_onnx import export_speech_onnx
    from finetune.speech_model import make_processor

    folder, artifact = scratch / "base-model", scratch / "base-artifact"
    torch.manual_seed(seed)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=32, pad_token_id=0)).eval()
    model.save_pretrained(folder, safe_serialization=True)
    for place in (folder, artifact):
        make_processor(CHARACTERS, 16_000, place)
        Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(place)
    model.config.save_pretrained(artifact)
    export_speech_onnx(model, artifact / FP32_FILE, opset=OPSET)
    quantize_dynamic(artifact / FP32_FILE, artifact / INT8_FILE, head_modules=HEAD)
    write_draft(
        artifact,
        {
            "name": "wav2vec2-base-random",
            "task": SPEECH,
            "method": "full",
            "status": "passed",
            "labels": [],
            "max_length": None,
            "pad_token_id": 0,
            "chunk_s": CHUNK_S,
            "stride_s": STRIDE_S,
            "files": {"fp32": {"path": FP32_FILE}, "int8": {"path": INT8_FILE}},
        },
    )
    return folder, artifact


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
