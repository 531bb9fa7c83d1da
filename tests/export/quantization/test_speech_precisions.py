"""Speech in every precision: calibrated on training recordings, convolutions left alone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tones import RATE_HZ, sing, write_folder

from export.artifact.folder import open_artifact
from export.exporting import export_run, export_settings
from export.quantization.calibration import calibration_recordings, read_feeds
from export.quantization.candidates import refusal
from export.runtime.manifest import ArtifactError
from export.runtime.openvino_session import openvino_core
from export.runtime.transcriber import OnnxTranscriber
from finetune.core.errors import DataError, GateError, RecipeError
from finetune.data.audio import encode_flac, to_int16
from finetune.recipes.speech import SpeechExportSection
from finetune.run_folder import open_run, read_rows
from finetune.tasks.speech.ctc import run_batch
from finetune.tasks.speech.model import run_settings

ASKED = ["int8-static", "int4", "fp16", "openvino-fp32", "openvino-int8"]
MADE = [one for one in ASKED if not refusal(one, "cpu")]
OPENVINO = [one for one in MADE if one.startswith("openvino")]
PRODUCTS = 7  # one layer: four of attention, two of feed-forward, the projection before it


@pytest.fixture(scope="module")
def artifact(tones_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tones in every precision that this machine can make."""
    target = tmp_path_factory.mktemp("artifacts") / "precisions"
    overrides = [f"precisions=[{','.join(MADE)}]", "max_wer_increase=0.2", "calibration_rows=24"]
    return export_run(tones_run, target, overrides=overrides).folder


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def initializers(graph: onnx.GraphProto) -> dict[str, int]:
    return {weights.name: weights.data_type for weights in graph.initializer}


def test_every_file_climbs_the_ladder(artifact: Path) -> None:
    manifest = manifest_of(artifact)
    assert list(manifest["files"]) == ["fp32", *MADE]
    for key, entry in manifest["files"].items():
        assert entry["arithmetic"] == ("fp16" if key == "fp16" else "fp32")
        assert entry["checked_in"] == "fp32"
    steps = {step["name"]: step for step in manifest["ladder"]}
    for key in MADE:
        step = steps[key if key in OPENVINO else f"onnx-{key}"]
        assert step["before"] == "onnx-fp32" and step["failure"] is None
        assert 0 < step["largest_logit_difference"] < 3
        assert step["kind"] == ("float" if key == "openvino-fp32" else "quantized")
        assert step["wer_increase_interval"] is not None
    entry = manifest["files"]["int8-static"]
    assert (entry["calibration"], entry["balanced"]) == ("percentile", True)
    assert (entry["integer_nodes"], entry["float_nodes"]) == (PRODUCTS, 1)
    assert open_artifact(artifact).status == "passed"  # every hash, .bin files too
    card = (artifact / "README.md").read_text()
    assert "| onnx-int8-static | onnx-fp32 |" in card


