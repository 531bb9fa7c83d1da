"""fp16 for CUDA (and for browsers on WebGPU), with a list of operators that stay in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.graph.files import external_data_needed, save_graph, store_as_one_file
from finetune.core.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto

BLOCKED = (  # sums and exponentials over many values: 65504 is soon reached, small terms are lost
    "LayerNormalization",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "InstanceNormalization",  # group norm: a variance over all samples of a recording
    "ReduceMean",
    "ReduceSum",
    "Pow",
    "Sqrt",
    "Softmax",
    "Erf",
)


def convert_to_fp16(source: Path, target: Path) -> int:
    """Write ``source`` in fp16 but for BLOCKED to ``target``; how many products are in fp16.

    Inputs and logits keep their types. Raises ModelError where no product was converted.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = convert_float_to_float16(
        str(source),  # by name: shape inference in memory ends at 2 GB
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *BLOCKED],
    )
    _drop_repeated_casts(model.graph)
    half = {
        weights.name
        for weights in model.graph.initializer
        if weights.data_type == onnx.TensorProto.FLOAT16
    }
    count = sum(
        node.op_type in ("MatMul", "Gemm") and node.input[1] in half for node in model.graph.node
    )
    if not count:
        raise ModelError(f"{target.name} has no fp16 product", received=source.name)
    save_graph(model, target, external=external_data_needed(source))
    store_as_one_file(target)
    return count


def _drop_repeated_casts(graph: GraphProto) -> None:
    """The converter casts a value once for each reader, always under the same name: keep one."""
    made: set[str] = set()
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in made:
            continue
        made.update(node.output)
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
