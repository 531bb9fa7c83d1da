"""Reading ONNX graphs: which products there are, what layer each belongs to, their weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

LAYER = re.compile(r"(?:layers?|block|h)[./](\d+)[./]")


class Weights:
    """The constants of a graph by name, stored or computed by a Constant node.

    Exporters share equal ones through chains of Identity nodes.
    """

    def __init__(self, graph: GraphProto) -> None:
        self._stored: dict[str, TensorProto | NodeProto] = {
            one.name: one for one in graph.initializer
        }
        self._alias: dict[str, str] = {}
        for node in graph.node:
            if node.op_type == "Identity":
                self._alias[node.output[0]] = node.input[0]
            elif node.op_type == "Constant":
                self._stored[node.output[0]] = node

    def __contains__(self, name: str) -> bool:
        return self.origin(name) in self._stored

    def read(self, name: str) -> np.ndarray:
        """The values; KeyError where ``name`` is computed from inputs."""
        from onnx import NodeProto, numpy_helper

        found = self._stored[self.origin(name)]
        return _constant(found) if isinstance(found, NodeProto) else numpy_helper.to_array(found)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape, without reading values that are stored outside the file; KeyError as above."""
        from onnx import NodeProto

        found = self._stored[self.origin(name)]
        return _constant(found).shape if isinstance(found, NodeProto) else tuple(found.dims)

    def origin(self, name: str) -> str:
        """The name under which a value was made, before any Identity."""
        while name in self._alias:
            name = self._alias[name]
        return name


def _constant(node: NodeProto) -> np.ndarray:
    """What a Constant node gives, in whichever of its attributes it is written."""
    from onnx import helper, numpy_helper

    attribute = node.attribute[0]
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    kind = np.float32 if "float" in attribute.name else np.int64
    return np.asarray(helper.get_attribute_value(attribute), dtype=kind)


def load_graph(path: Path, *, weights: bool = True) -> ModelProto:
    """The model of a file, with its external data unless ``weights`` is False."""
    import onnx

    return onnx.load(str(path), load_external_data=weights)


def drop_unused(graph: GraphProto) -> None:
    """Remove constants that no node reads any more."""
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    for weights in [one for one in graph.initializer if one.name not in read]:
        graph.initializer.remove(weights)


def product_nodes(graph: GraphProto, head_modules: tuple[str, ...]) -> list[NodeProto]:
    """Matrix products with constant weights outside the head, in the graph's order."""
    known = Weights(graph)
    return [
        node
        for node in graph.node
        if node.op_type in ("MatMul", "Attention")
        and node.input[1] in known
        and not in_head(node.name, head_modules)
    ]


def encoder_layers(path: Path, head_modules: tuple[str, ...]) -> dict[str, list[str]]:
    """Layer → names of its products, in order.

    A fused attention has lost its layer's name; it belongs to that of the next product.
    """
    layers: dict[str, list[str]] = {}
    nameless: list[str] = []
    for node in product_nodes(load_graph(path, weights=False).graph, head_modules):
        found = LAYER.search(node.name)
        if found is None:
            nameless.append(node.name)
            continue
        layers.setdefault(found[1], []).extend([*nameless, node.name])
        nameless = []
    for name in nameless:
        layers[name] = [name]
    return layers


def in_head(node_name: str, head_modules: tuple[str, ...]) -> bool:
    """Whether an exported node (``/classifier/dense/Gemm``) belongs to one of the modules."""
    return node_name.strip("/").split("/")[0] in head_modules


def float_nodes(path: Path, head_modules: tuple[str, ...]) -> list[str]:
    """Names of the products that stay float: every Gemm and all of the head.

    ONNX Runtime's quantiser rewrites a Gemm as ``<name>_MatMul`` before it looks at the list,
    so that both names are needed; with one of them the head is quantised without a word.
    """
    names = []
    for node in load_graph(path, weights=False).graph.node:
        if node.op_type == "Gemm" or in_head(node.name, head_modules):
            names += [node.name, f"{node.name}_MatMul"]
    return names
