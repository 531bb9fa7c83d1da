"""What speech has of the one export story: origin, licence, metrics, stability, search, card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.artifact.card_metadata import check_card
from export.artifact.folder import open_artifact
from export.artifact.push import plan_push
from export.checks.stability import measure_speech_stability
from export.exporting import export_run
from export.runtime.transcriber import OnnxTranscriber
from finetune.core.files import sha256_file
from finetune.data.audio import read_audio
from finetune.run_folder import open_run, read_rows


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_the_manifest_says_where_it_comes_from(tones_run: Path, tones_artifact: Path) -> None:
    manifest, run = manifest_of(tones_artifact), open_run(tones_run)
    assert manifest["task"] == "speech-recognition"
    assert manifest["parent"]["run_sha256"] == sha256_file(run.folder / "run.json")
    assert manifest["parent"]["files"] == run.info.files
    assert manifest["tokenizer_sha256"] == manifest["sha256"]["vocab.json"]
    assert manifest["data"]["fingerprint"] == run.info.data_fingerprint
    measured = json.loads((run.folder / "metrics.json").read_text())
    for split in ("validation", "test"):
        assert manifest["metrics"][split]["wer"] == measured[split]["wer"]
    assert "license" in manifest


def test_the_card_has_metadata_that_the_hub_s_library_reads(tones_artifact: Path) -> None:
    data = check_card(tones_artifact / "README.md")
    assert data.pipeline_tag == "automatic-speech-recognition" and data.license == "unknown"
    found = {(one.dataset_split, one.metric_type) for one in data.eval_results}
    assert {("validation", "wer"), ("test", "wer"), ("test", "cer")} <= found
    text = (tones_artifact / "README.md").read_text()
    assert "## Stability" in text and "on 24 test rows: WER" in text and "from scratch" in text
    assert plan_push(tones_artifact, "someone/tones").results == len(data.eval_results)


def test_stability_is_measured_in_words(tones_artifact: Path, tones_run: Path) -> None:
    found = manifest_of(tones_artifact)["stability"]["int8"]
    assert found["rows"] == 24 and 0 <= found["unstable_words"] <= found["words"]
    assert found["largest_logit_difference"] > 0  # its scales are those of the whole batch
    audio = read_rows(open_run(tones_run), "test")["audio"][:12]
    waves = [read_audio(one, 16_000) for one in audio]
    exact = measure_speech_stability(OnnxTranscriber(tones_artifact, "fp32"), waves, seed=1)
    assert (exact.unstable, exact.what) == (0, "words")
    assert exact.figures["largest_logit_difference"] < 1e-4


def test_a_limit_of_stability_fails_the_export(tones_run, tmp_path, monkeypatch) -> None:
    from export.checks.stability import Stability
    from finetune.core.errors import GateError

    unstable = Stability({"largest_logit_difference": 9.0}, 5, 24, "words")
    monkeypatch.setattr(
        "export.tasks.speech.measure_speech_stability", lambda *rows, seed: unstable
    )
    with pytest.raises(GateError, match="stability-int8: 5 of 24 words depend on batch"):
        export_run(tones_run, tmp_path / "made", overrides=["max_wer_increase=0.2"])


def test_the_fastest_within_a_budget_of_word_errors(tones_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("export.quantization.search.FINAL_PROCESSES", 1)
    monkeypatch.setattr("export.quantization.search.FINAL_PASSES", 1)
    artifact = export_run(
        tones_run,
        tmp_path / "made",
        overrides=["precisions=[int8-dynamic]", "timing_rows=4", "stability_rows=8"],
        max_loss=0.2,
    )
    search = artifact.manifest.search
    assert (search["max_wer_increase"], search["rows"], search["device"]) == (0.2, 24, "cpu")
    tried = {row["name"]: row for row in search["tried"]}
    assert set(tried) == {"fp32", "int8-dynamic-plain"}, "a wav2vec2 has no embedding tables"
    for row in tried.values():
        low, high = row["wer_interval"]
        assert low <= row["wer"] <= high
        assert row["p50_batch8_ms"] > row["p50_batch1_ms"] > 0
    chosen = next(name for name, row in tried.items() if row["verdict"] == "chosen")
    key = {"fp32": "fp32", "int8-dynamic-plain": "int8"}[chosen]
    assert artifact.manifest.preferred == {"cpu": key}
    assert OnnxTranscriber(artifact.folder).precision == key
    assert open_artifact(artifact.folder).status == "passed"
