"""What of the GPU variants runs on a CPU: float16 graphs, names, TF32's switch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bench.engines.cuda import fix_tf32, torch_dtype
from bench.engines.prepare import prepare_variants
from bench.engines.text import write_half
from bench.tasks.text import TextTask
from bench.variants.contenders import choose_variants, find_contenders
from bench.variants.cuda import onnx_precisions
from bench.variants.text import list_variants
from export.runtime.classifier import OnnxClassifier

TEXTS = ["정말 재미있다 최고", "지루하다 실망 영화", "감동 추천 명작 영화 배우", "최악 별로"]


def test_a_float16_graph_is_half_the_size_and_gives_the_classes(
    make_artifact, tmp_path: Path
) -> None:
    artifact = make_artifact("lora", "roberta")
    made = write_half(artifact, tmp_path, {})
    whole = (artifact / "onnx" / "model.onnx").stat().st_size
    assert 0.4 * whole < made["size_bytes"] < 0.7 * whole
    half = OnnxClassifier(tmp_path, "fp16", threads=1, verify=False).logits(TEXTS)
    single = OnnxClassifier(artifact, "fp32", threads=1).logits(TEXTS)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - single).max() < 0.05
    np.testing.assert_array_equal(half.argmax(axis=1), single.argmax(axis=1))


def test_a_gpu_adds_its_variants(make_run, make_artifact) -> None:
    folders = [make_run("full", "roberta"), make_artifact("lora", "roberta")]
    found = [
        one.name
        for one in list_variants(
            find_contenders([*folders, make_run("lora", "roberta")]), device="cuda"
        )[0]
    ]
    assert found == [
        "full-pytorch-fp32",
        "full-pipeline-fp32",
        "full-pytorch-tf32",
        "full-pytorch-bf16",
        "full-pytorch-fp16",
        "full-compiled-fp32",
        "full-compiled-fp16",
        "lora-pytorch-fp32",
        "lora-merged-fp32",
        "lora-merged-bf16",
        "lora-merged-fp16",
        "lora-onnx-fp32",
        "lora-onnx-fp16",
        "lora-onnx-int8",
        "tfidf-sklearn-fp64",
    ]


def test_int8_stays_on_the_cpu_and_float16_is_made_once() -> None:
    assert onnx_precisions(["fp32", "int8"], "cpu") == ["fp32", "int8"]
    assert onnx_precisions(["fp32", "int8"], "cuda") == ["fp32", "fp16", "int8"]
    assert onnx_precisions(["fp32", "fp16"], "cuda") == ["fp32", "fp16"]
    assert onnx_precisions(["int8"], "cuda") == ["int8"]


def test_float16_is_prepared_for_its_variant(make_run, make_artifact, tmp_path: Path) -> None:
    contenders = find_contenders([make_run("lora", "roberta"), make_artifact("lora", "roberta")])
    listed = list_variants(contenders, device="cuda")
    chosen = choose_variants(*listed, ["lora-onnx-fp16", "lora-onnx-int8"])
    assert [one.device for one in chosen] == ["cuda", "cpu"]
    half, quantised = prepare_variants(
        TextTask(),
        chosen,
        contenders,
        tmp_path,
        seed=0,
        threads=1,
        timeout_s=300,
        report=lambda line: None,
    )
    assert half.reason is None
    assert (half.variant.folder / "onnx" / "model_fp16.onnx").stat().st_size == half.size_bytes
    assert quantised.variant.folder == contenders[0].artifact.folder


def test_tf32_is_switched_for_all_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    fix_tf32("fp32", "cpu")
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    fix_tf32("fp32", "cuda")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    fix_tf32("tf32", "cuda")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "1"


def test_precisions_have_dtypes() -> None:
    import torch

    assert [torch_dtype(name) for name in ("fp32", "tf32", "nf4", "bf16", "fp16")] == [
        torch.float32,
        torch.float32,
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
