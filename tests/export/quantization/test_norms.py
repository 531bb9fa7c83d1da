"""Balancing reads normalisations as any exporter writes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from export.quantization.dynamic import host_instruction_set
from export.quantization.smooth import find_norms, smooth_graph
from export.quantization.static import quantize_static

WIDTH = 16


def node(kind: str, inputs: str, output: str, **attributes) -> NodeProto:
    domain = attributes.pop("domain", "")
    return helper.make_node(
        kind,
        inputs.split(),
        [output],
        name=f"/encoder/layer.0/{output}",
        domain=domain,
        **attributes,
    )


def constant(name: str, values: np.ndarray) -> NodeProto:
    return node("Constant", "", name, value=numpy_helper.from_array(values, name))


ZEROS = np.zeros(WIDTH, dtype=np.float32)
RMS = [
    node("Pow", "x two", "square"),
    node("ReduceMean", "square", "mean", axes=[-1]),
    node("Add", "mean eps", "more"),
    node("Sqrt", "more", "root"),
    node("Div", "x root", "unit"),
]
WAYS: dict[str, Callable[[], list[NodeProto]]] = {
    "plain": lambda: [node("LayerNormalization", "x scale shift", "h")],
    "no-bias": lambda: [node("LayerNormalization", "x scale", "h")],
    "constant-for-bias": lambda: [
        constant("none", ZEROS),
        node("LayerNormalization", "x scale none", "h"),
    ],
    "constant-for-scale": lambda: [
        constant("two_each", ZEROS + 2),
        node("LayerNormalization", "x two_each shift", "h"),
    ],
    "shared-through-identities": lambda: [
        node("Identity", "scale", "same"),
        node("Identity", "same", "same_again"),
        node("LayerNormalization", "x same_again shift", "h"),
    ],
    "identity-behind": lambda: [
        node("LayerNormalization", "x scale shift", "before"),
        node("Identity", "before", "between"),
        node("Identity", "between", "h"),
    ],
    "rms": lambda: [node("SimplifiedLayerNormalization", "x scale", "h", epsilon=1e-6)],
    "rms-written-out": lambda: [*RMS, node("Mul", "scale unit", "h")],
    "written-out-with-bias": lambda: [
        *RMS,
        node("Mul", "unit scale", "scaled"),
        node("Add", "scaled shift", "h"),
    ],
}


def graph_of(norm: list[NodeProto], rest: list[NodeProto] | None = None) -> GraphProto:
    """x → norm → h → two products, and a residual that reads h too."""
    draw = np.random.default_rng(3)
    size = (WIDTH, WIDTH)
    values = {
        "scale": draw.uniform(0.5, 2, WIDTH) * np.where(np.arange(WIDTH) == 7, 60, 1),
        "shift": draw.standard_normal(WIDTH),
        "one": draw.standard_normal(size) / np.where(np.arange(WIDTH) == 7, 60, 1)[:, None],
        "other": draw.standard_normal(size),
        "two": 2,
        "eps": 1e-6,
    }
    rest = rest or [
        node("MatMul", "h one", "a"),
        node("MatMul", "h other", "b"),
        node("Add", "a b", "c"),
        node("Add", "c h", "logits"),
    ]
    kind = TensorProto.FLOAT
    return helper.make_graph(
        [*norm, *rest],
        "norms",
        [helper.make_tensor_value_info("x", kind, ["batch", "length", WIDTH])],
        [helper.make_tensor_value_info("logits", kind, ["batch", "length", WIDTH])],
        [numpy_helper.from_array(np.asarray(v, dtype=np.float32), k) for k, v in values.items()],
    )


def save(graph: GraphProto, path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def run(path, feeds) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    return np.concatenate([session.run(["logits"], feed)[0] for feed in feeds])


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(4)
    return [{"x": draw.standard_normal((2, 5, WIDTH)).astype(np.float32)} for _ in range(3)]


@pytest.mark.parametrize("way", WAYS)
def test_a_norm_is_balanced_however_it_is_written(tmp_path, feeds, way):
    source, target = tmp_path / "source.onnx", tmp_path / "balanced.onnx"
    save(graph_of(WAYS[way]()), source)
    assert smooth_graph(source, target, feeds, head_modules=()) == 1
    if way != "rms":  # ONNX Runtime's own, in a domain where onnx does not know it
        onnx.checker.check_model(str(target), full_check=True)
    np.testing.assert_allclose(run(target, feeds), run(source, feeds), rtol=1e-4, atol=1e-3)
    scales = onnx.load(str(target)).graph.initializer
    assert any(one.name.endswith("_smooth_0") for one in scales)
    int8 = tmp_path / "int8.onnx"
    made = quantize_static(
        target, int8, feeds, calibration="minmax", head_modules=(),
        instruction_set=host_instruction_set(),
    )  # fmt: skip
    assert made.integer_nodes == 2


def test_a_constant_that_two_norms_share_is_changed_for_one(tmp_path, feeds):
    norm = [
        node("LayerNormalization", "x scale shift", "h"),
        node("LayerNormalization", "x scale shift", "kept"),
    ]
    rest = [node("MatMul", "h one", "a"), node("Add", "a kept", "logits")]
    source, target = tmp_path / "source.onnx", tmp_path / "balanced.onnx"
    save(graph_of(norm, rest), source)
    assert smooth_graph(source, target, feeds, head_modules=()) == 1
    np.testing.assert_allclose(run(target, feeds), run(source, feeds), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("norm", "rest"),
    [
        ([node("LayerNormalization", "x scale x_mean", "h")], None),  # a bias that is computed
        (  # what the graph gives
            [node("LayerNormalization", "x scale shift", "logits")],
            [node("MatMul", "logits one", "a")],
        ),
        (  # weights that another layer shares
            [node("LayerNormalization", "x scale shift", "h")],
            [node("MatMul", "h one", "a"), node("MatMul", "a one", "logits")],
        ),
        ([node("Relu", "x", "h")], None),
    ],
    ids=["computed", "output", "shared", "none"],
)  # fmt: skip
def test_what_cannot_be_balanced_is_left_as_it_is(tmp_path, feeds, norm, rest):
    before = [
        node("ReduceMean", "x", "means", axes=[0, 1], keepdims=0),
        node("Mul", "means eps", "x_mean"),
    ]
    graph = graph_of([*before, *norm], rest)
    assert find_norms(graph, ()) == []
    save(graph, tmp_path / "source.onnx")
    assert (
        smooth_graph(tmp_path / "source.onnx", tmp_path / "same.onnx", feeds, head_modules=()) == 0
    )
    expected = run(tmp_path / "source.onnx", feeds)
    np.testing.assert_array_equal(run(tmp_path / "same.onnx", feeds), expected)


def test_modernbert_gets_a_balanced_static_file(tmp_path):
    """Its norms have no bias; the exporter writes a Constant node in its place."""
    import torch
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    from export.graph.feeds import make_feed
    from export.graph.to_onnx import export_onnx

    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, local_attention=8, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        cls_token_id=2, sep_token_id=3, reference_compile=False,
    )  # fmt: skip
    model = ModernBertForSequenceClassification(config).eval()
    plain, balanced = tmp_path / "plain.onnx", tmp_path / "balanced.onnx"
    export_onnx(model, plain, opset=17)
    rows = np.random.default_rng(0).integers(5, 60, size=(8, 12)).tolist()
    feeds = [make_feed(rows, ["input_ids", "attention_mask"], pad_id=0)]
    assert smooth_graph(plain, balanced, feeds, head_modules=("head", "classifier")) >= 3
    np.testing.assert_allclose(run(balanced, feeds), run(plain, feeds), atol=1e-5)
    made = quantize_static(
        balanced, tmp_path / "int8.onnx", feeds, calibration="minmax",
        head_modules=("head", "classifier"), instruction_set=host_instruction_set(),
    )  # fmt: skip
    assert made.integer_nodes == 8
    onnx.checker.check_model(str(tmp_path / "int8.onnx"), full_check=True)
