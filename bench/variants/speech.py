"""What is compared in speech: PyTorch and ONNX variants of runs, artifacts and the base size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.results.speech_records import BASE
from export.artifact.folder import MANIFEST, Artifact, open_artifact, write_draft
from export.graph.files import model_bytes
from finetune.core.errors import FolderError
from finetune.core.files import sha256_file
from finetune.core.provenance import cpu_has_bf16
from finetune.recipes.methods import METHODS
from finetune.run_folder import Run, open_run, read_rows

CONV = "int8conv"
CALIBRATION_ROWS = 16
RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
PRECISIONS = {
    "fp32": "",
    "int8": ", dynamic int8 on MatMul",
    "int8-static": ", static int8 on MatMul, calibrated",
    "int8-weight": ", weights in int8",
    "int4": ", weights in int4",
    "fp16": ", half precision",
    "bf16": ", bfloat16",
    "openvino-int8": ", static int8 on MatMul by NNCF",
    CONV: ", dynamic int8 on MatMul and Conv (ablation)",
}


@dataclass(frozen=True)
class SpeechVariant:
    """One row of the report. ``folder`` is what is loaded: a run, model folder or artifact.

    ``file`` is the artifact's precision that is opened, a key of its manifest's files;
    ``export_checks`` what that artifact's checks said, "passed" or "failed".
    """

    name: str
    group: str
    runtime: str
    precision: str
    folder: str
    size_bytes: int
    file: str | None = None
    export_checks: str | None = None

    @property
    def description(self) -> str:
        """What it is, in words."""
        if self.runtime == "pytorch":
            adapted = self.group in METHODS and METHODS[self.group].has_adapter
            merged = ", adapter merged" if adapted else ""
            half = ", under autocast to bfloat16" if self.precision == "bf16" else ""
            return f"PyTorch{merged}{half}"
        said = PRECISIONS.get(self.file) or PRECISIONS[self.precision]
        return RUNTIMES[self.runtime] + said

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
        *_exported(run.method, artifact.folder, artifact.manifest["files"], artifact.status),
    ]


def base_variants(run: Run, artifact: Artifact, scratch: Path) -> list[SpeechVariant]:
    """base-960h's architecture with random weights in the artifact's precisions, in ``scratch``.

    The run's validation recordings calibrate what is to be calibrated.
    """
    from bench.variants.speech_base import make_base_model

    audio = read_rows(run, "validation")["audio"].tolist()[:CALIBRATION_ROWS]
    model, folder, files = make_base_model(scratch, artifact.precisions, audio)
    weights = (model / "model.safetensors").stat().st_size
    return [*_pytorch(BASE, str(model), weights), *_exported(BASE, folder, files)]


def conv_variants(variants: Sequence[SpeechVariant], scratch: Path) -> list[SpeechVariant]:
    """Each group's fp32 graph with convolutions in dynamic int8 as well: the ablation."""
    import json
    import shutil

    from bench.variants.speech_base import quantize_convolutions

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
                model_bytes(target / file), CONV, one.export_checks,
            )
        )  # fmt: skip
    return made


def _exported(
    group: str, folder: Path, files: dict[str, Any], checks: str | None = None
) -> list[SpeechVariant]:
    """A variant of every file: ``<group>-<runtime>-<precision>``."""
    found = []
    for file, entry in files.items():
        runtime = entry.get("runtime", "onnx")
        precision, size = file.removeprefix("openvino-"), model_bytes(folder / entry["path"])
        name = f"{group}-{runtime}-{precision}"
        place = str(folder)
        found.append(SpeechVariant(name, group, runtime, precision, place, size, file, checks))
    return found


def _pytorch(group: str, folder: str, weights: int) -> list[SpeechVariant]:
    precisions = ["fp32", *(["bf16"] if cpu_has_bf16() else [])]
    return [
        SpeechVariant(f"{group}-pytorch-{one}", group, "pytorch", one, folder, weights)
        for one in precisions
    ]
