"""The ONNX graph agrees with PyTorch, padded or not, and is named as clients expect."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from export.graph.merging import merge_adapter
from export.graph.to_onnx import export_onnx
from finetune.core.errors import ModelError
from finetune.models.loading import load_tokenizer
from finetune.run_folder import open_run, read_rows

KINDS = ("roberta", "bert")


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_agrees_with_pytorch_on_padded_and_unpadded_batches(make_run, tmp_path, kind):
    run = open_run(make_run("lora", kind))
    model = merge_adapter(run)
    graph = export_onnx(model, tmp_path / "model.onnx", opset=17)
    session = onnxruntime.InferenceSession(graph.path)
    tokenizer = load_tokenizer(run.folder / "model")
    texts = read_rows(run, "validation")["text"].tolist()[:24]
    batches = [texts, *([text] for text in texts)]
    for batch in batches:
        for padding in (True, "max_length"):
            encoded = tokenizer(
                batch,
                padding=padding,
                max_length=run.max_length,
                truncation=True,
                return_token_type_ids="token_type_ids" in graph.inputs,
                return_tensors="pt",
            )
            with torch.inference_mode():
                expected = model(**encoded).logits.numpy()
            feed = {name: encoded[name].numpy() for name in graph.inputs}
            np.testing.assert_allclose(session.run(["logits"], feed)[0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_names_axes_and_opset(make_run, tmp_path, kind):
    model = merge_adapter(open_run(make_run("lora", kind)))
    graph = export_onnx(model, tmp_path / "model.onnx", opset=18)
    segments = {"token_type_ids"} if kind == "bert" else set()
    assert set(graph.inputs) == {"input_ids", "attention_mask"} | segments
    assert graph.outputs == ("logits",)
    assert graph.opset == 18


def test_an_architecture_without_export_is_refused(tmp_path):
    from transformers import FNetConfig, FNetForSequenceClassification

    config = FNetConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, intermediate_size=8)
    with pytest.raises(ModelError, match=r"no ONNX export(.|\n)*fnet"):
        export_onnx(FNetForSequenceClassification(config), tmp_path / "model.onnx", opset=17)
