"""Speech through the benchmark's one story: processes, resume, blocks, noise, the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_folder import csv_rows, report_files
from tones import tones_recipe

from bench.benchmark import run_benchmark
from bench.report.writing import write_report
from bench.results.reading import read_results
from bench.rounds import processes as processes_module
from bench.settings import SpeechBenchSection, folder_settings
from bench.tasks.registry import task_of_folders
from bench.tasks.speech import SpeechTask
from bench.variants.contenders import find_contenders
from export.exporting import export_run
from export.quantization.candidates import refusal
from finetune.core.errors import FolderError, RecipeError
from finetune.core.provenance import cpu_has_bf16
from finetune.core.worker_process import WorkerProcess
from finetune.recipes.speech import SpeechRecipe
from finetune.run_folder import open_run, read_predictions
from finetune.training import finetune

QUICK = {
    "processes": 1,
    "rounds": 2,
    "calls": 1,
    "lengths_s": [1, 2],
    "threads": 1,
    "warmup_s": 0.1,
    "target_half_width": None,
    "noise_pair": False,
}
PRECISIONS = [
    one
    for one in ("int8-dynamic", "int8-static", "openvino-bf16", "openvino-int8")
    if not refusal(one, "cpu")
]
EXPORTED = ["full-onnx-fp32", "full-onnx-int8"]


def measure(folders: list[Path], output: Path, **settings: Any) -> dict[str, Any]:
    section = SpeechBenchSection.model_validate({**QUICK, **settings})
    page = run_benchmark(folders, section, output, report=lambda line: None)
    assert page == output / "report.html"
    return json.loads((output / "results.json").read_text("utf-8"))


def variants_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in results["variants"]}


@pytest.fixture(scope="module")
def artifact(tones_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("artifacts") / "tones"
    overrides = [f"precisions=[{','.join(PRECISIONS)}]", "max_wer_increase=0.2"]
    return export_run(tones_run, target, overrides=overrides).folder


@pytest.fixture(scope="module")
def report_folder(tones_run: Path, artifact: Path, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("reports") / "tones"
    measure([tones_run, artifact], output, noise_pair=True, conv_ablation=True)
    return output


def test_every_variant_is_measured_as_text_is(report_folder: Path, tones_run: Path) -> None:
    results = json.loads((report_folder / "results.json").read_text())
    assert (results["schema"], results["task"]) == ("kotune.results/2", "speech-recognition")
    variants = variants_of(results)
    wanted = {"full-pytorch-fp32", "full-pytorch-fp32-again", *EXPORTED, "full-onnx-int8conv"}
    wanted |= {f"full-{one}" for one in PRECISIONS if one.startswith("openvino")}
    assert wanted | {"full-onnx-int8-static"} == set(variants) - {"full-pytorch-bf16"}
    assert ("full-pytorch-bf16" in variants) == cpu_has_bf16()
    for one in variants.values():
        assert (one["status"], one["reason"]) == ("ok", None), one["name"]
        taken = [(entry["process"], entry["round"], entry["length_s"]) for entry in one["latency"]]
        assert taken == [(0, 0, 1), (0, 0, 2), (0, 1, 1), (0, 1, 2)]
        assert len(one["load_s"]) == len(one["warm_up"]) == len(one["peak_memory_bytes"]) == 1
        assert one["peak_memory_bytes"][0] > 10_000_000 and one["size_bytes"] > 1000
    stored = read_predictions(open_run(tones_run), "test")
    assert variants["full-pytorch-fp32"]["transcripts"] == stored["transcript"].tolist()
    assert variants["full-pytorch-fp32-again"]["transcripts"] == []
    assert results["references"] == stored["reference"].tolist()
    assert results["data"]["fingerprint"] and results["data"]["test_rows"] == len(stored)
    assert [entry["round"] for entry in results["load"]] == [0, 1]
    assert (results["settings"]["processes"], results["settings"]["sittings"]) == (1, 1)


def test_the_report_is_made_from_results_alone(report_folder: Path) -> None:
    made = report_files(report_folder)
    assert {"plots/trade_off.svg", "plots/lengths.svg", "plots/curves.svg"} <= set(made)
    for name in made:
        (report_folder / name).unlink()
    write_report(report_folder)
    assert report_files(report_folder) == made
    rows = csv_rows(report_folder)
    assert set(rows) == set(variants_of(json.loads((report_folder / "results.json").read_text())))
    heard = [row for name, row in rows.items() if not name.endswith("-again")]
    assert all(float(row["rtf_2s"]) > 0 and row["wer"] for row in heard)
    page = made["report.md"].decode()
    assert "Validation word error rate" in made["plots/curves.svg"].decode()
    assert "## From run to artifact" in page and "| onnx-int8-static |" in page
    assert "the baseline measured a second time" in page  # the noise floor
    assert str(report_folder.parent) not in page  # no path of this machine


def test_fresh_processes_until_the_plan_is_done(tones_run, artifact, tmp_path: Path) -> None:
    results = measure(
        [tones_run, artifact], tmp_path / "report", variants=EXPORTED, processes=2, rounds=1
    )
    for one in results["variants"]:
        assert [entry["process"] for entry in one["latency"]] == [0, 0, 1, 1]
        assert len(one["load_s"]) == 2
    assert results["baseline"] == "full-onnx-fp32"


def test_an_interrupted_benchmark_goes_on_after_its_last_process(
    tones_run, artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"variants": EXPORTED, "processes": 2, "rounds": 1, "test_rows": 3}
    original, begun = processes_module.Block.run, []

    def once(block: Any) -> None:
        begun.append(block.process)
        if len(begun) == 2:
            raise KeyboardInterrupt
        original(block)

    monkeypatch.setattr(processes_module.Block, "run", once)
    with pytest.raises(KeyboardInterrupt):
        measure([tones_run, artifact], tmp_path / "report", **asked)
    kept = json.loads((tmp_path / ".report.partial.json").read_text())
    results = measure([tones_run, artifact], tmp_path / "report", **asked)
    assert begun == [0, 1, 1]
    assert results["settings"]["sittings"] == 2
    first = variants_of(results)["full-onnx-int8"]["latency"][:2]
    assert first == kept["variants"]["full-onnx-int8"]["latency"]


def test_where_memory_is_short_workers_take_turns(
    tones_run, artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.rounds.processes.free_memory_bytes", lambda: 1)
    asked = {"variants": EXPORTED, "rounds": 1, "accuracy": False}
    results = measure([tones_run, artifact], tmp_path / "report", **asked)
    assert sorted(results["settings"]["memory_blocks"][0]) == [[name] for name in EXPORTED]
    assert results["references"] == []
    assert all(one["transcripts"] == [] for one in results["variants"])


def test_one_failing_variant_does_not_stop_the_others(
    tones_run, artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graph is replaced by noise after the hashes were checked."""
    copy = tmp_path / "artifact"
    shutil.copytree(artifact, copy)
    found = find_contenders([tones_run, copy])
    monkeypatch.setattr("bench.benchmark.find_contenders", lambda _: found)
    (copy / "onnx" / "model.onnx").write_bytes(b"noise")
    asked = {"variants": EXPORTED, "baseline": "full-onnx-int8", "rounds": 1, "test_rows": 2}
    results = measure([tones_run], tmp_path / "report", **asked)
    broken, whole = (variants_of(results)[name] for name in EXPORTED)
    assert (broken["status"], whole["status"]) == ("failed", "ok")
    assert broken["latency"] == broken["transcripts"] == []
    assert "full-onnx-fp32" in (tmp_path / "report" / "report.md").read_text()


