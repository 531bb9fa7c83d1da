"""A merged PyTorch model as one fp32 ONNX graph of plain operators.

Through Optimum where it is installed and knows the architecture, else traced the same way
(export/graph/tracing.py).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.graph.quiet import quiet_libraries
from export.graph.tracing import speech_example, text_example, trace_onnx
from export.graph.validity import finish_graph
from finetune.checks.exportable import (
    KNOWN_INPUTS,
    REQUIRED_INPUTS,
    describe_with_optimum,
    graph_inputs,
)
from finetune.core.errors import ModelError
from finetune.core.libraries import has_optimum

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPEECH_TASK = "automatic-speech-recognition"


@dataclass(frozen=True)
class OnnxGraph:
    """An exported file and what a client must know of it."""

    path: Path
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def export_onnx(model: PreTrainedModel, path: Path, *, opset: int) -> OnnxGraph:
    """Write ``model`` to ``path`` with dynamic batch and sequence axes, then check the file.

    Over 2 GB the weights go to ``<name>_data`` beside it, which is protobuf's limit and
    Optimum's convention. Optimum's own validation is left out: it compares random token ids;
    the ladder (export/checks/accuracy.py) compares real rows. Raises ModelError where the
    architecture is not known or the graph is not the expected one.
    """
    inputs = graph_inputs(model.config)
    described = describe_with_optimum(model.config) if has_optimum() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    if described is None:
        trace_onnx(model, text_example(model, inputs), path, opset=opset)
    else:
        _export_with_optimum(model, described, path, opset)
    return check_onnx(path)


def _export_with_optimum(model: PreTrainedModel, described: Any, path: Path, opset: int) -> None:
    from optimum.exporters.onnx import export

    with quiet_libraries("optimum.exporters.onnx.convert"):  # constants in a trace, opset hints
        export(model, described, path, opset=opset)


def export_speech_onnx(model: PreTrainedModel, path: Path, *, opset: int) -> OnnxGraph:
    """Write ``model`` to ``path`` with dynamic batch and length, then check the file.

    The mask is an input where the feature encoder has layer norm: Optimum's own configuration
    exports ``input_values`` alone, which is right for group norm (base-960h is trained without a
    mask) and wrong for layer norm, whose padded batches need it. Raises ModelError where the
    graph is not the expected one.
    """
    masked = model.config.feat_extract_norm == "layer"
    path.parent.mkdir(parents=True, exist_ok=True)
    if has_optimum():
        _export_with_optimum(model, _speech_configuration(model, masked), path, opset)
    else:
        trace_onnx(model, speech_example(masked=masked), path, opset=opset)
    return check_speech_onnx(path, masked=masked)


def check_onnx(
    path: Path,
    required: Set[str] = REQUIRED_INPUTS,
    known: Set[str] = KNOWN_INPUTS,
) -> OnnxGraph:
    """Check the file and verify the graph's names and axes; raises ModelError."""
    import onnx

    finish_graph(path)
    model = onnx.load(str(path), load_external_data=False)
    inputs = {node.name: node for node in model.graph.input}
    outputs = tuple(node.name for node in model.graph.output)
    if not required <= inputs.keys() <= known or outputs != ("logits",):
        raise ModelError(
            f"{path.name} has unexpected inputs or outputs",
            received=f"{', '.join(inputs)} → {', '.join(outputs)}",
            allowed=f"{', '.join(sorted(known))} → logits",
        )
    for name, node in inputs.items():
        axes = [dimension.dim_param for dimension in node.type.tensor_type.shape.dim]
        if len(axes) != 2 or not all(axes):
            raise ModelError(f"{path.name}: input {name} is not dynamic in batch and length")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return OnnxGraph(path, opset, tuple(inputs), outputs)


def check_speech_onnx(path: Path, *, masked: bool) -> OnnxGraph:
    """Check the file and verify the graph's names and axes; raises ModelError."""
    wanted = {"input_values", "attention_mask"} if masked else {"input_values"}
    return check_onnx(path, wanted, wanted)


def _speech_configuration(model: PreTrainedModel, masked: bool) -> Any:
    """Optimum's configuration, with the mask as a second input where it is needed."""
    import torch
    from optimum.exporters.onnx.model_configs import Wav2Vec2OnnxConfig
    from optimum.utils import DummyAudioInputGenerator

    if not masked:
        return Wav2Vec2OnnxConfig(model.config, task=SPEECH_TASK)

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

    return MaskedConfig(model.config, task=SPEECH_TASK)
