"""What the benchmark asks of text classification beyond what its story tests show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench.tasks.text import TextTask
from bench.variants.contenders import Contender
from bench.variants.text import list_variants
from export.artifact.folder import open_artifact
from export.artifact.manifest import FileRecord


def test_a_file_of_openvino_is_counted_with_its_weights(make_artifact, tmp_path: Path) -> None:
    """The .xml is the graph alone."""
    artifact = open_artifact(make_artifact("lora", "roberta"))
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "model.xml").write_bytes(b"x" * 10)
    (tmp_path / "openvino" / "model.bin").write_bytes(b"x" * 1000)
    files = {"openvino-fp32": FileRecord(path="openvino/model.xml", runtime="openvino")}
    manifest = artifact.manifest.model_copy(update={"files": files})
    exported = dataclasses.replace(artifact, folder=tmp_path, manifest=manifest)
    (variant,) = list_variants([Contender(None, exported)])[0]
    assert TextTask().describe_prepared(variant, None).size_bytes == 1010
