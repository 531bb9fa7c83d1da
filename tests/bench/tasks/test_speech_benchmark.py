"""Speech benchmarks: variants, workers, the report from results.json alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_folder import csv_rows, report_files

from bench.report.pages.speech import write_speech_report
from bench.tasks.speech import is_speech, run_speech_benchmark
from export.exporting import export_run
from export.quantization.candidates import refusal
from finetune.core.errors import FolderError, RecipeError
from finetune.core.provenance import cpu_has_bf16
from finetune.run_folder import open_run, read_predictions

SETTINGS = ["rounds=2", "calls=1", "lengths_s=[1, 5]", "threads=1", "conv_ablation=true"]


PRECISIONS = [
    one
    for one in ("int8-dynamic", "int8-static", "openvino-bf16", "openvino-int8")
    if not refusal(one, "cpu")
]


@pytest.fixture(scope="module")
def artifact(tones_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("artifacts") / "tones"
    overrides = [f"precisions=[{','.join(PRECISIONS)}]", "max_wer_increase=0.2"]
    return export_run(tones_run, target, overrides=overrides).folder


@pytest.fixture(scope="module")
def report_folder(tones_run: Path, artifact: Path, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("reports") / "tones"
    folders = [str(tones_run), str(artifact)]
    return run_speech_benchmark(folders, SETTINGS, output, report=lambda line: None).parent


def test_every_variant_is_measured(report_folder: Path, tones_run: Path) -> None:
    results = json.loads((report_folder / "results.json").read_text())
    variants = {one["name"]: one for one in results["variants"]}
    wanted = {"full-pytorch-fp32", "full-onnx-fp32", "full-onnx-int8", "full-onnx-int8conv"}
    wanted |= {f"full-{one}" for one in PRECISIONS if one.startswith("openvino")}
    assert wanted | {"full-onnx-int8-static"} == set(variants) - {"full-pytorch-bf16"}
    assert ("full-pytorch-bf16" in variants) == cpu_has_bf16()
    for one in variants.values():
        assert (one["status"], one["reason"]) == ("ok", None), one["name"]
        assert {length: len(rounds) for length, rounds in one["latency"].items()} == {
            "1": 2,
            "5": 2,
        }
        assert one["peak_memory_bytes"] > 10_000_000 and one["size_bytes"] > 1000
    stored = read_predictions(open_run(tones_run), "test")
    assert variants["full-pytorch-fp32"]["transcripts"] == stored["transcript"].tolist()
    assert results["references"] == stored["reference"].tolist()


def test_the_report_is_made_from_results_alone(report_folder: Path) -> None:
    made = report_files(report_folder)
    assert {"plots/trade_off.svg", "plots/lengths.svg", "plots/curves.svg"} <= set(made)
    for name in made:
        (report_folder / name).unlink()
    write_speech_report(report_folder)
    assert report_files(report_folder) == made
    results = json.loads((report_folder / "results.json").read_text())
    rows = csv_rows(report_folder)
    assert list(rows) == [one["name"] for one in results["variants"]]
    assert all(float(row["rtf_5s"]) > 0 and row["wer"] for row in rows.values())
    page = made["report.md"].decode()
    assert "Validation word error rate" in made["plots/curves.svg"].decode()
    assert "## From run to artifact" in page and "| onnx-int8-static |" in page
    assert str(report_folder.parent) not in page  # no path of this machine


def test_a_pair_that_is_none_is_told(tones_run: Path, tones_artifact: Path, make_run) -> None:
    assert is_speech([str(tones_run)]) and is_speech([str(tones_artifact)])
    assert not is_speech([str(make_run("full", "roberta"))])
    with pytest.raises(FolderError, match="one run and its artifact"):
        run_speech_benchmark([str(tones_run)], [], None)
    with pytest.raises(RecipeError, match="rounds"):
        run_speech_benchmark([str(tones_run), str(tones_artifact)], ["round=2"], None)


def test_the_base_size_is_base_960h_s(tmp_path, monkeypatch) -> None:
    """Its architecture without its memory: 94,396,320 parameters, vocabulary 32."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    from bench.variants.speech_base import CHARACTERS

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
    settings = ["rounds=1", "calls=1", "lengths_s=[1]", "base_size=true", "test_rows=2"]
    page = run_speech_benchmark([str(tones_run), str(artifact)], settings, tmp_path / "out")
    results = json.loads((page.parent / "results.json").read_text())
    sizes = {one["name"]: one["size_bytes"] for one in results["variants"]}
    assert {f"base-{one}" for one in PRECISIONS if one.startswith("openvino")} <= set(sizes)
    assert "base-onnx-int8-static" in sizes
    assert sizes["base-onnx-int8"] <= 0.35 * sizes["base-pytorch-fp32"]
    assert all(one["status"] == "ok" for one in results["variants"])
