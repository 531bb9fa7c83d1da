"""Every CUDA variant on a real GPU: the classes of the model, memory, a whole report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.benchmark import run_benchmark
from bench.settings import BenchSection

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]
AGREEMENT = 0.97  # of predicted classes, half precisions included


@pytest.fixture(scope="module")
def results(make_run, make_artifact, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small benchmark of all default CUDA variants of full and QLoRA."""
    folders = [make_run("full", "roberta"), make_artifact("full", "roberta")]
    folders.append(make_run("qlora", "roberta"))
    section = BenchSection.model_validate(
        {
            "device": "cuda",
            "processes": 1,
            "rounds": 3,
            "latency_rows": 10,
            "throughput_rows": 16,
            "throughput_rounds": 1,
            "warmup_s": 20,
            "target_half_width": None,
            "grid": True,
            "grid_lengths": [16],
        }
    )
    output = tmp_path_factory.mktemp("gpu") / "report"
    run_benchmark(folders, section, output, report=print)
    return json.loads((output / "results.json").read_text("utf-8"))


def variants(results: dict[str, Any], runtime: str) -> list[dict[str, Any]]:
    return [one for one in results["variants"] if one["runtime"] == runtime]


def test_every_variant_ran(results: dict[str, Any]) -> None:
    failed = {one["name"]: one["reason"] for one in results["variants"] if one["reason"]}
    assert failed == {}
    names = {one["name"] for one in results["variants"]}
    assert {
        "full-pytorch-tf32",
        "full-pytorch-bf16",
        "full-pytorch-fp16",
        "full-compiled-fp16",
        "full-onnx-fp16",
        "qlora-pytorch-nf4",
    } <= names


def test_all_precisions_give_the_models_classes(results: dict[str, Any]) -> None:
    base = next(one for one in results["variants"] if one["name"] == "full-pytorch-fp32")
    for one in results["variants"]:
        if one["method"] == "full" and one["predicted"]:
            agreement = np.mean(np.array(one["predicted"]) == np.array(base["predicted"]))
            assert agreement >= AGREEMENT, one["name"]


def test_memory_of_the_gpu_is_told(results: dict[str, Any]) -> None:
    for one in [*variants(results, "pytorch"), *variants(results, "compiled")]:
        assert one["peak_vram_bytes"][0] > 1e5, one["name"]
    assert results["environment"]["hardware"]["gpus"]


def test_nvml_tells_energy_and_memory_where_it_is_there(results: dict[str, Any]) -> None:
    pytest.importorskip("pynvml")
    on_gpu = [one for one in results["variants"] if one["device"] == "cuda"]
    assert all(one["device_bytes"] for one in on_gpu)
    assert any("gpu" in entry.get("energy_j", {}) for entry in on_gpu[0]["latency"])
    assert all("foreign_gpu_percent" in entry for entry in results["load"])


def test_the_report_has_the_gpus_columns(results: dict[str, Any], tmp_path: Path) -> None:
    from bench.report.writing import write_report

    (tmp_path / "results.json").write_text(json.dumps(results), "utf-8")
    page = write_report(tmp_path).read_text("utf-8")
    assert "VRAM" in page
    assert "CUDA" in page
