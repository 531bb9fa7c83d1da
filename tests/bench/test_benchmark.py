"""From folders to results.json: what is in it, what fails, what is not claimed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import benchmark
from bench.rounds import processes as measure_module
from bench.rounds.block import agreement
from bench.rounds.compose import plain_command
from bench.settings import BenchSection
from finetune.core.errors import FolderError, GateError
from finetune.run_folder import logits_of, open_run, read_predictions, read_rows

QUICK = {
    "processes": 1,
    "rounds": 2,
    "latency_rows": 5,
    "throughput_rows": 16,
    "throughput_rounds": 1,
    "warmup_s": 0.5,
    "threads": 1,
    "target_half_width": None,
    "noise_pair": False,
}


def measure(folders: list[Path], output: Path, **settings: Any) -> dict[str, Any]:
    section = BenchSection.model_validate({**QUICK, **settings})
    page = benchmark.run_benchmark(folders, section, output, report=lambda line: None)
    assert page == output / "report.html"
    return json.loads((output / "results.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def folders(make_run, make_artifact) -> list[Path]:
    return [
        make_run("full", "roberta"),
        make_run("lora", "roberta"),
        make_artifact("lora", "roberta"),
    ]


@pytest.fixture(scope="module")
def results(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One benchmark of three variants: as trained, exported, classical."""
    return measure(
        folders,
        tmp_path_factory.mktemp("report"),
        variants=["full-pytorch-fp32", "lora-onnx-fp32", "tfidf-sklearn-fp64"],
    )


def test_every_variant_was_measured(results: dict[str, Any]) -> None:
    assert [one["status"] for one in results["variants"]] == ["ok"] * 3
    assert results["baseline"] == "full-pytorch-fp32"
    for one in results["variants"]:
        assert [(entry["process"], entry["round"]) for entry in one["latency"]] == [(0, 0), (0, 1)]
        assert all(len(entry["samples_ms"]) == 5 for entry in one["latency"])
        assert [entry["rows"] for entry in one["throughput"]] == [16]
        for key in ("first_call_ms", "load_s", "peak_memory_bytes"):
            assert len(one[key]) == 1
            assert one[key][0] > 0
        assert one["size_bytes"] > 1000
        assert one["training_time_s"] is not None
        assert one["parameters"]["total"] >= one["parameters"]["trainable"] > 0


def test_predictions_are_those_of_the_same_rows(
    results: dict[str, Any], folders: list[Path]
) -> None:
    rows = read_rows(open_run(folders[0]), "test")
    assert results["truth"] == rows["label"].tolist()
    assert results["seen_in_training"] == rows["seen_in_training"].astype(int).tolist()
    full, onnx, tfidf = results["variants"]
    assert full["predicted_from"] == "run"  # its throughput pass agreed with the stored logits
    assert onnx["predicted_from"] == tfidf["predicted_from"] == "worker"
    trained = logits_of(read_predictions(open_run(folders[1]), "test")).argmax(axis=1)
    assert np.mean(np.array(onnx["predicted"]) == trained) > 0.95
    accuracy = np.mean(np.array(tfidf["predicted"]) == results["truth"])
    assert accuracy > 0.6  # one label in ten is wrong, the words tell


def test_the_file_says_where_it_comes_from(results: dict[str, Any]) -> None:
    assert (results["schema"], results["task"]) == ("kotune.results/2", "text-classification")
    assert results["environment"]["packages"]["torch"]
    assert results["settings"]["threads"] == 1
    assert results["settings"]["memory_blocks"] is None
    assert results["data"]["test_rows"] == len(results["truth"])
    assert results["data"]["latency_rows"] == 5
    assert len(results["curves"]) == 2
    assert len(results["ladders"]) == 1
    assert all(one["steps"] == 40 for one in results["training"].values())


def test_no_absolute_path_of_this_machine(results: dict[str, Any], folders: list[Path]) -> None:
    text = json.dumps({**results, "environment": {}, "data": {}})
    assert str(folders[0].parent) not in text
    assert plain_command("kotune bench /somewhere/runs/a output=/tmp/x rounds=2") == (
        "kotune bench a output=x rounds=2"
    )
    inside = Path.cwd() / "runs" / "a"
    assert plain_command(f"kotune bench {inside}") == "kotune bench runs/a"


