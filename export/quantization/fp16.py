"""fp16 for CUDA (and for browsers on WebGPU), with what does not fit into it left in fp32.

Left in fp32 are operators that add up or exponentiate, and whatever reads or gives a value that
was beyond float16's range on calibration rows: a CPU computes an fp16 graph in fp32 between its
casts, and would never show the overflow (onnxruntime#26732).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.graph.feeds import Feed
from export.graph.files import external_data_needed, save_graph, store_as_one_file
from export.graph.reading import load_graph
from export.graph.validity import finish_graph, read_names, sort_nodes
from export.quantization.activations import (
    FLOAT16_MAX,
    HEADROOM,
    large_constants,
    largest_activations,
    with_masked_tail,
)
from finetune.core.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

BLOCKED = (  # sums and exponentials over many values: 65504 is soon reached, small terms are lost
    "LayerNormalization",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "InstanceNormalization",  # group norm: a variance over all samples of a recording
    "ReduceMean",
    "ReduceSum",
    "Pow",
    "Sqrt",
    "Softmax",
    "Erf",
)
PRODUCTS = ("MatMul", "Gemm", "Conv", "Gather", "LayerNormalization")
MASKED = 1e30  # beyond, a mask's stand-in for infinity


def convert_to_fp16(
    source: Path, target: Path, feeds: Sequence[Feed], *, pad_id: int = 0
) -> dict[str, Any]:
    """Write ``source`` in fp16, but for BLOCKED and what is too large, to ``target``.

    ``feeds`` are calibration batches without padding; padding with ``pad_id`` is tried too.
    Inputs and logits keep their types. Facts for the manifest: products in fp16, the largest
    activation, nodes kept in fp32 because of their values. Raises ModelError where no product
    could be converted.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    seen = largest_activations(source, feeds)
    masked = largest_activations(source, [with_masked_tail(feed, pad_id) for feed in feeds[:1]])
    limit = FLOAT16_MAX / HEADROOM
    model = _load_typed(source)
    large = {name for found in (seen, masked) for name, size in found.items() if size > limit}
    large |= large_constants(model, FLOAT16_MAX)
    kept = _touching(model.graph, large)
    exact = _feeding_integers(model.graph)
    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *BLOCKED],
        node_block_list=[*kept, *exact],
    )
    _join_casts(half.graph)
    sort_nodes(half.graph)
    save_graph(half, target, external=external_data_needed(source))
    store_as_one_file(target)
    finish_graph(target)
    finite = {name: size for name, size in seen.items() if size < MASKED}
    largest = max(finite.items(), key=lambda entry: entry[1], default=(None, 0.0))
    return {
        "half_nodes": _count_products(half.graph, target, source, len(kept)),
        "largest_activation": {"value": largest[1], "at": largest[0]},
        "float16_headroom": HEADROOM,
        "kept_in_fp32": kept,
    }


