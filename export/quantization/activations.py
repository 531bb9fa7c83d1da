"""How large a graph's activations become on calibration rows: which fit into float16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.graph.feeds import Feed
from export.graph.reading import load_graph

if TYPE_CHECKING:
    from onnx import ModelProto

FLOAT16_MAX = float(np.finfo(np.float16).max)  # 65504
HEADROOM = 4  # few calibration rows have not seen the largest activation there is


def largest_activations(source: Path, feeds: Sequence[Feed]) -> dict[str, float]:
    """Value → its largest magnitude over all ``feeds``, of every float32 value that is computed.

    Only two numbers of each value leave the graph, so that memory is that of a plain run. Values
    within subgraphs are not looked at, the outputs of those are. NaN counts as infinite.
    """
    import onnx
    import onnxruntime
    from onnx import helper

    model, names = load_graph(source, weights=False), list(_float_values(source))
    for name in names:
        for kind in ("ReduceMax", "ReduceMin"):
            watched = f"{name}_{kind}"
            model.graph.node.append(helper.make_node(kind, [name], [watched], keepdims=0))
            model.graph.output.append(onnx.ValueInfoProto(name=watched))
    beside = source.with_name(f"measured-{source.name}")
    onnx.save_model(model, str(beside))  # beside the source, whose external data it names
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(beside), options, providers=["CPUExecutionProvider"]
        )
    finally:
        beside.unlink()
    wanted = [f"{name}_{kind}" for name in names for kind in ("ReduceMax", "ReduceMin")]
    largest = np.zeros(len(names))
    for feed in feeds:
        found = np.abs(np.array(session.run(wanted, feed), dtype=np.float64)).reshape(-1, 2)
        largest = np.maximum(largest, np.nan_to_num(found, nan=np.inf, posinf=np.inf).max(axis=1))
    return dict(zip(names, largest.tolist(), strict=True))


def large_constants(model: ModelProto, limit: float) -> set[str]:
    """Names of stored float32 constants with a magnitude over ``limit``."""
    from onnx import TensorProto, numpy_helper

    return {
        weights.name
        for weights in model.graph.initializer
        if weights.data_type == TensorProto.FLOAT
        and np.abs(numpy_helper.to_array(weights)).max(initial=0) > limit
    }


def with_masked_tail(feed: Feed, pad_id: int) -> Feed:
    """The same with the last quarter of every row masked, as padding masks it.

    Masks put the lowest numbers there are into a graph; calibration batches have no padding.
    """
    if "attention_mask" not in feed:
        return feed
    kept = -(-3 * feed["attention_mask"].shape[1] // 4)
    changed = {name: values.copy() for name, values in feed.items()}
    for name, values in changed.items():
        values[:, kept:] = pad_id if name == "input_ids" else 0
    return changed


def _float_values(source: Path) -> Iterator[str]:
    """What nodes compute in float32, with types inferred beside the file, which may exceed 2 GB."""
    import tempfile

    import onnx

    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx") as typed:
        onnx.shape_inference.infer_shapes_path(str(source), typed.name)
        graph = load_graph(Path(typed.name), weights=False).graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.output)}
    for node in graph.node:
        for name in node.output:
            if types.get(name) == onnx.TensorProto.FLOAT and node.op_type != "Constant":
                yield name
