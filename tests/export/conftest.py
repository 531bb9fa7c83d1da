"""A workshop on a tiny exported model, as the export has it in the middle of its work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from export.artifact.manifest import Draft
from export.graph.fusion import fuse_graph
from export.quantization.calibration import calibration_feeds
from export.quantization.workshop import Workshop
from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import read_manifest
from finetune.run_folder import open_run


def classify(
    folder: Path, precision: str, texts: Sequence[str], *, alone: bool = False
) -> np.ndarray:
    """Logits of texts by the shipped runtime."""
    classifier = OnnxClassifier(folder, precision, verify=False)
    if alone:
        return np.concatenate([classifier.logits([text]) for text in texts])
    return classifier.logits(texts)


@pytest.fixture(scope="session")
def make_workshop(
    tmp_path_factory: pytest.TempPathFactory,
    make_artifact: Callable[[str, str], Path],
    make_run: Callable[[str, str], Path],
) -> Callable[[str], Workshop]:
    """A function: architecture → the workshop of the exported LoRA run, made once."""
    made: dict[str, Workshop] = {}

    def make(kind: str) -> Workshop:
        if kind not in made:
            folder = tmp_path_factory.mktemp("workshop") / kind
            shutil.copytree(make_artifact("lora", kind), folder)
            facts = json.loads((folder / "manifest.json").read_text("utf-8"))
            files = facts.pop("files")
            del facts["schema"], facts["sha256"]
            plain, fused = folder / "onnx" / "model.onnx", folder / ".work" / "fused.onnx"
            fused.parent.mkdir()
            fuse_graph(plain, fused, heads=4, hidden_size=64)
            run = open_run(make_run("lora", kind))
            made[kind] = Workshop(
                draft=Draft(folder, {**facts, "status": "building"}, files),
                head_modules=("classifier",),
                heads=4,
                hidden_size=64,
                plain=plain,
                fused=fused,
                make_feeds=partial(calibration_feeds, run, 24, folder, read_manifest(folder)),
                run_file=partial(classify, folder),
                smooth_alpha=0.5,
                int8_embeddings=False,
                device="cpu",
            )
        return made[kind]

    return make
