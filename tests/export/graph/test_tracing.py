"""The export without Optimum gives the same graph as with it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from architectures import FAMILIES, make_classifier

from export.graph.fusion import fuse_graph
from export.graph.to_onnx import check_onnx, export_onnx
from export.graph.tracing import plainly_traced, text_example, trace_onnx, write_in_one
from finetune.checks.exportable import describe_with_optimum, graph_inputs
from finetune.core.libraries import has_optimum

OFTEN = ("bert", "modernbert", "xlm-roberta")  # the others take their time


def answers(path, model) -> np.ndarray:
    """Logits of padded batches of three lengths, one beyond what was traced."""
    session = onnxruntime.InferenceSession(str(path))
    names, found = {one.name for one in session.get_inputs()}, []
    for rows, length, padding in ((1, 5, 0), (3, 40, 7), (2, 60, 1)):
        ids = torch.arange(rows * length).reshape(rows, length) % 90 + 5
        mask = torch.ones_like(ids)
        mask[1:, length - padding :] = 0
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        feed = {name: value for name, value in feed.items() if name in names}
        with torch.inference_mode():
            expected = model(**feed).logits.numpy()
        found.append(session.run(None, {name: value.numpy() for name, value in feed.items()})[0])
        np.testing.assert_allclose(found[-1], expected, atol=1e-5)
    return np.concatenate(found)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OFTEN else pytest.mark.slow)
        for name, family in FAMILIES.items()
        if family.exported
    ],
)
def test_both_routes_write_the_same_model(name: str, tmp_path) -> None:
    model = make_classifier(name)
    inputs = graph_inputs(model.config)
    traced, shipped = tmp_path / "traced.onnx", tmp_path / "shipped.onnx"
    before = model.config._attn_implementation
    trace_onnx(model, text_example(model, inputs), traced, opset=17)
    assert model.config._attn_implementation == before and "forward" not in vars(model)
    graph = check_onnx(traced)
    assert set(graph.inputs) == set(inputs) and graph.opset == 17
    export_onnx(model, shipped, opset=17)
    np.testing.assert_allclose(answers(traced, model), answers(shipped, model), atol=1e-5)
    assert fused(traced, model) == fused(shipped, model) == FAMILIES[name].fused


@pytest.mark.skipif(not has_optimum(), reason="needs optimum-onnx, which needs transformers 4.57")
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "eurobert"])
def test_inputs_are_named_as_optimum_names_them(name: str, monkeypatch) -> None:
    monkeypatch.setattr("finetune.checks.exportable.has_optimum", lambda: False)
    config = make_classifier(name).config
    assert set(graph_inputs(config)) == set(describe_with_optimum(config).inputs)


def test_attention_is_eager_while_traced(tmp_path) -> None:
    model = make_classifier("bert").train()
    with plainly_traced(model):
        assert not model.training
        assert list(model(torch.ones(1, 4, dtype=torch.int64))) == ["logits"]
    assert model.training and len(model(torch.ones(1, 4, dtype=torch.int64))) == 1


def test_weights_beside_the_graph_come_into_one_file(tmp_path) -> None:
    """As TorchScript leaves a model beyond 2 GB: a file for each weight."""
    model = make_classifier("bert")
    whole, several = tmp_path / "whole.onnx", tmp_path / "several"
    several.mkdir()
    trace_onnx(model, text_example(model, graph_inputs(model.config)), whole, opset=17)
    onnx.save_model(
        onnx.load(str(whole)),
        str(several / "model.onnx"),
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    path = tmp_path / "model.onnx"
    write_in_one(several / "model.onnx", path, (2, 3), {0: "batch_size"})
    assert {one.name for one in tmp_path.iterdir() if "model" in one.name} == {
        "model.onnx",
        "model.onnx_data",
    }
    np.testing.assert_array_equal(answers(path, model), answers(whole, model))


def fused(path, model) -> int:
    """Fused attentions; 0 where the patterns raise."""
    try:
        return fuse_graph(
            path,
            path.with_suffix(".fused.onnx"),
            heads=model.config.num_attention_heads,
            hidden_size=model.config.hidden_size,
        )
    except Exception:  # the library's patterns raise whatever they meet
        return 0