def test_an_adapter_is_measured_as_trained_and_merged(
    tones_run: Path, tones_data: Path, tmp_path: Path
) -> None:
    """Beside the full run, whose model it adapts: two runs, one baseline."""
    content = tones_recipe(tones_data, tmp_path / "lora")
    content["model"] = {"source": str(tones_run / "model")}
    content["adapter"] = {"method": "lora", "rank": 4, "alpha": 8}
    content["training"] |= {"max_steps": 3, "eval_steps": 3}
    recipe = SpeechRecipe.model_validate(content)
    run = finetune(recipe, report=lambda line: None)
    results = measure([tones_run, run], tmp_path / "report", rounds=1, test_rows=8)
    variants = variants_of(results)
    half = {"full-pytorch-bf16", "lora-merged-bf16"} if cpu_has_bf16() else set()
    wanted = {"full-pytorch-fp32", "lora-pytorch-fp32", "lora-merged-fp32"}
    assert set(variants) == wanted | half
    assert results["baseline"] == "full-pytorch-fp32"
    assert all(one["status"] == "ok" for one in variants.values()), variants
    adapted, merged = variants["lora-pytorch-fp32"], variants["lora-merged-fp32"]
    assert adapted["transcripts"] == merged["transcripts"]
    assert adapted["adapter_bytes"] == merged["adapter_bytes"] < merged["size_bytes"]
    assert adapted["size_bytes"] > merged["size_bytes"]  # base model and adapter
    page = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "tones (full" in page and "lora (lora" in page and "the trained models" in page


