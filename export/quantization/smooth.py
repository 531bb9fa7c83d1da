"""SmoothQuant: move the activations' outliers into the weights, before static quantisation.

Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", equation 4. The scale is folded into the layer normalisation in front of the
products; what else reads the normalised values (the residual branch of a post-norm encoder such
as BERT) gets them multiplied back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.graph.feeds import Feed
from export.graph.files import external_data_needed, save_graph
from export.graph.reading import Weights, drop_unused, load_graph, product_nodes
from export.graph.validity import read_names

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

SMALLEST = 1e-5


# operator → its inputs that scale and shift each channel; all but the first may be missing
AFFINE_INPUTS = {
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),  # opset 23
    "SimplifiedLayerNormalization": (1,),  # RMSNorm as ONNX Runtime has it
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2,),
}


@dataclass(frozen=True)
class Norm:
    """What scales each channel with constants, and the products that read what it gives.

    ``node`` gives the values. ``affine`` are the (node, input) with constants that are linear in
    them, to be divided by a scale. One operator, or its last steps written out: ``x * weight``
    (RMSNorm), ``x * weight + bias`` (layer normalisation before opset 17).
    """

    node: NodeProto
    products: tuple[NodeProto, ...]
    affine: tuple[tuple[NodeProto, int], ...]


def smooth_graph(
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    *,
    head_modules: tuple[str, ...],
    alpha: float = 0.5,
) -> int:
    """Write ``source`` balanced to ``target``; how many normalisations took up a scale.

    The graph computes the same: only where outliers sit has changed. ``feeds`` are calibration
    batches without padding.
    """
    model = load_graph(source)
    norms = find_norms(model.graph, head_modules)
    if not norms:
        save_graph(model, target, external=external_data_needed(source))
        return 0
    largest = channel_maxima(source, [norm.node.output[0] for norm in norms], feeds)
    known = Weights(model.graph)
    for norm in norms:
        seen = largest[norm.node.output[0]]
        _fold(model, norm, _scales(seen, known, norm.products, alpha), known)
    drop_unused(model.graph)
    save_graph(model, target, external=external_data_needed(source))
    return len(norms)


def find_norms(graph: GraphProto, head_modules: tuple[str, ...]) -> list[Norm]:
    """Normalisations with constants of their own that feed at least one encoder product.

    Left as they are: those that a graph's output or a subgraph reads, and those whose products
    share their weights with others (ALBERT's layers), which would each need a copy.
    """
    known = Weights(graph)
    products: dict[str, list[NodeProto]] = defaultdict(list)
    for node in product_nodes(graph, head_modules):
        if node.op_type == "MatMul" and len(known.shape(node.input[1])) == 2:
            products[known.origin(node.input[0])].append(node)
    made = {name: node for node in graph.node for name in node.output}
    readers = Counter(
        known.origin(name)
        for node in graph.node
        if node.op_type != "Identity"
        for name in node.input
    )
    fixed = {known.origin(output.name) for output in graph.output} | _read_inside(graph, known)
    found = []
    for name, fed in products.items():
        affine = _affine_inputs(made.get(name), made, known, readers)
        channels = {known.shape(node.input[1])[0] for node in fed}
        weights = Counter(known.origin(node.input[1]) for node in fed)
        if (
            affine
            and name not in fixed
            and all({_channels(known.shape(node.input[at]))} == channels for node, at in affine)
            and all(readers[one] == count for one, count in weights.items())
        ):
            found.append(Norm(made[name], tuple(fed), affine))
    return found


def _affine_inputs(
    node: NodeProto | None, made: dict[str, NodeProto], known: Weights, readers: Counter[str]
) -> tuple[tuple[NodeProto, int], ...]:
    """(node, input) of the constants that scale and shift what ``node`` gives; () for none."""
    if node is None:
        return ()
    if node.op_type in AFFINE_INPUTS:
        given = [
            at for at in AFFINE_INPUTS[node.op_type] if at < len(node.input) and node.input[at]
        ]
        whole = node.output[0] and all(node.input[at] in known for at in given)
        return tuple((node, at) for at in given) if whole and given else ()
    constant = [at for at, name in enumerate(node.input) if name in known]
    if node.op_type == "Mul" and len(constant) == 1:
        return ((node, constant[0]),)
    if node.op_type == "Add" and len(constant) == 1:
        before = known.origin(node.input[1 - constant[0]])
        scaled = made.get(before)
        if scaled is not None and scaled.op_type == "Mul" and readers[before] == 1:
            rest = _affine_inputs(scaled, made, known, readers)
            return (*rest, (node, constant[0])) if rest else ()
    return ()


def _channels(shape: tuple[int, ...]) -> int:
    """How many channels a constant scales along the last axis; 0 where it does anything else."""
    return shape[-1] if shape and int(np.prod(shape)) == shape[-1] else 0


def _read_inside(graph: GraphProto, known: Weights) -> set[str]:
    """What subgraphs read."""
    inner = [
        one
        for node in graph.node
        for attribute in node.attribute
        for subgraph in [attribute.g, *attribute.graphs]
        for one in subgraph.node
    ]
    return {known.origin(name) for node in inner for name in read_names(node)}


def channel_maxima(source: Path, names: Sequence[str], feeds: Sequence[Feed]) -> dict:
    """Largest absolute value of each channel of the named activations over all ``feeds``."""
    import onnx
    import onnxruntime

    model = load_graph(source, weights=False)
    for name in names:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    watched = source.with_name(f"watched-{source.name}")
    onnx.save_model(model, str(watched))  # beside the source, whose external data it names
    session = onnxruntime.InferenceSession(str(watched), providers=["CPUExecutionProvider"])
    largest: dict[str, np.ndarray] = {}
    for feed in feeds:
        for name, values in zip(names, session.run(list(names), feed), strict=True):
            found = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, found), found)
    watched.unlink()
    return largest


def _scales(
    seen: np.ndarray, known: Weights, products: Sequence[NodeProto], alpha: float
) -> np.ndarray:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), one for each input channel j."""
    rows = [np.abs(known.read(node.input[1])).max(axis=1) for node in products]
    weights = np.maximum(np.max(rows, axis=0), SMALLEST)
    scales = np.maximum(seen, SMALLEST) ** alpha / weights ** (1 - alpha)
    return np.maximum(scales, SMALLEST).astype(np.float32)


def _fold(model: ModelProto, norm: Norm, scales: np.ndarray, known: Weights) -> None:
    """Divide the normalisation by ``scales``, multiply its products' rows and other readers."""
    graph, name = model.graph, norm.node.output[0]
    for number, (node, at) in enumerate(norm.affine):
        values = known.read(node.input[at])
        node.input[at] = _store(graph, f"{name}_smooth_{number}", values / scales)
    for product in norm.products:
        weights = known.read(product.input[1]) * scales[:, None]
        product.input[1] = _store(graph, f"{product.output[0]}_smooth", weights)
    _multiply_back(graph, norm, scales, known)


def _multiply_back(graph: GraphProto, norm: Norm, scales: np.ndarray, known: Weights) -> None:
    from onnx import helper

    name = norm.node.output[0]
    smoothed = {product.output[0] for product in norm.products}
    others = [
        (node, position)
        for node in graph.node
        if node.op_type != "Identity" and node.output[0] not in smoothed
        for position, value in enumerate(node.input)
        if known.origin(value) == name
    ]
    if not others:
        return
    restored = f"{name}_restored"
    multiply = helper.make_node(
        "Mul", [name, _store(graph, f"{name}_scales", scales)], [restored], name=f"{name}_restore"
    )
    for node, position in others:
        node.input[position] = restored
    made = next(place for place, node in enumerate(graph.node) if name in node.output)
    graph.node.insert(made + 1, multiply)


def _store(graph: GraphProto, name: str, values: np.ndarray) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return name
