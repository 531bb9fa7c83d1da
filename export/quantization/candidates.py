"""What can be made of an exported graph: names, files, and how each is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.checks.ladder import Kind
from export.graph.embeddings import quantize_embeddings
from export.graph.reading import encoder_layers
from export.graph.validity import finish_graph
from export.quantization.dynamic import quantize_dynamic
from export.quantization.fp16 import convert_to_fp16
from export.quantization.openvino import (
    WEIGHT_BITS,
    convert_to_openvino,
    openvino_refusal,
    quantize_openvino,
)
from export.quantization.static import CALIBRATIONS, quantize_static
from export.quantization.weight_only import BLOCKS, quantize_weights
from export.quantization.workshop import Workshop
from finetune.core.errors import ModelError
from finetune.core.plugins import Registry, blame

GROUP = "kotune.quantizations"


@dataclass(frozen=True)
class Quantization:
    """A precision that a plugin adds: its file is ``onnx/model_NAME.onnx``.

    ``build`` writes it to a path from the workshop's graphs (``plain``, ``fused``) and gives facts
    for the manifest. Where ``quantized``, its answers may move as the recipe's limits allow;
    else they are held to those of a float file. ``refuse`` says why it cannot be made for a
    device, ``cpu`` or ``cuda``; None where it can.
    """

    build: Callable[[Workshop, Path], dict[str, Any]]
    quantized: bool = True
    arithmetic: str = "fp32"  # of its float parts
    refuse: Callable[[str], str | None] = lambda device: None


QUANTIZATIONS: Registry[Quantization] = Registry(GROUP, {}, Quantization)
# precision of the recipe → key in the manifest, file; the suffixes are transformers.js's
FILES = {
    "fp32": ("fp32", "onnx/model.onnx"),
    "int8-dynamic": ("int8", "onnx/model_quantized.onnx"),
    "int8-static": ("int8-static", "onnx/model_int8.onnx"),
    "int8-weight": ("int8-weight", "onnx/model_uint8.onnx"),
    "int4": ("int4", "onnx/model_q4.onnx"),
    "fp16": ("fp16", "onnx/model_fp16.onnx"),
    "openvino-fp32": ("openvino-fp32", "openvino/openvino_model.xml"),
    "openvino-bf16": ("openvino-bf16", "openvino/openvino_model_bf16.xml"),
    "openvino-int8": ("openvino-int8", "openvino/openvino_model_qint8_quantized.xml"),
    **{name: (name, f"onnx/model_{name}.onnx") for name in QUANTIZATIONS},
}
QUANTIZED = ("int8-dynamic", "int8-static", "int8-weight", "int4", "openvino-int8")
HALF = ("fp16", "openvino-bf16")
MIXABLE = QUANTIZED
ARITHMETIC = {"fp16": "fp16", "openvino-bf16": "bf16"}  # of float parts; else fp32


@dataclass(frozen=True)
class Candidate:
    """One way to make a file; ``graph`` is "fused" or "plain", ``float_layers`` stay float."""

    precision: str
    graph: str = "plain"
    calibration: str | None = None
    balanced: bool = False
    float_layers: tuple[str, ...] = ()
    int8_embeddings: bool = False
    block: int = BLOCKS[0]

    @property
    def name(self) -> str:
        """Such as ``int8-static-entropy-balanced``."""
        parts = [self.precision]
        if self.precision == "int8-dynamic":
            parts.append(self.graph)
        parts += [self.calibration] if self.calibration else []
        parts += ["balanced"] if self.balanced else []
        parts += [f"block{self.block}"] if self.block != BLOCKS[0] else []
        parts += [f"float{len(self.float_layers)}"] if self.float_layers else []
        parts += ["embeddings"] if self.int8_embeddings else []
        return "-".join(parts)


def kind_of(precision: str) -> Kind:
    """What a file's step in the ladder is: may it move logits ("quantized"), or not ("float")."""
    moves = precision in HALF or is_quantized(precision)
    return "quantized" if moves else "float"


def is_quantized(precision: str) -> bool:
    """Whether a file's weights or products are integers, so that company may move its answers."""
    if precision in QUANTIZATIONS:
        return QUANTIZATIONS[precision].quantized
    return precision in QUANTIZED


def refusal(precision: str, device: str) -> str | None:
    """Why a precision cannot be made or run for ``device`` on this machine; None where it can."""
    if precision in QUANTIZATIONS:
        with blame(GROUP, precision):
            return QUANTIZATIONS[precision].refuse(device)
    if device == "cuda":
        import onnxruntime

        if precision.startswith(("int8-dynamic", "int8-static")):
            return "its integer operators have no CUDA kernels; fp16 is CUDA's fast precision"
        if precision.startswith("openvino"):
            return "OpenVINO does not run on CUDA"
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "this onnxruntime has no CUDAExecutionProvider: pip install onnxruntime-gpu"
        return None
    return openvino_refusal(precision) if precision.startswith("openvino") else None