def test_one_failing_variant_does_not_stop_the_others(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graph is replaced by noise after the hashes were checked."""
    artifact = tmp_path / "artifact"
    shutil.copytree(folders[2], artifact)
    found = benchmark.find_contenders([folders[1], artifact])
    monkeypatch.setattr(benchmark, "find_contenders", lambda _: found)
    (artifact / "onnx" / "model.onnx").write_bytes(b"noise")
    results = measure(
        [folders[1]],
        tmp_path / "report",
        variants=["lora-onnx-fp32", "lora-onnx-int8"],
        baseline="lora-onnx-int8",
    )
    broken, whole = results["variants"]
    assert broken["status"] == "failed"
    assert "model.onnx" in broken["reason"]
    assert "\n" not in broken["reason"]
    assert broken["latency"] == broken["predicted"] == []
    assert whole["status"] == "ok"
    with pytest.raises(GateError, match="no variant could be measured"):
        measure([folders[1]], tmp_path / "none", variants=["lora-onnx-fp32"])


def test_without_accuracy_no_classes_are_kept(folders: list[Path], tmp_path: Path) -> None:
    variants = ["lora-onnx-fp32", "lora-onnx-int8"]
    results = measure(folders[1:], tmp_path / "report", variants=variants, accuracy=False)
    assert results["truth"] == results["seen_in_training"] == []
    assert all(one["predicted"] == [] for one in results["variants"])


def test_several_processes_and_the_baseline_twice(folders: list[Path], tmp_path: Path) -> None:
    results = measure(
        folders[1:],
        tmp_path / "report",
        variants=["lora-onnx-int8"],
        processes=2,
        rounds=1,
        test_rows=10,
        noise_pair=BenchSection().noise_pair,
    )
    one, again = results["variants"]
    assert (one["name"], again["name"]) == ("lora-onnx-int8", "lora-onnx-int8-again")
    for variant in (one, again):
        taken = [(entry["process"], entry["round"]) for entry in variant["latency"]]
        assert taken == [(0, 0), (1, 0)]
        assert len(variant["load_s"]) == 2
    assert (len(one["predicted"]), again["predicted"]) == (10, [])
    assert "10 of" in results["data"]["description"]
    assert results["settings"]["processes"] == results["settings"]["processes_planned"] == 2
    assert [(entry["process"], entry["round"]) for entry in results["load"]] == [(0, 0), (1, 0)]
    assert all(entry["foreign_cores"] is not None for entry in results["load"])


def test_a_spent_budget_leaves_one_round_of_one_process(
    folders: list[Path], tmp_path: Path
) -> None:
    results = measure(
        folders[1:],
        tmp_path / "report",
        variants=["lora-onnx-int8"],
        processes=3,
        rounds=50,
        time_budget_s=0.001,
    )
    (variant,) = results["variants"]
    assert [(entry["process"], entry["round"]) for entry in variant["latency"]] == [(0, 0)]
    assert (results["settings"]["processes"], results["settings"]["processes_planned"]) == (1, 3)


def test_grid_and_server_are_measured_on_request(folders: list[Path], tmp_path: Path) -> None:
    results = measure(
        folders,
        tmp_path / "report",
        variants=["lora-onnx-fp32", "tfidf-sklearn-fp64"],
        throughput_rows=0,
        accuracy=False,
        grid=True,
        grid_batches=[1, 4],
        grid_lengths=[8, 16, 500],
        server=True,
        server_p99_ms=200,
        server_queries=100,
        server_max_batch=4,
        where="p50_ms<=1000",
    )
    onnx, tfidf = results["variants"]
    cells = [(cell["batch"], cell["length"]) for cell in onnx["grid"]]
    assert cells == [(1, 8), (1, 16), (4, 8), (4, 16)]  # of 500 tokens the model takes 32
    assert all(len(cell["samples_ms"]) >= 3 for cell in onnx["grid"])
    assert tfidf["grid"] == []  # it has no tokens
    for variant in (onnx, tfidf):
        assert [one["max_batch"] for one in variant["server"]] == [1, 4]
        assert all(one["rate_per_s"] > 0 for one in variant["server"])
        assert all(one["p99_ms"] <= 200 for one in variant["server"])
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    for told in ('id="lengths"', 'id="server"', "fastest variant that satisfies all"):
        assert told in page


def test_where_memory_is_short_workers_take_turns(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.rounds.processes.free_memory_bytes", lambda: 1)
    variants = ["lora-onnx-fp32", "lora-onnx-int8"]
    results = measure(folders[1:], tmp_path / "report", variants=variants)
    assert sorted(results["settings"]["memory_blocks"][0]) == [[name] for name in variants]
    assert all(one["status"] == "ok" for one in results["variants"])


def test_an_interrupted_benchmark_goes_on_after_its_last_process(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"variants": ["lora-onnx-fp32"], "processes": 2, "throughput_rows": 0}
    first_run = measure_module.Block.run

    def interrupt(block: Any) -> None:
        if block.process == 1:
            raise KeyboardInterrupt
        first_run(block)

    with monkeypatch.context() as patch:
        patch.setattr(measure_module.Block, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            measure(folders[1:], tmp_path / "report", **settings)
    partial = tmp_path / ".report.partial.json"
    kept = json.loads(partial.read_text("utf-8"))["variants"]["lora-onnx-fp32"]["latency"]
    results = measure(folders[1:], tmp_path / "report", **settings)
    (variant,) = results["variants"]
    assert variant["latency"][:2] == kept
    assert [entry["process"] for entry in variant["latency"]] == [0, 0, 1, 1]
    assert results["settings"]["sittings"] == 2
    assert not partial.exists()


def test_runs_tested_on_other_rows_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folders[1], other)
    rows = pd.read_parquet(other / "data" / "test.parquet")
    rows["text"] = rows["text"] + "!"
    rows.to_parquet(other / "data" / "test.parquet", index=False)
    _seal_again(other)
    with pytest.raises(FolderError, match="tested on different rows"):
        measure([folders[0], other], tmp_path / "report")


def test_artifacts_alone_have_no_rows(folders: list[Path], tmp_path: Path) -> None:
    alone = tmp_path / "far" / "away"  # from the runs, one of which is its parent
    shutil.copytree(folders[2], alone)
    with pytest.raises(FolderError, match="give the run folder"):
        measure([alone], tmp_path / "report")


def test_a_report_never_replaces_another_folder(folders: list[Path]) -> None:
    with pytest.raises(FolderError, match="not a report"):
        measure(folders, folders[0])


def test_agreement_is_a_share_of_rows() -> None:
    assert agreement([0, 1, 1, 0], np.array([1, 3]), [1, 1]) == 0.5


def _seal_again(run: Path) -> None:
    from finetune.core.seal import seal_files

    info = json.loads((run / "run.json").read_text("utf-8"))
    info["files"] = {name: one for name, one in seal_files(run).items() if name != "run.json"}
    (run / "run.json").write_text(json.dumps(info), encoding="utf-8")
