"""The fused graph: attention, GELU and skip-normalisation each as one ONNX Runtime operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.graph.validity import finish_graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto
    from onnxruntime.transformers.onnx_model import OnnxModel

LARGE_BYTES = 2**20  # fusion reads constants and biases, which are smaller


def fuse_graph(source: Path, target: Path, *, heads: int, hidden_size: int) -> int:
    """Write ``source`` with fused operators to ``target``; the number of fused attentions.

    Large weights go to ``<target>_data`` beside it. The raw two-dimensional mask is kept: ONNX
    Runtime's default for BERT reduces the mask to row lengths and so demands right padding
    (fusion_options.AttentionMaskFormat). 0 means that the patterns did not match this
    architecture and ``target`` is not worth keeping. The library's patterns raise whatever they
    meet, such as a constant of an unexpected shape: the caller goes on with the plain graph.
    """
    import onnx

    try:
        model = _fuse(_load_lightly(source, target, hidden_size), heads, hidden_size)
    except onnx.checker.ValidationError:  # it read a weight that was left on disk
        model = _fuse(onnx.load(str(source)), heads, hidden_size)
    model.save_model_to_file(str(target))
    finish_graph(target)
    return int(model.get_fused_operator_statistics()["Attention"])


def _fuse(model: ModelProto, heads: int, hidden_size: int) -> OnnxModel:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    options.use_raw_attention_mask(True)
    return optimize_model(
        model,
        model_type="bert",
        num_heads=heads,
        hidden_size=hidden_size,
        optimization_options=options,
        opt_level=0,  # a session that folds constants first finds the same patterns
    )


def _load_lightly(source: Path, target: Path, hidden_size: int) -> ModelProto:
    """The graph with only those large weights in memory that fusion reads.

    Fusion rewrites the list of weights many times, and protobuf frees nothing before the end:
    with all of them, klue/roberta-large takes 8 GiB.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor

    beside = target.with_name(f"{target.name}_data")
    beside.unlink(missing_ok=True)  # onnx would append to it
    onnx.save_model(
        onnx.load(str(source)),
        str(target),
        save_as_external_data=True,
        location=beside.name,
        size_threshold=LARGE_BYTES,
    )
    model = onnx.load(str(target), load_external_data=False)
    for weights in _read_by_fusion(model.graph, hidden_size):
        if weights.external_data:
            load_external_data_for_tensor(weights, str(target.parent))
            weights.data_location = onnx.TensorProto.DEFAULT
            del weights.external_data[:]
    return model


def _read_by_fusion(graph: GraphProto, hidden_size: int) -> list[TensorProto]:
    """The square matrices; the embedding tables too where BERT's three are fused into one."""
    tables: set[str] = set()
    if any(node.name == "token_type_ids" for node in graph.input):
        tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    square = [hidden_size, hidden_size]
    return [
        weights
        for weights in graph.initializer
        if list(weights.dims) == square or weights.name in tables
    ]