def test_a_speech_worker_imports_what_its_variant_needs(tones_run, tones_artifact) -> None:
    variants = {
        one.name: one
        for one in SpeechTask().list_variants(
            find_contenders([tones_run, tones_artifact]), SpeechBenchSection()
        )[0]
    }
    worker = WorkerProcess("bench.engines.worker", 1, 120)
    try:
        content = {"engines": SpeechTask.engines, "latency_rows": [], "throughput_rows": []}
        job = variants["full-onnx-int8"].as_job()
        worker.ask("prepare", variant=job, threads=1, **content)
        modules = set(worker.ask("modules")["modules"])
    finally:
        worker.close()
    assert {"onnxruntime", "soundfile"} <= modules
    assert not modules & {"torch", "transformers", "sklearn", "pandas", "scipy"}


def test_folders_say_which_task_they_are_of(tones_run, tones_artifact, make_run) -> None:
    assert task_of_folders([tones_run]).name == "speech-recognition"
    assert task_of_folders([tones_artifact]).name == "speech-recognition"
    text = make_run("full", "roberta")
    assert task_of_folders([text]).name == "text-classification"
    with pytest.raises(FolderError, match="different things"):
        find_contenders([tones_run, text])


def test_settings_are_those_of_speech(tones_run: Path) -> None:
    kind = task_of_folders([tones_run]).settings
    assert folder_settings(["lengths_s=[1, 5]", "bench.calls=2"], kind).calls == 2
    with pytest.raises(RecipeError, match="latency_rows"):
        folder_settings(["latency_rows=5"], kind)
    with pytest.raises(RecipeError, match="lengths_s"):
        folder_settings(["lengths_s=[]"], kind)


def test_the_base_size_is_base_960h_s(tmp_path, monkeypatch) -> None:
    """Its architecture without its memory: 94,396,320 parameters, vocabulary 32."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    from bench.engines.speech_base import CHARACTERS

    config = Wav2Vec2Config(vocab_size=32, pad_token_id=0)
    with torch.device("meta"):
        model = Wav2Vec2ForCTC(config)
    assert sum(one.numel() for one in model.parameters()) == 94_396_320
    assert (config.hidden_size, config.num_hidden_layers) == (768, 12)
    assert config.conv_dim == (512,) * 7 or config.conv_dim == [512] * 7
    assert list(config.conv_kernel) == [10, 3, 3, 3, 3, 2, 2]
    assert list(config.conv_stride) == [5, 2, 2, 2, 2, 2, 2]
    assert len(CHARACTERS) + 5 == 32


@pytest.mark.slow
def test_the_base_size_can_be_measured(tones_run, artifact, tmp_path) -> None:
    asked = {"rounds": 1, "lengths_s": [1], "base_size": True, "conv_ablation": True}
    results = measure([tones_run, artifact], tmp_path / "out", test_rows=2, **asked)
    sizes = {one["name"]: one["size_bytes"] for one in results["variants"]}
    assert {f"base-{one}" for one in PRECISIONS if one.startswith("openvino")} <= set(sizes)
    assert {"base-onnx-int8-static", "base-onnx-int8conv"} <= set(sizes)
    assert sizes["base-onnx-int8"] <= 0.35 * sizes["base-pytorch-fp32"]
    assert all(one["status"] == "ok" for one in results["variants"])
    assert results["baselines"] == {"base": "base-pytorch-fp32"}
    read_results(tmp_path / "out")
