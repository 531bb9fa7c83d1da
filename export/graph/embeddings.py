"""Embedding tables in int8, one scale a row: a tenth of a large encoder's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.graph.files import external_data_needed, save_graph, store_as_one_file
from export.graph.reading import drop_unused, load_graph

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

SMALLEST_TABLE_BYTES = 2**16  # below, the two operators more are not worth it


def quantize_embeddings(source: Path, target: Path, *, smallest: int = SMALLEST_TABLE_BYTES) -> int:
    """Write ``source`` with its embedding tables in int8 to ``target``; how many were read.

    ``Gather(table, ids)`` becomes ``Cast(Gather(int8, ids)) * Gather(scales, ids)``: plain
    operators, symmetric, so that every client runs them. 0 means that there is no such table
    and nothing was written.
    """
    import onnx

    model = load_graph(source)
    stored = {weights.name: weights for weights in model.graph.initializer}
    gathers = [node for node in model.graph.node if _is_table(node, stored, smallest)]
    for name in dict.fromkeys(node.input[0] for node in gathers):  # one table may be read twice
        _store_rows(model.graph, name, onnx.numpy_helper.to_array(stored[name]))
    for node in gathers:
        _replace(model.graph, node)
    if not gathers:
        return 0
    drop_unused(model.graph)
    external = external_data_needed(source)  # before ``target``, which may be ``source``, is new
    save_graph(model, target, external=external)
    store_as_one_file(target)
    return len(gathers)


def count_tables(path: Path, *, smallest: int = SMALLEST_TABLE_BYTES) -> int:
    """How many embedding tables of a graph are worth being quantised."""
    graph = load_graph(path, weights=False).graph
    stored = {weights.name: weights for weights in graph.initializer}
    return sum(_is_table(node, stored, smallest) for node in graph.node)


def _is_table(node: NodeProto, stored: dict, smallest: int) -> bool:
    import onnx

    table = stored.get(node.input[0]) if node.op_type == "Gather" else None
    axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
    if table is None or axis != 0 or len(table.dims) != 2:
        return False
    return table.data_type == onnx.TensorProto.FLOAT and np.prod(table.dims) * 4 >= smallest


def _store_rows(graph: GraphProto, name: str, table: np.ndarray) -> None:
    """Add a table's int8 rows and their scales."""
    from onnx import numpy_helper

    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    rows = np.rint(table / scales).astype(np.int8)
    graph.initializer.extend(
        [
            numpy_helper.from_array(rows, f"{name}_int8"),
            numpy_helper.from_array(scales.astype(np.float32), f"{name}_scale"),
        ]
    )


def _replace(graph: GraphProto, node: NodeProto) -> None:
    from onnx import TensorProto, helper

    name, ids, result = node.input[0], node.input[1], node.output[0]
    cast, kind = f"{result}_cast", TensorProto.FLOAT
    made = [
        helper.make_node("Gather", [f"{name}_int8", ids], [f"{result}_int8"], f"{node.name}_int8"),
        helper.make_node("Gather", [f"{name}_scale", ids], [f"{result}_scale"], f"{node.name}_s"),
        helper.make_node("Cast", [f"{result}_int8"], [cast], f"{node.name}_c", to=kind),
        helper.make_node("Mul", [cast, f"{result}_scale"], [result], f"{node.name}_scaled"),
    ]
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, one in enumerate(made):
        graph.node.insert(place + offset, one)