def test_static_int8_leaves_convolutions_and_the_head_alone(artifact: Path) -> None:
    graph = onnx.load(str(artifact / "onnx" / "model_int8.onnx")).graph
    stored = initializers(graph)
    for node in graph.node:
        if node.op_type == "Conv":
            assert stored.get(node.input[1], onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT
            assert not any("DequantizeLinear" in name for name in node.input)
        if node.name.startswith("/lm_head") and node.op_type == "MatMul":
            assert stored[node.input[1]] == onnx.TensorProto.FLOAT
    assert list(stored.values()).count(onnx.TensorProto.INT8) >= PRODUCTS


@pytest.mark.skipif("openvino-int8" not in MADE, reason="an extra: pip install 'kotune[openvino]'")
def test_openvino_s_int8_leaves_convolutions_alone(artifact: Path) -> None:

    file = artifact / "openvino" / "openvino_model_qint8_quantized.xml"
    nodes = openvino_core().read_model(str(file)).get_ops()
    assert any("Convolution" in node.get_type_name() for node in nodes)
    for node in nodes:
        if "Convolution" in node.get_type_name():
            assert node.input_value(0).get_node().get_type_name() != "FakeQuantize"
    assert manifest_of(artifact)["files"]["openvino-int8"]["integer_constants"] == PRODUCTS


@pytest.mark.skipif(not OPENVINO, reason="an extra: pip install 'kotune[openvino]'")
def test_files_answer_as_exported_on_a_narrower_processor(artifact: Path, tmp_path: Path) -> None:
    """OpenVINO obeys oneDNN's variable; ONNX Runtime's kernels (MLAS) cannot be narrowed."""
    done = subprocess.run(
        [sys.executable, artifact / "predict.py", "--self-check"],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split(":")[0]: line for line in done.stdout.splitlines()}
    assert list(lines) == list(manifest_of(artifact)["files"])
    assert all("12 answers as at the export" in line for line in lines.values())
    assert "difference 0.0e+00" not in lines["openvino-fp32"]  # it did compute otherwise
    assert len(list((artifact / "answers").glob("*.flac"))) == 12


def test_bf16_is_checked_in_bf16_or_not_made(tones_run: Path, tmp_path: Path) -> None:
    """The gate may well refuse it for speech (58 points of WER with AMX): then it says so.

    Where the processor has no bf16 there is no way to have OpenVINO compute in it.
    """
    overrides = ["precisions=[openvino-bf16]", "max_wer_increase=0.2"]
    if refusal("openvino-bf16", "cpu"):
        with pytest.raises(RecipeError, match=r"openvino|no bf16 products"):
            export_run(tones_run, tmp_path / "made", overrides=overrides)
        assert not list(tmp_path.iterdir())
        return
    try:
        folder = export_run(tones_run, tmp_path / "made", overrides=overrides).folder
    except GateError as fault:
        assert "openvino-bf16" in str(fault)
        folder = tmp_path / "made.failed"
    manifest = manifest_of(folder)
    entry = manifest["files"]["openvino-bf16"]
    assert (entry["arithmetic"], entry["checked_in"]) == ("bf16", "bf16")
    step = next(one for one in manifest["ladder"] if one["name"] == "openvino-bf16")
    assert (step["failure"] is None) == (step["wer_increase"] <= 0.2)
    opened = OnnxTranscriber(folder, "openvino-bf16", verify=False, allow_failed=True)
    assert opened.executed == "bf16"


def test_half_precision_halves_the_file(artifact: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in (artifact / "onnx").iterdir()}
    assert sizes["model_fp16.onnx"] < 0.75 * sizes["model.onnx"]
    graph = onnx.load(str(artifact / "onnx" / "model_fp16.onnx")).graph
    stored = initializers(graph)
    halves = [node for node in graph.node if node.op_type == "Conv"]
    assert halves and all(stored[one.input[1]] == onnx.TensorProto.FLOAT16 for one in halves)


@pytest.mark.parametrize("precision", MADE)
def test_the_runtime_opens_the_file_named(artifact: Path, tones_run: Path, precision: str) -> None:
    audio = read_rows(open_run(tones_run), "test")["audio"]
    transcriber = OnnxTranscriber(artifact, precision, verify="read")
    assert transcriber.precision == precision
    heard = list(transcriber.transcribe_many(audio))
    exact = list(OnnxTranscriber(artifact, "fp32", verify=False).transcribe_many(audio))
    assert sum(one == two for one, two in zip(heard, exact, strict=True)) >= 0.8 * len(exact)


@pytest.mark.parametrize("precision", [one for one in MADE if "int8" in one or "fp32" in one])
def test_calibrated_files_hear_a_batch_as_single_recordings(artifact, precision) -> None:
    """Their scales stand in the file, so that a recording's neighbours change nothing."""
    transcriber = OnnxTranscriber(artifact, precision, verify=False)
    waves = [sing("ABCD"[: n % 4 + 1] * (n + 1), 16_000, seed=n) for n in range(4)]
    for wave, batched in zip(waves, transcriber.logits(waves), strict=True):
        alone = run_batch([wave], transcriber.settings, transcriber.frames)[0]
        assert (alone.argmax(-1) == batched.argmax(-1)).mean() > 0.95


@pytest.mark.skipif(not OPENVINO, reason="an extra: pip install 'kotune[openvino]'")
def test_openvino_files_are_checked_told_and_run_alone(
    artifact: Path, tones_data, tmp_path
) -> None:
    file = str(tones_data / "test" / "0.wav")
    done = subprocess.run(
        [sys.executable, artifact / "predict.py", file, "--precision", OPENVINO[0]],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = OnnxTranscriber(artifact, OPENVINO[0], verify=False)(file)
    assert done.stdout == f"{file}\t{wanted}\n"
    with pytest.raises(ArtifactError, match="CPU only"):
        OnnxTranscriber(artifact, OPENVINO[0], provider="cuda", verify=False)
    copy = shutil.copytree(artifact, tmp_path / "copy")
    weights = copy / "openvino" / "openvino_model.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ArtifactError, match=r"openvino_model\.bin was changed"):
        OnnxTranscriber(copy, "openvino-fp32", verify="read")


def test_calibration_hears_training_recordings_only_and_unpadded(tones_run: Path) -> None:
    run = open_run(tones_run)
    chosen = calibration_recordings(run, 24)
    assert len(chosen) == 24 == len(set(chosen)) and chosen == calibration_recordings(run, 24)
    train = set(read_rows(run, "train")["file"])
    assert {Path(one).name for one in chosen} <= train
    assert not train & set(read_rows(run, "validation")["file"])
    settings = dataclasses.replace(run_settings(run), chunk_s=0.5)
    for feed in read_feeds(chosen, settings, ["input_values", "attention_mask"]):
        assert feed["input_values"].shape == feed["attention_mask"].shape
        assert feed["input_values"].shape == (1, 8_000) and feed["attention_mask"].all()
    flac = encode_flac(to_int16(sing("A")), RATE_HZ)
    assert list(read_feeds([flac], settings, ["input_values"])[0]) == ["input_values"]


def test_data_that_are_not_the_trainings_are_refused(tones_run: Path, tmp_path: Path) -> None:
    run = open_run(tones_run)
    write_folder(tmp_path / "other" / "train", 40, seed=5)
    write_folder(tmp_path / "other" / "test", 4, seed=6)
    data = run.recipe.data.model_copy(update={"path": str(tmp_path / "other")})
    other = dataclasses.replace(run, recipe=run.recipe.model_copy(update={"data": data}))
    with pytest.raises(DataError, match="the data have changed"):
        calibration_recordings(other, 4)


def test_what_cannot_be_made_is_told_before_any_work(tones_run, tmp_path, monkeypatch) -> None:
    with pytest.raises(RecipeError, match=r"integer operators|CUDAExecutionProvider"):
        export_run(tones_run, tmp_path / "made", overrides=["device=cuda"])
    monkeypatch.setattr("export.quantization.openvino.PACKAGES", ("no_such_package", "nncf"))
    with pytest.raises(RecipeError, match=r"no_such_package not installed: pip install"):
        export_run(tones_run, tmp_path / "made", overrides=["precisions=[openvino-int8]"])
    with pytest.raises(RecipeError, match="precisions"):
        export_run(tones_run, tmp_path / "made", overrides=["precisions=[int3]"])
    assert not list(tmp_path.iterdir())


def test_layer_norms_of_many_operators_are_balanced_too(tones_run, tmp_path) -> None:
    """Before opset 17 a layer norm is written out; nothing claims to be balanced that is not."""
    overrides = ["precisions=[int8-static]", "opset=14", "max_wer_increase=0.2"]
    folder = export_run(tones_run, tmp_path / "made", overrides=overrides).folder
    graph = onnx.load(str(folder / "onnx" / "model_int8.onnx")).graph
    assert not any(node.op_type == "LayerNormalization" for node in graph.node)
    assert any(one.name.endswith("_smooth_0") for one in graph.initializer)
    assert manifest_of(folder)["files"]["int8-static"]["balanced"] is True
    plain = export_run(tones_run, tmp_path / "plain", overrides=[*overrides, "smooth_alpha=0"])
    assert manifest_of(plain.folder)["files"]["int8-static"]["balanced"] is False


def test_runs_with_the_older_fp16_key_are_read(tones_run: Path) -> None:
    assert SpeechExportSection.model_validate({"fp16": False}).precisions is None
    recipe = open_run(tones_run).recipe
    assert export_settings(recipe, ["fp16=true"]).precisions == ["int8-dynamic", "fp16"]


def test_balancing_changes_no_answer(tones_artifact: Path, tones_run: Path, tmp_path) -> None:
    import onnxruntime

    from export.quantization.smooth import smooth_graph

    run = open_run(tones_run)
    plain, balanced = tones_artifact / "onnx" / "model.onnx", tmp_path / "balanced.onnx"
    inputs = manifest_of(tones_artifact)["inputs"]
    feeds = read_feeds(calibration_recordings(run, 6), run_settings(run), inputs)
    copy = shutil.copy(plain, tmp_path / "model.onnx")
    assert smooth_graph(Path(copy), balanced, feeds, head_modules=("lm_head",)) == 3
    before, after = (
        onnxruntime.InferenceSession(str(path)).run(["logits"], feeds[0])[0]
        for path in (plain, balanced)
    )
    np.testing.assert_allclose(after, before, atol=1e-4)
