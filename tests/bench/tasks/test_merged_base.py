"""The merged variant of a QLoRA run is merged into the base that its export chose."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from older_documents import TEXT_MANIFEST
from safetensors.numpy import load_file

from bench.engines.text import write_merged
from bench.variants.contenders import Contender
from bench.variants.text import merge_base
from export.artifact.folder import Artifact
from export.artifact.manifest import ArtifactManifest
from export.graph.merging import merge_adapter
from finetune.run_folder import open_run


def exported(manifest: dict) -> Artifact:
    """An artifact of which only the manifest matters."""
    return Artifact(Path("made"), ArtifactManifest.model_validate({**TEXT_MANIFEST, **manifest}))


def test_the_base_is_the_artifact_s_or_the_recipe_s(make_run) -> None:
    run = open_run(make_run("qlora", "roberta"))
    assert merge_base(Contender(run, exported({"merge_base": "original"}))) == "original"
    assert merge_base(Contender(run, exported({"merge_base": "dequantized"}))) == "dequantized"
    assert merge_base(Contender(run, None)) == "dequantized"
    export = run.recipe.export.model_copy(update={"merge_base": "original"})
    named = dataclasses.replace(run, recipe=run.recipe.model_copy(update={"export": export}))
    assert merge_base(Contender(named, None)) == "original"


@pytest.mark.parametrize("base", ["dequantized", "original"])
def test_what_is_measured_has_that_base_s_weights(make_run, tmp_path, base) -> None:
    folder = make_run("qlora", "roberta")
    write_merged(folder, tmp_path, {"base": base})
    found = load_file(tmp_path / "model.safetensors")
    (name,) = [one for one in found if one.endswith("layer.0.attention.self.query.weight")]
    wanted = merge_adapter(open_run(folder), base).state_dict()[name].numpy()
    other = {"dequantized": "original", "original": "dequantized"}[base]
    assert (found[name] == wanted).all()
    assert (found[name] != merge_adapter(open_run(folder), other).state_dict()[name].numpy()).any()
