"""Balancing moves outliers from activations into weights and changes no answer."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from export.graph.reading import Weights, load_graph
from export.quantization.dynamic import InstructionSet
from export.quantization.smooth import channel_maxima, find_norms, smooth_graph
from export.quantization.static import quantize_static

HEAD = ("classifier",)
VNNI = InstructionSet("avx512_vnni", reduce_range=False)


@pytest.fixture
def outlier(make_workshop, tmp_path):
    """The tiny model with one channel 60 times as large before products that undo it."""
    model = load_graph(make_workshop("roberta").plain)
    scale = np.ones((64, 1), dtype=np.float32)
    scale[7] = 60
    for norm in find_norms(model.graph, HEAD):
        norm.node.input[1] = store(model, norm.node.input[1], scale[:, 0])
        for product in norm.products:
            product.input[1] = store(model, product.input[1], 1 / scale)
    onnx.save_model(model, str(tmp_path / "outlier.onnx"))
    return tmp_path / "outlier.onnx"


def store(model, name: str, factor: np.ndarray) -> str:
    values = Weights(model.graph).read(name) * factor
    new = f"{name}_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(values, new))
    return new


def watch(path, name: str, feeds) -> np.ndarray:
    """All values of an activation."""
    model = load_graph(path)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.concatenate([session.run([name], feed)[0].ravel() for feed in feeds])


def logits(path, feeds) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    return np.concatenate([session.run(["logits"], feed)[0] for feed in feeds])


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_every_norm_before_a_product_is_balanced_and_nothing_else_changes(
    make_workshop, tmp_path, kind
):
    workshop = make_workshop(kind)
    target = tmp_path / "smooth.onnx"
    count = smooth_graph(workshop.plain, target, workshop.feeds, head_modules=HEAD)
    assert count == 4  # of 2 layers the embeddings' and three within: the last feeds the head
    onnx.checker.check_model(str(target))
    before, after = logits(workshop.plain, workshop.feeds), logits(target, workshop.feeds)
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert target.stat().st_size < workshop.plain.stat().st_size * 1.2  # no weight is kept twice


def test_outliers_shrink_and_static_int8_gains_by_it(make_workshop, outlier, tmp_path):
    feeds = make_workshop("roberta").feeds
    balanced = tmp_path / "balanced.onnx"
    smooth_graph(outlier, balanced, feeds, head_modules=HEAD)
    np.testing.assert_allclose(logits(balanced, feeds), logits(outlier, feeds), atol=1e-4)
    assert worst_spread(balanced, feeds) < worst_spread(outlier, feeds) / 3
    name = "/roberta/encoder/layer.0/attention/self/query/MatMul_output_0"
    exact, lost = watch(outlier, name, feeds), []
    for source in (outlier, balanced):
        target = tmp_path / f"int8-{source.name}"
        quantize_static(
            source, target, feeds, calibration="minmax", head_modules=HEAD, instruction_set=VNNI
        )
        lost.append(np.abs(watch(target, name, feeds) - exact).mean())
    assert lost[1] < lost[0] / 4


def worst_spread(path, feeds) -> float:
    """Largest over median channel of the activations that are quantised, in the worst place."""
    graph = load_graph(path).graph
    names = [norm.node.output[0] for norm in find_norms(graph, HEAD)]
    found = channel_maxima(path, names, feeds).values()
    return max(float(maxima.max() / np.median(maxima)) for maxima in found)
