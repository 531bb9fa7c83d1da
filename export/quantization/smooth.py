"""SmoothQuant: move the activations' outliers into the weights, before static quantisation.

Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", equation 4. The scale is folded into the layer normalisation in front of the
products; what else reads the normalised values (the residual branch of a post-norm encoder such
as BERT) gets them multiplied back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.graph.feeds import Feed
from export.graph.files import external_data_needed, save_graph
from export.graph.reading import Weights, drop_unused, load_graph, product_nodes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

SMALLEST = 1e-5


@dataclass(frozen=True)
class Norm:
    """A layer normalisation and the products that read what it gives."""

    node: NodeProto
    products: tuple[NodeProto, ...]


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
    largest = channel_maxima(source, [norm.node.output[0] for norm in norms], feeds)
    known = Weights(model.graph)
    for norm in norms:
        seen = largest[norm.node.output[0]]
        _fold(model, norm, _scales(seen, known, norm.products, alpha), known)
    drop_unused(model.graph)
    save_graph(model, target, external=external_data_needed(source))
    return len(norms)


def find_norms(graph: GraphProto, head_modules: tuple[str, ...]) -> list[Norm]:
    """Normalisations with a constant scale that feed at least one encoder product."""
    known = Weights(graph)
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in product_nodes(graph, head_modules):
        if node.op_type == "MatMul":
            readers[node.input[0]].append(node)
    return [
        Norm(node, tuple(readers[node.output[0]]))
        for node in graph.node
        if node.op_type == "LayerNormalization"
        and readers[node.output[0]]
        and node.input[1] in known
    ]


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
    graph, node = model.graph, norm.node
    for position, values in enumerate(node.input[1:3], start=1):
        node.input[position] = _store(
            graph, f"{node.name}_smooth_{position}", known.read(values) / scales
        )
    for product in norm.products:
        weights = known.read(product.input[1]) * scales[:, None]
        product.input[1] = _store(graph, f"{product.name}_smooth", weights)
    _multiply_back(graph, norm, scales)


def _multiply_back(graph: GraphProto, norm: Norm, scales: np.ndarray) -> None:
    from onnx import helper

    name = norm.node.output[0]
    smoothed = {product.name for product in norm.products}
    others = [node for node in graph.node if name in node.input and node.name not in smoothed]
    if not others:
        return
    restored = f"{name}_restored"
    multiply = helper.make_node(
        "Mul",
        [name, _store(graph, f"{norm.node.name}_scales", scales)],
        [restored],
        name=f"{norm.node.name}_restore",
    )
    for node in others:
        for position, value in enumerate(node.input):
            if value == name:
                node.input[position] = restored
    graph.node.insert(list(graph.node).index(norm.node) + 1, multiply)


def _store(graph: GraphProto, name: str, values: np.ndarray) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return name
