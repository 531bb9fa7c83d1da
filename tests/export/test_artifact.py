"""The artifact folder: layout, manifest, hashes, and what a failed export leaves."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from export.exporting import export_run, export_settings, open_artifact
from finetune.core.errors import FolderError, GateError, RecipeError
from finetune.core.libraries import transformers_major
from finetune.run_folder import open_run

LAYOUT = {
    "README.md",
    "answers/logits.safetensors",
    "answers/rows.json",
    "config.json",
    "manifest.json",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "predict.py",
    "token_ids.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
if transformers_major() < 5:
    LAYOUT |= {"special_tokens_map.json", "vocab.txt"}
STEPS = [
    "training",
    "reloaded",
    "merged",
    "onnx-fp32",
    "onnx-fp32-unpadded",
    "onnx-fused",
    "onnx-int8",
]


def files_of(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_layout_holds_no_pickle_and_nothing_of_the_workshop(make_artifact):
    folder = make_artifact("lora", "roberta")
    assert files_of(folder) == LAYOUT
    leftovers = [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]
    assert not leftovers
    for name in LAYOUT:
        head = (folder / name).read_bytes()[:4]
        assert not head.startswith((b"PK", b"\x80")), f"{name} looks like a pickle or an archive"


def test_the_manifest_describes_the_artifact(make_artifact, make_run):
    artifact = open_artifact(make_artifact("lora", "roberta"))
    manifest, run = artifact.manifest, open_run(make_run("lora", "roberta"))
    assert (artifact.status, artifact.method) == ("passed", "lora")
    assert (artifact.labels, artifact.max_length) == (("부정", "긍정"), 32)
    assert artifact.precisions == ("fp32", "int8")
    assert artifact.path("int8").is_file()
    assert manifest.padding_side == "right"
    assert manifest.opset == run.recipe.export.opset
    assert manifest.inputs == ("input_ids", "attention_mask")
    assert manifest.base == run.base
    digest = hashlib.sha256((run.folder / "run.json").read_bytes()).hexdigest()
    assert manifest.parent.run_sha256 == digest
    assert manifest.parent.files == run.info.files
    assert manifest.tokenizer_sha256 == manifest.sha256["tokenizer.json"]
    assert manifest.data.fingerprint == run.info.data_fingerprint
    assert manifest.metrics["test"]["accuracy"] == run_metrics(run)["test"]["all"]["accuracy"]
    assert manifest.provenance.packages["onnxruntime"]
    int8 = manifest.files["int8"]
    assert int8.instruction_set["name"]
    assert int8.bytes < manifest.files["fp32"].bytes
    assert set(manifest.sha256) == LAYOUT - {"manifest.json"}


def run_metrics(run) -> dict:
    return json.loads((run.folder / "metrics.json").read_text("utf-8"))


def test_the_ladder_is_climbed_step_by_step(make_artifact, make_run):
    ladder = open_artifact(make_artifact("lora", "roberta")).manifest.ladder
    assert [step["name"] for step in ladder] == STEPS
    rows = len(read_validation(make_run("lora", "roberta")))
    assert {step["rows"] for step in ladder} == {rows}
    for step in ladder[1:6]:
        assert step["largest_logit_difference"] < 1e-4, step["name"]
        assert step["flipped_above_margin"] == 0
    assert ladder[-1]["largest_logit_difference"] > 0
    assert not [step["failure"] for step in ladder if step["failure"]]


def test_every_step_has_intervals_and_a_test_against_the_first(make_artifact):
    first, *others = open_artifact(make_artifact("lora", "roberta")).manifest.ladder
    assert first["mcnemar_p"] is None
    for step in others:
        assert 0 < step["mcnemar_p"] <= 1
        assert step["f1_interval"][0] <= step["f1_macro"] <= step["f1_interval"][1]
        assert step["accuracy_interval"][0] <= step["accuracy"] <= step["accuracy_interval"][1]


def test_precisions_asked_for_are_made_checked_and_measured(make_run, tmp_path):
    artifact = export_run(
        make_run("full", "bert"),
        tmp_path / "artifact",
        overrides=[
            "precisions=[int8-static,int8-weight]",
            "max_accuracy_drop=1",
            "max_flipped_above_margin=1",
            "calibration_rows=16",
            "stability_rows=24",
        ],
    )
    assert artifact.precisions == ("fp32", "int8-static", "int8-weight")
    assert artifact.path("int8-static").name == "model_int8.onnx"
    static = artifact.manifest.files["int8-static"]
    assert (static.calibration, static.balanced) == ("percentile", True)
    assert static.instruction_set["name"]
    assert [step["name"] for step in artifact.manifest.ladder][-2:] == [
        "onnx-int8-static",
        "onnx-int8-weight",
    ]
    stability = artifact.manifest.stability
    assert set(stability) == {"int8-static", "int8-weight"}
    assert {found["rows"] for found in stability.values()} == {24}
    assert "onnx/model_int8.onnx" in artifact.manifest.sha256
    assert not [name for name in files_of(artifact.folder) if "work" in name]


def read_validation(folder):
    from finetune.run_folder import read_rows

    return read_rows(open_run(folder), "validation")


def test_the_config_is_plain(make_artifact):
    config = json.loads((make_artifact("lora", "roberta") / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "부정", "1": "긍정"}
    assert not config.get("_name_or_path")
    assert "quantization_config" not in config


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json", "README.md"])
def test_a_changed_byte_is_refused_and_named(make_artifact, tmp_path, name):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(FolderError, match=f"{name} was changed"):
        open_artifact(folder)
    assert open_artifact(folder, verify=False).name == "roberta-lora"


def test_a_missing_file_is_refused(make_artifact, tmp_path):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FolderError, match=r"tokenizer\.json is missing"):
        open_artifact(folder)


def test_a_failed_gate_keeps_what_was_made_and_the_earlier_artifact(make_run, tmp_path):
    target = tmp_path / "artifact"
    good = export_run(make_run("full", "bert"), target, overrides=["max_accuracy_drop=1"])
    with pytest.raises(GateError, match=r"onnx-fp32: largest logit difference") as told:
        export_run(make_run("full", "bert"), target, overrides=["max_logit_difference=1e-12"])
    assert told.value.exit_code == 1
    assert open_artifact(target).manifest == good.manifest
    failed = open_artifact(tmp_path / "artifact.failed")
    assert failed.status == "failed"
    assert files_of(failed.folder) == LAYOUT
    assert "FAILED" in (failed.folder / "README.md").read_text("utf-8")


def test_a_folder_of_something_else_is_not_replaced(make_run, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderError, match="not an artifact"):
        export_run(make_run("full", "bert"), tmp_path)
    assert files_of(tmp_path) == {"thesis.txt"}


def test_a_run_is_not_replaced_by_its_artifact(make_run):
    with pytest.raises(FolderError, match="not an artifact"):
        export_run(make_run("full", "bert"), make_run("full", "bert"))


def test_settings_come_from_the_recipe_and_overrides(make_run):
    recipe = open_run(make_run("full", "bert")).recipe
    settings = export_settings(recipe, ["opset=18", "export.check_rows=10"])
    assert (settings.opset, settings.check_rows) == (18, 10)
    assert settings.max_accuracy_drop == recipe.export.max_accuracy_drop


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("opse=18", "did you mean `opset`"),
        ("training.epochs=3", "only the export section"),
        ("check_rows=many", "export -> check_rows"),
        ("opset", "key.sub=value"),
    ],
)
def test_wrong_overrides_are_told(make_run, override, message):
    with pytest.raises(RecipeError, match=message):
        export_settings(open_run(make_run("full", "bert")).recipe, [override])


def test_an_artifact_is_not_a_run_and_a_run_not_an_artifact(make_artifact, make_run):
    with pytest.raises(FolderError, match="artifact folder"):
        export_run(make_artifact("lora", "roberta"))
    with pytest.raises(FolderError, match="not an artifact"):
        open_artifact(make_run("lora", "roberta"))
