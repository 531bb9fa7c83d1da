"""Dynamic int8: weights quantised here, activations at run time, by ONNX Runtime.

Only the encoder's matrix products and fused attentions; never the head, and never the other
products on the [CLS] vector alone (BERT's pooler), which cost nothing and decide the label.
Embeddings (Gather) and convolutions stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.graph.files import external_data_needed, store_as_one_file
from export.graph.quiet import quiet_libraries
from export.graph.reading import float_nodes, in_head
from export.runtime.processor import InstructionSet, host_instruction_set
from finetune.core.errors import ModelError

OPERATORS = ("MatMul", "Attention")
INTEGER_OPERATORS = ("MatMulInteger", "QAttention", "DynamicQuantizeMatMul")


@dataclass(frozen=True)
class Quantization:
    """What was done to a graph: products in int8 and in float, and for which processor."""

    instruction_set: InstructionSet
    integer_nodes: int
    float_nodes: int


def quantize_dynamic(
    source: Path,
    target: Path,
    *,
    head_modules: tuple[str, ...],
    instruction_set: InstructionSet | None = None,
    keep_float: Sequence[str] = (),
) -> Quantization:
    """Write ``source`` in dynamic int8, per channel, to ``target`` and verify what it became.

    ``head_modules`` are the top-level modules that stay float, ``keep_float`` the names of
    further products that do. Raises ModelError where the result has no integer products, or
    has them in the head.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic

    chosen = instruction_set or host_instruction_set()
    with quiet_libraries(""):  # it asks for a pre-processing that fusion has done
        ort_quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            reduce_range=chosen.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*float_nodes(source, head_modules), *keep_float],
            use_external_data_format=external_data_needed(source),
            extra_options={"DefaultTensorType": 1},  # float; shapes end at a fused operator
        )
    store_as_one_file(target)
    integer, left = verify_quantized(target, head_modules)
    return Quantization(chosen, integer, left)


def verify_quantized(path: Path, head_modules: tuple[str, ...]) -> tuple[int, int]:
    """(integer products, products with float weights); raises ModelError on a wrong graph."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    types = {weights.name: weights.data_type for weights in graph.initializer}
    integer = [node for node in graph.node if node.op_type in INTEGER_OPERATORS]
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm", "Attention")]
    left = [node for node in products if any(name in types for name in node.input[1:2])]
    wrong = [node.name for node in integer if in_head(node.name, head_modules)]
    wrong += [node.name for node in integer if types.get(node.input[1]) != onnx.TensorProto.INT8]
    if not integer or wrong:
        raise ModelError(
            f"{path.name} is not the expected int8 graph",
            received=f"int8 in {', '.join(wrong)}" if wrong else "no int8 product",
            allowed="int8 weights in the encoder's products, float ones in the head",
        )
    return len(integer), len(left)
