"""Names, pairs of run and artifact, the default set, the baseline."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from older_documents import TEXT_MANIFEST, TEXT_RUN

from bench.settings import BenchSection, SpeechBenchSection
from bench.tasks.text import TextTask
from bench.variants import text as module
from bench.variants.contenders import (
    Contender,
    Variant,
    choose_baseline,
    choose_variants,
    find_contenders,
    noise_pair,
)
from bench.variants.text import list_variants
from export.artifact.folder import Artifact
from export.artifact.manifest import ArtifactManifest
from finetune.core.errors import FolderError, RecipeError
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import Run
from finetune.run_records import RunRecord

RECIPE = FinetuneRecipe.model_validate({"data": {"source": "sample"}})


def contender(method: str, name: str = "", *, exported: bool = True) -> Contender:
    folder = Path("runs") / (name or method)
    labels = ("부정", "긍정")
    told = {**TEXT_RUN, "name": name or method, "method": method, "labels": labels}
    info = RunRecord.model_validate(told)
    run = Run(folder, RECIPE, info)
    told = {**TEXT_MANIFEST, "name": run.name, "method": method, "labels": labels}
    artifact = Artifact(Path("artifacts") / run.name, ArtifactManifest.model_validate(told))
    return Contender(run, artifact if exported else None)


def chosen_of(contenders: list[Contender], wanted: str | list[str]) -> list[Variant]:
    return choose_variants(*list_variants(contenders), wanted)


def names(*contenders: Contender) -> list[str]:
    return [one.name for one in list_variants(contenders)[0]]


def test_the_default_set_of_three_methods() -> None:
    assert names(contender("full"), contender("lora"), contender("qlora")) == [
        "full-pytorch-fp32",
        "full-pipeline-fp32",
        "full-onnx-fp32",
        "full-onnx-int8",
        "lora-pytorch-fp32",
        "lora-merged-fp32",
        "lora-onnx-fp32",
        "lora-onnx-int8",
        "qlora-pytorch-nf4",
        "qlora-merged-fp32",
        "qlora-onnx-fp32",
        "qlora-onnx-int8",
        "tfidf-sklearn-fp64",
    ]


def test_a_run_without_artifact_has_no_onnx_variants() -> None:
    assert not any("onnx" in name for name in names(contender("lora", exported=False)))


def test_an_artifact_without_run_has_nothing_but_onnx() -> None:
    alone = Contender(None, contender("lora").artifact)
    assert names(alone) == ["lora-onnx-fp32", "lora-onnx-int8"]


def test_two_runs_of_one_method_go_by_their_names() -> None:
    found = names(contender("full"), contender("lora", "r8"), contender("lora", "r16"))
    assert len(set(found)) == len(found)
    assert {"full-pytorch-fp32", "r8-onnx-int8", "r16-onnx-int8"} <= set(found)


def test_two_runs_of_one_name_in_one_named_folder_are_refused() -> None:
    one, other = contender("lora"), contender("lora")
    with pytest.raises(FolderError, match="told apart"):
        list_variants([one, other])


def test_bf16_is_offered_where_the_cpu_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)
    default, optional = list_variants([contender("full"), contender("lora")])
    halves = [one.name for one in optional if one.precision == "bf16"]
    assert halves == ["full-pytorch-bf16", "lora-merged-bf16"]
    assert not {one.name for one in optional} & {one.name for one in default}
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: False)
    assert not [one for one in list_variants([contender("full")])[1] if one.precision == "bf16"]


def test_optimum_is_measured_on_request_over_the_same_file() -> None:
    default, _ = list_variants([contender("full")])
    assert not [one for one in default if one.runtime == "optimum"]
    ours, theirs = chosen_of([contender("full")], ["full-onnx-int8", "full-optimum-int8"])
    assert (ours.folder, ours.precision) == (theirs.folder, theirs.precision)
    assert "ORTModelForSequenceClassification" in theirs.description


def test_named_variants_come_in_their_order_and_typos_get_a_suggestion() -> None:
    both = [contender("full"), contender("lora")]
    chosen = chosen_of(both, ["lora-onnx-int8", "full-pytorch-fp32"])
    assert [one.name for one in chosen] == ["lora-onnx-int8", "full-pytorch-fp32"]
    with pytest.raises(RecipeError, match=r"try: .*lora-onnx-int8"):
        chosen_of(both, ["lora-onxn-int8"])


def test_the_baseline_is_full_fine_tuning_in_pytorch() -> None:
    chosen = chosen_of([contender("lora"), contender("full")], "default")
    assert choose_baseline(chosen, None) == "full-pytorch-fp32"
    assert choose_baseline(chosen, "lora-onnx-fp32") == "lora-onnx-fp32"
    only_lora = chosen_of([contender("lora")], "default")
    assert choose_baseline(only_lora, None) == "lora-pytorch-fp32"
    with pytest.raises(RecipeError, match="not among"):
        choose_baseline(only_lora, "full-pytorch-fp32")


def test_the_noise_pair_is_the_baseline_twice() -> None:
    chosen = chosen_of([contender("full")], "default")
    pair = noise_pair(chosen, "full-pytorch-fp32")[:2]
    assert [one.name for one in pair] == ["full-pytorch-fp32", "full-pytorch-fp32-again"]
    assert pair[0].as_job() == {**pair[1].as_job(), "name": pair[0].name}


def test_only_models_as_trained_may_use_the_runs_predictions() -> None:
    chosen = chosen_of([contender("full"), contender("qlora")], "default")
    assert [one.name for one in chosen if one.as_trained] == [
        "full-pytorch-fp32",
        "qlora-pytorch-nf4",
    ]
    converted = dataclasses.replace(chosen[0], precision="bf16")
    assert not converted.as_trained


def test_folders_become_contenders_whichever_is_named(
    make_run, make_artifact, tmp_path: Path
) -> None:
    """Beside each other as ``runs/NAME`` and ``artifacts/NAME``, either finds the other."""
    artifact = make_artifact("lora", "roberta")
    run = make_run("lora", "roberta")
    shutil.copytree(run, tmp_path / "runs" / run.name)
    shutil.copytree(artifact, tmp_path / "artifacts" / run.name)
    for folder in (tmp_path / "runs" / run.name, tmp_path / "artifacts" / run.name):
        (found,) = find_contenders([folder])
        assert found.run.folder.resolve() == tmp_path / "runs" / run.name
        assert found.artifact.folder.resolve() == tmp_path / "artifacts" / run.name


def test_an_artifact_of_another_run_is_not_taken(make_run, make_artifact, tmp_path: Path) -> None:
    run = make_run("full", "roberta")
    shutil.copytree(run, tmp_path / "runs" / run.name)
    shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "artifacts" / run.name)
    (found,) = find_contenders([tmp_path / "runs" / run.name])
    assert found.artifact is None


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="not a run folder"):
        find_contenders([tmp_path])


def exported(files: dict[str, dict[str, str]], status: str = "passed", **facts: str) -> Contender:
    one = contender("qlora")
    entries = {key: {"path": f"{key}.onnx", **entry} for key, entry in files.items()}
    told = {**one.artifact.manifest.as_dict(), "files": entries, "status": status, **facts}
    return Contender(one.run, Artifact(one.artifact.folder, ArtifactManifest(**told)))


def test_a_file_is_named_after_what_runs_it() -> None:
    files = {"fp32": {}, "int8-static": {}, "openvino-int8": {"runtime": "openvino"}}
    found = {one.name: one for one in list_variants([exported(files)])[0] if one.file}
    assert list(found) == ["qlora-onnx-fp32", "qlora-onnx-int8-static", "qlora-openvino-int8"]
    by_openvino = found["qlora-openvino-int8"]
    assert (by_openvino.runtime, by_openvino.precision) == ("openvino", "int8")
    assert by_openvino.as_job()["file"] == "openvino-int8"
    assert "OpenVINO" in by_openvino.description and "ONNX" not in by_openvino.description
    assert "static int8" in found["qlora-onnx-int8-static"].description


@pytest.mark.parametrize(
    ("facts", "base"), [({}, "dequantized"), ({"merge_base": "original"}, "original")]
)
def test_merged_is_what_the_export_merged(facts: dict[str, str], base: str) -> None:
    one = exported({"fp32": {}}, **facts)
    merged = next(v for v in list_variants([one])[0] if v.runtime == "merged")
    assert f"of the {base} base" in merged.description
    assert TextTask().making(merged, [one]).options == {"base": base}


def test_a_failed_export_is_no_baseline() -> None:
    files = {"fp32": {}, "int8": {}}
    found = list_variants([exported(files, status="failed")])[0]
    assert {one.export_checks for one in found if one.file} == {"failed"}
    alone = [one for one in found if one.file]
    assert choose_baseline([*alone, *found], None) == "qlora-pytorch-nf4"
    assert choose_baseline(alone, None) == alone[0].name  # then nothing is compared, nor where
    assert choose_baseline(found, alone[0].name) == alone[0].name  # it was asked for


def test_as_many_rounds_as_are_asked_for() -> None:
    assert BenchSection(rounds=3).target_half_width is None
    assert BenchSection(processes=1).target_half_width is None
    assert BenchSection(rounds=3, target_half_width=0.01).target_half_width == 0.01
    assert BenchSection(rounds=3, time_budget_s=60).target_half_width == 0.03
    assert BenchSection(threads=1).target_half_width == 0.03
    assert SpeechBenchSection(rounds=3).target_half_width is None
