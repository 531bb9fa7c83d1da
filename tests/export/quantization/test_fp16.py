"""fp16 files hold in float16, where a CPU would compute them in float32 and see nothing."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.graph.reading import Weights, load_graph
from export.quantization.activations import largest_activations, with_masked_tail
from export.quantization.fp16 import convert_to_fp16, write_rounded

WIDE = 60_000.0  # what the inner activations are multiplied by


@pytest.fixture(scope="module")
def overflowing(make_workshop, tmp_path_factory):
    """The tiny model with feed-forward activations beyond float16, undone by the next product."""
    model = load_graph(make_workshop("roberta").plain)
    for node in model.graph.node:
        inner = "intermediate/dense" in node.name
        outer = node.name.endswith("/output/dense/MatMul") and "attention" not in node.name
        if node.op_type in ("MatMul", "Add") and (inner or outer):
            at = next(at for at, name in enumerate(node.input) if name in Weights(model.graph))
            values = Weights(model.graph).read(node.input[at]) * (1 / WIDE if outer else WIDE)
            new = numpy_helper.from_array(values.astype(np.float32), f"{node.name}_scaled")
            model.graph.initializer.append(new)
            node.input[at] = new.name
    path = tmp_path_factory.mktemp("fp16") / "overflowing.onnx"
    onnx.save_model(model, str(path))
    return path


def run(path, feed) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path)).run(["logits"], feed)[0]


def in_float16(path, feed) -> np.ndarray:
    """By onnx's reference evaluator, which keeps float16 values in float16."""
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(str(path)).run(["logits"], feed)[0]


@pytest.fixture(scope="module")
def feed(make_workshop):
    found = make_workshop("roberta").feeds[0]
    return {name: values[:2] for name, values in found.items()}


def test_what_overflows_stays_in_fp32(overflowing, make_workshop, feed, tmp_path):
    pad = make_workshop("roberta").draft.opened.pad_token_id
    facts = convert_to_fp16(
        overflowing, tmp_path / "half.onnx", make_workshop("roberta").feeds, pad_id=pad
    )
    assert facts["largest_activation"]["value"] > 65_504
    assert "intermediate" in facts["largest_activation"]["at"]
    assert any("intermediate/dense/MatMul" in name for name in facts["kept_in_fp32"])
    assert facts["half_nodes"] > 0
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)
    expected = run(overflowing, feed)
    for one in (feed, with_masked_tail(feed, pad)):
        expected = run(overflowing, one)
        np.testing.assert_allclose(in_float16(tmp_path / "half.onnx", one), expected, atol=0.02)


def test_a_cpu_does_not_see_the_overflow_and_the_rounded_graph_does(overflowing, feed, tmp_path):
    half, rounded = tmp_path / "half.onnx", tmp_path / "rounded.onnx"
    convert_to_fp16(overflowing, half, feeds=())  # nothing measured, nothing kept
    assert np.isfinite(run(half, feed)).all()
    assert not np.isfinite(in_float16(half, feed)).any()
    write_rounded(half, rounded)
    assert not np.isfinite(run(rounded, feed)).any()


def test_rounding_is_what_float16_does(make_workshop, feed, tmp_path):
    workshop = make_workshop("roberta")
    half, rounded = tmp_path / "half.onnx", tmp_path / "rounded.onnx"
    convert_to_fp16(workshop.plain, half, workshop.feeds)
    write_rounded(half, rounded)
    exact = run(workshop.plain, feed)
    near = np.abs(run(rounded, feed) - in_float16(half, feed)).max()
    assert near < np.abs(run(rounded, feed) - exact).max() * 2 + 1e-3
    assert np.abs(in_float16(half, feed) - exact).max() > 1e-6  # it was computed in float16


def test_every_value_is_measured_without_keeping_it(make_workshop):
    workshop = make_workshop("bert")
    found = largest_activations(workshop.plain, workshop.feeds[:1])
    model = load_graph(workshop.plain)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in list(found)[:30])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = list(found)[:30]
    for name, values in zip(names, session.run(names, workshop.feeds[0]), strict=True):
        assert found[name] == pytest.approx(float(np.abs(values).max()), rel=1e-4, abs=1e-4)


def test_squares_stay_in_fp32_between_operators_that_do(tmp_path):
    """RMSNorm written out: x², its mean and root are fp32, and so is what passes between them."""
    kind = TensorProto.FLOAT
    weights = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    constants = {"w": weights, "two": np.float32(2), "eps": np.float32(1e-6)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="in"),
            helper.make_node("Pow", ["h", "two"], ["square"], name="pow"),
            helper.make_node("ReduceMean", ["square"], ["mean"], name="mean", axes=[-1]),
            helper.make_node("Add", ["mean", "eps"], ["more"], name="more"),
            helper.make_node("Sqrt", ["more"], ["root"], name="root"),
            helper.make_node("Div", ["h", "root"], ["norm"], name="norm"),
            helper.make_node("MatMul", ["norm", "w"], ["logits"], name="out"),
        ],
        "norm",
        [helper.make_tensor_value_info("x", kind, ["n", 8])],
        [helper.make_tensor_value_info("logits", kind, ["n", 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    source, half = tmp_path / "norm.onnx", tmp_path / "half.onnx"
    onnx.save_model(model, str(source))
    feed = {"x": 800 * np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)}
    facts = convert_to_fp16(source, half, [feed])
    assert facts["half_nodes"] >= 1
    np.testing.assert_allclose(in_float16(half, feed), run(source, feed), atol=0.05)
