"""What is compared in speech: PyTorch and ONNX variants of runs, artifacts and the base size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.artifact_folder import MANIFEST, Artifact, open_artifact, write_draft
from export.files import model_bytes
from finetune.errors import FolderError
from finetune.files import sha256_file
from finetune.provenance import cpu_has_bf16
from finetune.run_folder import Run, open_run

BASE = "base"  # the group of the random-weights base size
CONV = "int8conv"
DESCRIPTIONS = {
    "pytorch-fp32": "PyTorch, adapter merged",
    "pytorch-bf16": "PyTorch under autocast to bfloat16",
    "onnx-fp32": "ONNX Runtime",
    "onnx-int8": "ONNX Runtime, dynamic int8 on MatMul",
    "onnx-fp16": "ONNX Runtime, half precision",
    "onnx-int8conv": "ONNX Runtime, dynamic int8 on MatMul and Conv (ablation)",
}


@dataclass(frozen=True)
class SpeechVariant:
    """One row of the report. ``folder`` is what is loaded: a run, model folder or artifact."""

    name: str
    group: str
    runtime: str
    precision: str
    folder: str
    size_bytes: int

    @property
    def description(self) -> str:
        """What it is, in words."""
        return DESCRIPTIONS[f"{self.runtime}-{self.precision}"]

    def as_job(self) -> dict[str, Any]:
        """The same in JSON's terms, for a worker."""
        return asdict(self)


def open_speech_pair(folders: Sequence[Path]) -> tuple[Run, Artifact]:
    """One run and the artifact made of it; raises FolderError where they are not that."""
    artifacts = [open_artifact(one) for one in folders if (one / MANIFEST).is_file()]
    runs = [open_run(one) for one in folders if not (one / MANIFEST).is_file()]
    if len(runs) != 1 or len(artifacts) != 1:
        raise FolderError(
            "a speech benchmark takes one run and its artifact",
            received=", ".join(map(str, folders)),
            next_step="kotune bench runs/NAME artifacts/NAME",
        )
    told = artifacts[0].manifest["parent"]["run_sha256"]
    if told != sha256_file(runs[0].folder / "run.json"):
        raise FolderError(
            "the artifact was not made of this run",
            received=f"{runs[0].folder} and {artifacts[0].folder}",
            next_step=f"kotune export {runs[0].folder}",
        )
    return runs[0], artifacts[0]


def trained_variants(run: Run, artifact: Artifact) -> list[SpeechVariant]:
    """Every way to run the trained model; PyTorch in fp32 comes first and is the baseline."""
    weights = sum(path.stat().st_size for path in (run.folder / "model").glob("*.safetensors"))
    return [
        *_pytorch(run.method, str(run.folder), weights),
        *(
            SpeechVariant(
                f"{run.method}-onnx-{precision}",
                run.method,
                "onnx",
                precision,
                str(artifact.folder),
                model_bytes(artifact.path(precision)),
            )
            for precision in artifact.precisions
        ),
    ]


def base_variants(scratch: Path) -> list[SpeechVariant]:
    """The same for base-960h's architecture with random weights, made in ``scratch``."""
    from bench.speech_base import make_base_model

    model, artifact = make_base_model(scratch)
    weights = (model / "model.safetensors").stat().st_size
    files = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
    return [
        *_pytorch(BASE, str(model), weights),
        *(
            SpeechVariant(
                f"{BASE}-onnx-{name}",
                BASE,
                "onnx",
                name,
                str(artifact),
                model_bytes(artifact / path),
            )
            for name, path in files.items()
        ),
    ]


def conv_variants(variants: Sequence[SpeechVariant], scratch: Path) -> list[SpeechVariant]:
    """Each group's fp32 graph with convolutions in dynamic int8 as well: the ablation."""
    import json
    import shutil

    from bench.speech_base import quantize_convolutions

    made = []
    for one in variants:
        if (one.runtime, one.precision) != ("onnx", "fp32"):
            continue
        source, target = Path(one.folder), scratch / f"{one.group}-{CONV}"
        manifest = json.loads((source / MANIFEST).read_text("utf-8"))
        shutil.copytree(source, target)
        file = "onnx/model_int8conv.onnx"
        quantize_convolutions(source / manifest["files"]["fp32"]["path"], target / file)
        manifest["files"][CONV] = {"path": file}
        write_draft(target, {key: manifest[key] for key in manifest if key != "schema"})
        made.append(
            SpeechVariant(
                f"{one.group}-onnx-{CONV}", one.group, "onnx", CONV, str(target),
                model_bytes(target / file),
            )
        )  # fmt: skip
    return made


def _pytorch(group: str, folder: str, weights: int) -> list[SpeechVariant]:
    precisions = ["fp32", *(["bf16"] if cpu_has_bf16() else [])]
    return [
        SpeechVariant(f"{group}-pytorch-{one}", group, "pytorch", one, folder, weights)
        for one in precisions
    ]
