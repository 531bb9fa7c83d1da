"""Every graph that is written is valid ONNX, whatever made it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.validity import check_graph, finish_graph
from export.quantization.candidates import FILES, Candidate, build_candidate, default_candidate
from finetune.core.errors import ModelError

ONNX_FILES = [name for name, (_, path) in FILES.items() if path.endswith(".onnx")]


def chain(order: list[int], domain: str = "") -> onnx.ModelProto:
    """x → Relu → Neg → Abs → y with its nodes in this order."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Neg", ["a"], ["b"], name="second", domain=domain),
        helper.make_node("Abs", ["b"], ["y"], name="third"),
    ]
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        [nodes[place] for place in order],
        "chain",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    opsets = [helper.make_opsetid(name, 17) for name in {"", domain}]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_nodes_out_of_order_are_sorted_and_nothing_else_moves(tmp_path):
    path = tmp_path / "graph.onnx"
    onnx.save_model(chain([2, 0, 1]), str(path))
    with pytest.raises(ModelError, match=r"graph.onnx is no valid ONNX.*\n.*topologically"):
        check_graph(path)
    finish_graph(path)
    assert [node.name for node in onnx.load(str(path)).graph.node] == ["first", "second", "third"]
    before = path.read_bytes()
    finish_graph(path)
    assert path.read_bytes() == before


def test_types_that_do_not_fit_and_unknown_operators_are_refused(tmp_path):
    path = tmp_path / "graph.onnx"
    model = chain([0, 1, 2])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save_model(model, str(path))
    with pytest.raises(ModelError, match="no valid ONNX"):
        check_graph(path)
    onnx.save_model(chain([0, 1, 2], "org.example"), str(path))
    with pytest.raises(ModelError, match=r"no client knows\n.*org.example"):
        check_graph(path)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("precision", ONNX_FILES[1:])
def test_every_precision_is_valid(make_workshop, tmp_path, kind, precision):
    workshop = make_workshop(kind)
    candidate = default_candidate(precision, workshop, "minmax")
    made = [candidate, replace(candidate, int8_embeddings=precision != "fp16")]
    if precision == "int8-static":
        made.append(replace(candidate, balanced=False, float_layers=("0",)))
    for number, one in enumerate(made):
        target = tmp_path / f"{number}.onnx"
        build_candidate(one, workshop, target)
        onnx.checker.check_model(str(target), full_check=True)
    onnx.checker.check_model(str(workshop.plain), full_check=True)
    onnx.checker.check_model(str(workshop.fused), full_check=True)


def test_speech_files_are_valid(tones_artifact):
    for path in sorted((tones_artifact / "onnx").glob("*.onnx")):
        onnx.checker.check_model(str(path), full_check=True)


def test_a_table_that_is_read_twice_is_stored_once(tmp_path):
    from export.graph.embeddings import quantize_embeddings

    table = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["one"], name="one"),
            helper.make_node("Gather", ["table", "ids"], ["two"], name="two"),
            helper.make_node("Add", ["one", "two"], ["y"], name="sum"),
        ],
        "tables",
        [ids],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "tables.onnx"
    onnx.save_model(model, str(path))
    assert quantize_embeddings(path, path, smallest=1) == 2
    check_graph(path)


def test_a_quantiser_that_leaves_nodes_out_of_order_is_mended(make_workshop, tmp_path, monkeypatch):
    """As ONNX Runtime's do on DeBERTa."""
    from export.quantization import candidates

    def shuffled(source, target, **options):
        made = candidates_quantize(source, target, **options)
        model = onnx.load(str(target))
        nodes = list(model.graph.node)[::-1]
        copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copied)
        onnx.save_model(model, str(target))
        return made

    candidates_quantize = candidates.quantize_dynamic
    monkeypatch.setattr(candidates, "quantize_dynamic", shuffled)
    target = tmp_path / "int8.onnx"
    build_candidate(Candidate("int8-dynamic"), make_workshop("roberta"), target)
    onnx.checker.check_model(str(target), full_check=True)
