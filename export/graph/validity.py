"""Every graph that is written is valid ONNX: sorted, typed, and of operators that are known.

ONNX Runtime forgives more than other readers do: its own quantisers and its fp16 converter append
nodes after those that read them (onnxruntime#14827).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

DOMAINS = ("", "ai.onnx", "com.microsoft")


def finish_graph(path: Path) -> None:
    """Sort the nodes of a file that was just written where they are not, then check it.

    Raises ModelError. External data stays as it is.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    if sort_nodes(model.graph):
        onnx.save_model(model, str(path))
    check_graph(path)


def check_graph(path: Path) -> None:
    """onnx.checker with strict inference of types and shapes; raises ModelError.

    onnx has no schemas of ONNX Runtime's own operators (com.microsoft) and passes over them; what
    reads their outputs is checked as far as types are known, and they themselves against ONNX
    Runtime's schemas when the ladder opens the file. Other domains are refused.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as fault:
        line = " ".join(str(fault).split())[:300]
        raise ModelError(f"{path.name} is no valid ONNX graph", received=line) from fault
    model = onnx.load(str(path), load_external_data=False)
    foreign = sorted({node.domain for node in model.graph.node} - set(DOMAINS))
    if foreign:
        raise ModelError(
            f"{path.name} has operators that no client knows",
            received=", ".join(foreign),
            allowed=", ".join(name or "ai.onnx" for name in DOMAINS),
        )


def sort_nodes(graph: GraphProto) -> bool:
    """Put each node behind those it reads, otherwise in the order they have; whether any moved.

    Raises ModelError where nodes wait for each other.
    """
    nodes = list(graph.node)
    made = {name for node in nodes for name in node.output}
    waiting = [(place, set(read_names(node)) & made) for place, node in enumerate(nodes)]
    known: set[str] = set()
    order: list[int] = []
    while waiting:
        left = []
        for place, needed in waiting:
            if needed <= known:
                order.append(place)
                known.update(nodes[place].output)
            else:
                left.append((place, needed))
        if len(left) == len(waiting):
            raise ModelError(
                "the graph's nodes wait for each other", received=nodes[left[0][0]].name
            )
        waiting = left
    if order == sorted(order):
        return False
    kept = [copy.deepcopy(nodes[place]) for place in order]
    del graph.node[:]
    graph.node.extend(kept)
    return True


def read_names(node: NodeProto) -> Iterator[str]:
    """What a node reads, also from within its subgraphs."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for inner in [attribute.g, *attribute.graphs]:
            for one in inner.node:
                yield from read_names(one)
