"""What of the GPU variants runs on a CPU: names, batches, warm-up, NF4 in half, TF32's switch."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from transformers.models.roberta.modeling_roberta import RobertaModel

from bench.engines import text as text_engines
from bench.engines.cuda import fix_tf32, torch_dtype
from bench.engines.worker import Worker
from bench.tasks.text import TextTask
from bench.variants.contenders import find_contenders
from bench.variants.cuda import cuda_choices
from bench.variants.text import list_variants
from export.artifact.manifest import FileRecord
from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import BATCH_TOKENS
from finetune.core.preparation import DEFAULT
from finetune.models.loading import load_trained
from finetune.run_folder import open_run

TEXTS = ["정말 재미있다 최고", "지루하다 실망 영화", "감동 추천 명작 영화 배우", "최악 별로"]


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
        "lora-onnx-int8",
        "tfidf-sklearn-fp64",
    ]


def test_the_artifacts_own_files_are_measured_on_the_gpu_and_int8_on_the_cpu(
    make_artifact,
) -> None:
    """float16 as it is shipped and was checked; none is made for the benchmark."""
    (contender,) = find_contenders([make_artifact("lora", "roberta")])
    shipped = contender.artifact.manifest
    half = FileRecord(path="onnx/model_fp16.onnx", arithmetic="fp16")
    manifest = shipped.model_copy(update={"files": {**shipped.files, "fp16": half}})
    artifact = dataclasses.replace(contender.artifact, manifest=manifest)
    for one, halves in (
        (contender, []),
        (dataclasses.replace(contender, artifact=artifact), ["fp16"]),
    ):
        listed = list_variants([one], device="cuda")[0]
        found = {variant.precision: variant for variant in listed if variant.runtime == "onnx"}
        assert [name for name in found if name == "fp16"] == halves
        assert (found["fp32"].device, found["int8"].device) == ("cuda", "cpu")
        assert all(TextTask().making(variant, [one]) is None for variant in found.values())
        assert all(variant.folder == one.artifact.folder for variant in found.values())


def test_nf4_is_also_computed_in_half(make_run) -> None:
    """All beside the packed weights in half, and the products with them."""
    import torch

    assert ("pytorch", "nf4-fp16") in cuda_choices("qlora")
    assert not any(precision.startswith("nf4-") for _, precision in cuda_choices("lora"))
    run, tokens = open_run(make_run("qlora")), torch.tensor([[5, 6, 7, 8, 9]])
    whole = load_trained(run)
    half = load_trained(run, dtype=torch_dtype("nf4-bf16"))
    kinds = {one.dtype for one in half.parameters()}
    assert kinds == {torch.uint8, torch.bfloat16}
    assert {one.compute_dtype for one in half.modules() if hasattr(one, "compute_dtype")} == {
        torch.bfloat16
    }
    with torch.inference_mode():
        expected, found = (model(input_ids=tokens).logits for model in (whole, half))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.15, rtol=0.1)


def test_tf32_is_switched_for_all_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    fix_tf32("fp32", "cpu")
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    fix_tf32("fp32", "cuda")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    fix_tf32("tf32", "cuda")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "1"


def described(runtime: str, folder: Path, device: str = "cpu") -> dict[str, Any]:
    """What a worker is told of a variant of full fine-tuning in fp32."""
    return {
        "runtime": runtime,
        "precision": "fp32",
        "method": "full",
        "device": device,
        "folder": str(folder),
        "file": "fp32",
        "max_length": 32,
        "preparation": DEFAULT.as_dict(),
    }


def test_a_compiled_variant_makes_its_batch_graph_before_it_is_timed(make_run, monkeypatch) -> None:
    import torch

    graphs: list[int] = []

    def counter(graph, inputs):
        graphs.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(
        "bench.engines.text.compile_model",
        lambda model: torch.compile(model, dynamic=True, backend=counter),
    )
    worker = Worker()
    worker.engines = text_engines
    worker.variant = described("compiled", make_run("full") / "model")
    worker.latency_rows = worker.throughput_rows = TEXTS
    worker.load({})
    single = len(graphs)
    worker.warm_up({"limit_s": 0.01, "batch_tokens": 64})
    warm = len(graphs)
    assert 0 < single < warm
    worker.throughput({"batch_tokens": 64})
    assert len(graphs) == warm


def test_every_runtime_batches_by_the_same_tokens(make_run, make_artifact, monkeypatch) -> None:
    run, artifact, shapes = make_run("full"), make_artifact("full"), {}
    variants = {
        "pytorch": described("pytorch", run),
        "pipeline": described("pipeline", run / "model"),
        "onnx": described("onnx", artifact),
    }
    feed, forward = OnnxClassifier._feed, RobertaModel.forward
    monkeypatch.setattr(
        OnnxClassifier, "_feed", lambda self, ids, mask: note(ids.shape) or feed(self, ids, mask)
    )
    monkeypatch.setattr(
        RobertaModel,
        "forward",
        lambda self, input_ids, *rest, **named: (
            note(tuple(input_ids.shape)) or forward(self, input_ids, *rest, **named)
        ),
    )
    for runtime, variant in variants.items():
        shapes[runtime], note = [], lambda shape, one=runtime: shapes[one].append(shape)
        text_engines.load_engine(variant, 1).answer_many([*TEXTS, *TEXTS, *TEXTS], 24)
    assert shapes["onnx"] == shapes["pytorch"] == shapes["pipeline"]
    assert len(shapes["onnx"]) > 1 and all(rows * length <= 24 for rows, length in shapes["onnx"])
    assert text_engines.tokens_for("cuda:1", None) == BATCH_TOKENS["cuda"]


def test_a_cpu_variant_stays_on_the_cpu_beside_a_gpu(make_artifact, monkeypatch) -> None:
    """transformers.pipeline takes the first GPU where none is named."""
    import torch

    engine = text_engines._open_optimum(make_artifact("full"), "fp32", "cpu", 1)[0]
    assert engine.device.type == "cpu"
    asked: list[Any] = []
    import transformers

    monkeypatch.setattr(
        transformers, "pipeline", lambda *given, **named: asked.append(named["device"])
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    text_engines._open_optimum(make_artifact("full"), "fp32", "cpu", 1)
    assert asked == ["cpu"]


def test_precisions_have_dtypes() -> None:
    import torch

    assert [torch_dtype(name) for name in ("fp32", "tf32", "nf4", "bf16", "fp16")] == [
        torch.float32,
        torch.float32,
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
