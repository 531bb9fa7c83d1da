"""Speech benchmarks: variants, workers, the report from results.json alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report.speech import speech_tables, write_speech_report
from bench.speech import is_speech, run_speech_benchmark
from finetune.errors import FolderError, RecipeError
from finetune.run_folder import open_run, read_predictions

SETTINGS = ["rounds=2", "calls=1", "lengths_s=[1, 5]", "threads=1", "conv_ablation=true"]


@pytest.fixture(scope="module")
def report_folder(tones_run: Path, tones_artifact: Path, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("reports") / "tones"
    folders = [str(tones_run), str(tones_artifact)]
    return run_speech_benchmark(folders, SETTINGS, output, report=lambda line: None).parent


def test_every_variant_is_measured(report_folder: Path, tones_run: Path) -> None:
    results = json.loads((report_folder / "results.json").read_text())
    variants = {one["name"]: one for one in results["variants"]}
    wanted = {"full-pytorch-fp32", "full-onnx-fp32", "full-onnx-int8", "full-onnx-int8conv"}
    assert wanted <= set(variants)
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
    page = (report_folder / "report.md").read_bytes()
    (report_folder / "report.md").unlink()
    write_speech_report(report_folder)
    assert (report_folder / "report.md").read_bytes() == page
    results = json.loads((report_folder / "results.json").read_text())
    errors, speed, latency = speech_tables(results)
    assert [row[0] for row in errors[2]] == [one["name"] for one in results["variants"]]
    assert speed[2][0][-1] == "1x" and "x" in speed[2][1][-1]
    assert len(latency[2]) == 2 * len(results["variants"])
    html = (report_folder / "report.html").read_text()
    assert "<table>" in html and "full-onnx-int8conv" in html and "http" not in html


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

    from bench.speech_base import CHARACTERS

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
def test_the_base_size_can_be_measured(tones_run, tones_artifact, tmp_path) -> None:
    settings = ["rounds=1", "calls=1", "lengths_s=[1]", "base_size=true", "test_rows=2"]
    page = run_speech_benchmark([str(tones_run), str(tones_artifact)], settings, tmp_path / "out")
    results = json.loads((page.parent / "results.json").read_text())
    sizes = {one["name"]: one["size_bytes"] for one in results["variants"]}
    assert sizes["base-onnx-int8"] <= 0.35 * sizes["base-pytorch-fp32"]
    assert all(one["status"] == "ok" for one in results["variants"])
