"""A PyTorch wav2vec2 as one fp32 ONNX graph through Optimum, its attention mask included.

Optimum's own configuration exports ``input_values`` alone, which is right for group norm
(base-960h is trained without a mask) and wrong for layer norm, whose padded batches need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.graph.quiet import quiet_libraries
from export.graph.to_onnx import OnnxGraph, check_onnx

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TASK = "automatic-speech-recognition"


def export_speech_onnx(model: PreTrainedModel, path: Path, *, opset: int) -> OnnxGraph:
    """Write ``model`` to ``path`` with dynamic batch and length, then check the file.

    The mask is an input where the feature encoder has layer norm. Raises ModelError where the
    graph is not the expected one.
    """
    from optimum.exporters.onnx import export

    masked = model.config.feat_extract_norm == "layer"
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet_libraries("optimum.exporters.onnx.convert"):  # constants in a trace, opset hints
        export(model, _configuration(model, masked), path, opset=opset)
    return check_speech_onnx(path, masked=masked)


def check_speech_onnx(path: Path, *, masked: bool) -> OnnxGraph:
    """Run onnx.checker and verify the graph's names and axes; raises ModelError."""
    wanted = {"input_values", "attention_mask"} if masked else {"input_values"}
    return check_onnx(path, wanted, wanted)


def _configuration(model: PreTrainedModel, masked: bool) -> Any:
    """Optimum's configuration, with the mask as a second input where it is needed."""
    import torch
    from optimum.exporters.onnx.model_configs import Wav2Vec2OnnxConfig
    from optimum.utils import DummyAudioInputGenerator

    if not masked:
        return Wav2Vec2OnnxConfig(model.config, task=TASK)

    class MaskedAudio(DummyAudioInputGenerator):
        SUPPORTED_INPUT_NAMES = ("input_values", "attention_mask")

        def generate(
            self,
            input_name: str,
            framework: str = "pt",
            int_dtype: str = "int64",
            float_dtype: str = "fp32",
        ) -> Any:
            if input_name == "input_values":
                return super().generate(input_name, framework, int_dtype, float_dtype)
            return torch.ones(self.batch_size, self.sequence_length, dtype=torch.int64)

    class MaskedConfig(Wav2Vec2OnnxConfig):
        DUMMY_INPUT_GENERATOR_CLASSES = (MaskedAudio,)

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            axes = {0: "batch_size", 1: "sequence_length"}
            return {"input_values": axes, "attention_mask": axes}

    return MaskedConfig(model.config, task=TASK)