def write_rounded(source: Path, target: Path) -> None:
    """Write an fp16 file as an fp32 graph that rounds every value to float16 between operators.

    What overflows there is infinite here too, on any processor: operators themselves compute in
    fp32, as a GPU's do in their sums. ONNX Runtime keeps these pairs of casts at every level.
    """
    from onnx import TensorProto, helper, numpy_helper, shape_inference

    model = load_graph(source)
    typed = shape_inference.infer_shapes(load_graph(source, weights=False)).graph
    half = {
        one.name
        for one in (*typed.value_info, *typed.output)
        if one.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    graph = model.graph
    for weights in graph.initializer:
        if weights.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(weights).astype("float32")
            weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    rounded: list[NodeProto] = []
    for node in list(graph.node):
        _widen_attributes(node)
        rounded.append(node)
        for place, name in enumerate(node.output):
            if name in half:
                wide, narrow = f"{name}_wide", f"{name}_narrow"
                node.output[place] = wide
                rounded.append(helper.make_node("Cast", [wide], [narrow], to=TensorProto.FLOAT16))
                rounded.append(helper.make_node("Cast", [narrow], [name], to=TensorProto.FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(rounded)
    save_graph(model, target, external=2 * source.stat().st_size > 2**30)
    finish_graph(target)


def _widen_attributes(node: NodeProto) -> None:
    """A node's float16 constants, and the type it casts to, as float32."""
    from onnx import TensorProto, numpy_helper

    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.t.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(attribute.t).astype("float32")
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _load_typed(source: Path) -> ModelProto:
    """The model with the types of its values, and a name for each node."""
    import onnx

    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx") as typed:
        onnx.shape_inference.infer_shapes_path(str(source), typed.name)  # in memory ends at 2 GB
        model = load_graph(Path(typed.name))
    named = (*model.graph.input, *model.graph.value_info)
    types = {one.name: one.type.tensor_type.elem_type for one in named}
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
        if node.op_type == "Cast" and types.get(node.input[0]) == node.attribute[0].i:
            node.op_type = "Identity"  # ONNX Runtime fails on a cast from float16 to float16
            del node.attribute[:]
    return model


def _touching(graph: GraphProto, values: set[str]) -> list[str]:
    """Names of the nodes that give or read one of the ``values``, in the graph's order."""
    return [
        node.name for node in graph.node if not values.isdisjoint([*read_names(node), *node.output])
    ]


def _feeding_integers(graph: GraphProto) -> list[str]:
    """Names of the nodes that compute what is then cast to an integer, such as position buckets.

    One rounding more and it is another integer. Up to the first product: what a model makes of
    its activations is not exact anyway.
    """
    from onnx import TensorProto

    made = {name: node for node in graph.node for name in node.output}
    integers = (TensorProto.INT64, TensorProto.INT32)
    waiting = [
        node.input[0]
        for node in graph.node
        if node.op_type == "Cast" and node.attribute[0].i in integers
    ]
    found: dict[str, None] = {}
    while waiting:
        node = made.get(waiting.pop())
        if node is not None and node.op_type not in PRODUCTS and node.name not in found:
            found[node.name] = None
            waiting += node.input
    return list(found)


def _join_casts(graph: GraphProto) -> None:
    """Between two nodes in fp32 a value stays in fp32; of equal casts one stays.

    The converter casts a value once for each reader, always under the same name, and what leaves
    a node in fp32 to float16 even where the next one casts it back: there it would overflow.
    """
    from onnx import TensorProto

    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    outputs = {output.name for output in graph.output}
    wide = {one.name for one in graph.input if one.type.tensor_type.elem_type == TensorProto.FLOAT}
    wide |= {node.input[0] for node in casts.values() if node.input[0].endswith("_cast_to_fp16")}
    made: set[str] = set()
    same: dict[str, str] = {}  # what is read instead
    nodes = []
    for node in graph.node:
        if node.op_type == "Cast":
            if node.output[0] in made:
                continue
            before = casts.get(node.input[0])
            back = node.attribute[0].i == TensorProto.FLOAT and before is not None
            if back and before.attribute[0].i == TensorProto.FLOAT16:
                node.input[0] = before.input[0]
                if node.input[0] in wide and node.output[0] not in outputs:
                    same[node.output[0]] = node.input[0]
        made.update(node.output)
        nodes.append(node)
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    read = {name for node in nodes for name in read_names(node)} | outputs
    kept = [node for node in nodes if node.op_type != "Cast" or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(kept)


def _count_products(graph: GraphProto, target: Path, source: Path, kept: int) -> int:
    """Products with float16 weights; raises ModelError where there are none."""
    from onnx import TensorProto

    half = {one.name for one in graph.initializer if one.data_type == TensorProto.FLOAT16}
    count = sum(node.op_type in ("MatMul", "Gemm") and node.input[1] in half for node in graph.node)
    if not count:
        raise ModelError(
            f"{target.name} has no fp16 product",
            received=f"{source.name}, {kept} nodes with values over {FLOAT16_MAX / HEADROOM:g}",
            next_step="export.precisions without fp16",
        )
    return count