def default_candidate(precision: str, workshop: Workshop, calibration: str) -> Candidate:
    """The candidate made where a precision is asked for by name."""
    embeddings = workshop.int8_embeddings and not precision.startswith("openvino")
    if precision == "int8-dynamic":
        graph = "plain" if workshop.fused is None else "fused"
        return Candidate(precision, graph=graph, int8_embeddings=embeddings)
    if precision == "int8-static":
        return Candidate(
            precision,
            calibration=calibration,
            balanced=workshop.balances,
            int8_embeddings=embeddings,
        )
    quantized = precision in QUANTIZED
    return Candidate(precision, int8_embeddings=embeddings and quantized)


def search_candidates(precision: str, workshop: Workshop) -> list[Candidate]:
    """All candidates of a precision that a search tries, without mixed ones."""
    if precision == "int8-dynamic":
        graphs = ("plain",) if workshop.fused is None else ("fused", "plain")
        return [Candidate(precision, graph=graph) for graph in graphs]
    if precision == "int8-static":
        return [
            Candidate(precision, calibration=calibration, balanced=balanced)
            for balanced in ((False, True) if workshop.balances else (False,))
            for calibration in CALIBRATIONS
        ]
    if precision in ("int4", "int8-weight"):
        return [Candidate(precision, block=block) for block in BLOCKS]
    return [Candidate(precision)]


def candidate_layers(candidate: Candidate, workshop: Workshop) -> dict[str, list[str]]:
    """Layer → names of the products a candidate quantises."""
    return encoder_layers(_source(candidate, workshop), workshop.head_modules)


def build_candidate(candidate: Candidate, workshop: Workshop, target: Path) -> dict[str, Any]:
    """Write the candidate's file to ``target``; facts of it for the manifest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        **_build(candidate, workshop, target),
        "arithmetic": _arithmetic_of(candidate.precision),
    }
    if candidate.float_layers:
        facts["float_layers"] = list(candidate.float_layers)
    if candidate.int8_embeddings and candidate.graph == "fused":
        facts["int8_embeddings"] = workshop.fused_int8_embeddings[1]
    elif candidate.int8_embeddings:
        facts["int8_embeddings"] = quantize_embeddings(target, target)
    if target.suffix == ".onnx":
        finish_graph(target)
    return facts


def _arithmetic_of(precision: str) -> str:
    if precision in QUANTIZATIONS:
        return QUANTIZATIONS[precision].arithmetic
    return ARITHMETIC.get(precision, "fp32")


def _build(candidate: Candidate, workshop: Workshop, target: Path) -> dict[str, Any]:
    source, head = _source(candidate, workshop), workshop.head_modules
    keep: list[str] = []
    if candidate.float_layers:
        layers = candidate_layers(candidate, workshop)
        keep = [name for layer in candidate.float_layers for name in layers[layer]]
    if candidate.precision in QUANTIZATIONS:
        with blame(GROUP, candidate.precision):
            return dict(QUANTIZATIONS[candidate.precision].build(workshop, target) or {})
    match candidate.precision:
        case "int8-dynamic":
            made = quantize_dynamic(source, target, head_modules=head, keep_float=keep)
            return {"quantization": "dynamic", "graph": candidate.graph, **asdict(made)}
        case "int8-static":
            made = quantize_static(
                source,
                target,
                workshop.feeds,
                calibration=candidate.calibration,
                head_modules=head,
                instruction_set=workshop.instruction_set,
                keep_float=keep,
            )
            how = {"calibration": candidate.calibration, "balanced": candidate.balanced}
            return {"quantization": "static", **how, **asdict(made)}
        case "int4" | "int8-weight":
            bits, block = 4 if candidate.precision == "int4" else 8, candidate.block
            count = quantize_weights(
                source, target, bits=bits, block=block, head_modules=head, keep_float=keep
            )
            how = {"bits": bits, "block": block}
            return {"quantization": "weight-only", **how, "integer_nodes": count}
        case "fp16":
            pad_id = workshop.draft.opened.pad_token_id
            return convert_to_fp16(source, target, workshop.feeds, pad_id=pad_id)
        case "openvino-fp32" | "openvino-bf16":
            kind = candidate.precision.removeprefix("openvino-")
            return {
                "runtime": "openvino",
                "products": convert_to_openvino(source, target, precision=kind),
            }
        case "openvino-int8":
            count = quantize_openvino(
                source,
                target,
                workshop.feeds,
                head_modules=head,
                keep_float=keep,
                float_types=workshop.float_types,
            )
            how = {"quantization": "static", "weight_bits": WEIGHT_BITS}
            return {"runtime": "openvino", **how, "integer_constants": count}
    raise ModelError("there is no such precision", received=candidate.precision)


def _source(candidate: Candidate, workshop: Workshop) -> Path:
    if candidate.balanced:
        return workshop.balanced
    if candidate.graph == "fused":
        return workshop.fused_int8_embeddings[0] if candidate.int8_embeddings else workshop.fused
    return workshop.plain
