"""Weight-only int4 and int8 in blocks (MatMulNBits): small files, activations stay float."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.graph.files import external_data_needed, store_as_one_file
from export.graph.quiet import quiet_libraries
from export.graph.reading import float_nodes, load_graph, product_nodes
from finetune.core.errors import ModelError

BLOCKS = (32, 128)  # weights that share a scale: the usual size, and a faster one
INT8_COMPUTE = 4  # MatMulNBits' accuracy_level: products of int8 blocks, sums in float


def quantize_weights(
    source: Path,
    target: Path,
    *,
    bits: int,
    block: int = BLOCKS[0],
    head_modules: tuple[str, ...],
    keep_float: Sequence[str] = (),
) -> int:
    """Write ``source`` with ``bits``-bit weights (4 or 8) to ``target``; how many products.

    ``block`` weights share a scale and a zero point. Raises ModelError where there is no
    product to quantise.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = load_graph(source)
    wanted = {node.name for node in product_nodes(model.graph, head_modules)} - set(keep_float)
    kept = [node.name for node in model.graph.node if node.name not in wanted]
    with quiet_libraries("", "onnxruntime.quantization.matmul_nbits_quantizer"):
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=bits,
            block_size=block,
            is_symmetric=False,
            accuracy_level=INT8_COMPUTE,
            nodes_to_exclude=[*kept, *float_nodes(source, head_modules)],
        )
        quantizer.process()
    quantizer.model.save_model_to_file(str(target), external_data_needed(source))
    store_as_one_file(target)
    graph = load_graph(target, weights=False).graph
    count = sum(node.op_type == "MatMulNBits" for node in graph.node)
    if not count:
        raise ModelError(f"{target.name} has no {bits}-bit product", received=source.name)
    return count
