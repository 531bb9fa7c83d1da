"""Others open the artifact too: Optimum with a transformers pipeline, plain onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from export.runtime import OnnxClassifier
from finetune.run_folder import open_run, read_rows


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("file", ["model.onnx", "model_quantized.onnx"])
def test_optimum_and_a_pipeline_give_the_same_labels(make_artifact, make_run, kind, file):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    folder = make_artifact("lora", kind)
    texts = read_rows(open_run(make_run("lora", kind)), "validation")["text"].tolist()[:32]
    model = ORTModelForSequenceClassification.from_pretrained(
        folder, subfolder="onnx", file_name=file
    )
    classify = pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    theirs = [classify(text, truncation=True)[0] for text in texts]
    ours = OnnxClassifier(folder, "fp32" if file == "model.onnx" else "int8")
    for text, expected in zip(texts, theirs, strict=True):
        (answer,) = ours(text)
        assert answer["label"] == expected["label"]
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_plain_onnxruntime(make_artifact):
    import onnxruntime
    from tokenizers import Tokenizer

    folder = make_artifact("lora", "roberta")
    encoded = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("정말 최고 영화")
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    ids = np.array([encoded.ids], dtype=np.int64)
    (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    expected = OnnxClassifier(folder, "fp32").logits(["정말 최고 영화"])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
