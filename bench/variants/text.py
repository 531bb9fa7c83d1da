"""What is compared: ``<method>-<runtime>-<precision>`` variants of run and artifact folders."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.variants.cuda import cuda_choices, onnx_precisions
from export.artifact.folder import MANIFEST, Artifact, failed_target, open_artifact
from export.runtime.texts import manifest_preparation
from finetune.core.errors import FolderError, RecipeError
from finetune.core.files import sha256_file
from finetune.core.preparation import Preparation
from finetune.core.provenance import cpu_has_bf16
from finetune.recipes.methods import METHODS
from finetune.run_folder import Run, open_run
from finetune.studies.seeds import runs_of_seeds

TFIDF = "tfidf-sklearn-fp64"
DESCRIPTIONS = {
    "pytorch": "PyTorch, as trained",
    "pipeline": "transformers.pipeline with its defaults",
    "merged": "PyTorch, adapter merged into the weights",
    "compiled": "PyTorch, merged, torch.compile",
    "optimum": "Optimum's ORTModelForSequenceClassification in transformers.pipeline",
    "onnx": "tokenizers + ONNX Runtime",
    "sklearn": "character n-gram TF-IDF + logistic regression on the same training rows",
}
EXPORTED = ("onnx", "optimum")  # runtimes that load an artifact's files
CONVERTED = {
    "bf16": ", weights converted to bfloat16",
    "fp16": ", weights converted to float16",
    "tf32": ", products in TF32",
}


@dataclass(frozen=True)
class Contender:
    """A run, its artifact, or both: what variants are made of."""

    run: Run | None
    artifact: Artifact | None

    @property
    def name(self) -> str:
        """The run's name, which an artifact keeps."""
        return self.run.name if self.run else self.artifact.name

    @property
    def method(self) -> str:
        """A key of ``finetune.methods.METHODS``."""
        return self.run.method if self.run else self.artifact.method

    @property
    def preparation(self) -> Preparation:
        """How its texts are prepared, whatever runs it."""
        if self.run:
            return self.run.preparation
        return manifest_preparation(self.artifact.folder, self.artifact.manifest)

    @property
    def folder(self) -> Path:
        """Where it lies: the run where there is one."""
        return self.run.folder if self.run else self.artifact.folder


@dataclass(frozen=True)
class Variant:
    """One row of the report. ``folder`` is what is loaded; None until ``prepare`` has made it."""

    name: str
    method: str
    runtime: str
    precision: str
    folder: Path | None
    source: Contender | None
    description: str
    device: str = "cpu"
    is_noise_pair: bool = False
    slowdown: float = 0.0  # of every call, for the proof that differences are found

    @property
    def export_checks(self) -> str | None:
        """What the checks of the artifact said that this is made of; None without an artifact."""
        exported = self.runtime in EXPORTED and self.source and self.source.artifact
        if not exported:
            return None
        return "passed" if self.source.artifact.status == "passed" else "failed"

    @property
    def as_trained(self) -> bool:
        """Whether the run's stored logits are this variant's own."""
        return self.runtime == "pytorch" and self.precision in ("fp32", "nf4")

    def as_job(self) -> dict[str, Any]:
        """The same in JSON's terms, for a worker."""
        return {
            "name": self.name,
            "method": self.method,
            "runtime": self.runtime,
            "precision": self.precision,
            "folder": str(self.folder),
            "device": self.device,
            "slowdown": self.slowdown,
            "max_length": self.source.run.max_length if self.source and self.source.run else None,
            "preparation": self.source.preparation.as_dict() if self.source else None,
        }


def find_contenders(folders: Sequence[Path]) -> list[Contender]:
    """Run and artifact folders → contenders, each run with its artifact and the other way round.

    A summary of several seeds stands for its runs. Every hash is checked. Raises FolderError.
    """
    runs: dict[Path, Run] = {}
    artifacts: list[Artifact] = []
    for folder in [one for given in folders for one in runs_of_seeds(given) or [given]]:
        if (folder / MANIFEST).is_file():
            artifacts.append(open_artifact(folder))
        else:
            runs[folder.resolve()] = open_run(folder)
    for artifact in artifacts:
        parent = _find_parent(artifact, list(runs.values()))
        if parent is not None:
            runs.setdefault(parent.folder.resolve(), parent)
    taken, contenders = set(), []
    for run in runs.values():
        artifact = _find_artifact(run, artifacts)
        contenders.append(Contender(run, artifact))
        taken |= {artifact.folder} if artifact else set()
    contenders += [Contender(None, one) for one in artifacts if one.folder not in taken]
    return sorted(contenders, key=lambda one: list(METHODS).index(one.method))


def list_variants(
    contenders: Sequence[Contender], *, device: str = "cpu"
) -> tuple[list[Variant], list[Variant]]:
    """The default variants, and those that are measured on request (bf16, Optimum)."""
    default: list[Variant] = []
    optional: list[Variant] = []
    for contender, prefix in zip(contenders, _prefixes(contenders), strict=True):
        if contender.run is not None:
            method = METHODS[contender.method]
            chosen = [("pytorch", "nf4" if method.quantised else "fp32")]
            chosen += [("merged", "fp32")] if method.has_adapter else []
            chosen += cuda_choices(contender.method) if device == "cuda" else []
            default += [_pytorch(contender, prefix, *one, device) for one in chosen]
            if cpu_has_bf16() and device == "cpu":
                half = "merged" if method.has_adapter else "pytorch"
                optional.append(_pytorch(contender, prefix, half, "bf16", device))
        if contender.artifact is not None:
            default += [
                _onnx(contender, prefix, precision, device)
                for precision in onnx_precisions(contender.artifact.precisions, device)
            ]
            optional += [
                _onnx(contender, prefix, precision, device, runtime="optimum")
                for precision in contender.artifact.precisions
                if not precision.startswith("openvino")
            ]
    pipe = next((one for one in default if one.runtime == "pytorch" and one.method == "full"), None)
    if pipe is not None:
        name = pipe.name.replace("-pytorch-", "-pipeline-")
        default.insert(
            default.index(pipe) + 1,
            dataclasses.replace(
                pipe,
                name=name,
                runtime="pipeline",
                folder=pipe.source.run.folder / "model",
                description=DESCRIPTIONS["pipeline"],
            ),
        )
    if any(one.run for one in contenders):
        default.append(
            Variant(TFIDF, "tfidf", "sklearn", "fp64", None, None, DESCRIPTIONS["sklearn"])
        )
    return default, optional


def choose_variants(
    contenders: Sequence[Contender], wanted: str | Sequence[str], *, device: str = "cpu"
) -> list[Variant]:
    """``default``, or the named variants in the order named; raises RecipeError."""
    default, optional = list_variants(contenders, device=device)
    if wanted == "default":
        return default
    known = {variant.name: variant for variant in [*default, *optional]}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        near = [hit for name in unknown for hit in difflib.get_close_matches(name, known, n=1)]
        raise RecipeError(
            "bench.variants names no variant of these folders",
            received=", ".join(unknown) or "an empty list",
            allowed=", ".join(known),
            next_step=f"bench.variants=[{', '.join(near)}]" if near else None,
        )
    return [known[name] for name in dict.fromkeys(wanted)]


def choose_baseline(variants: Sequence[Variant], wanted: str | None) -> str:
    """The name all others are compared with; raises RecipeError where it is not measured.

    A variant whose export failed its checks is no baseline, unless nothing else is measured:
    then nothing is compared.
    """
    sound = [one for one in variants if one.export_checks != "failed"]
    names = [variant.name for variant in sound]
    if wanted is not None:
        if wanted not in names:
            failed = any(one.name == wanted for one in variants)
            raise RecipeError(
                "bench.baseline is of an export that failed its checks"
                if failed
                else "bench.baseline is not among the variants",
                received=wanted,
                allowed=", ".join(names) or None,
            )
        return wanted
    full = [one.name for one in sound if one.method == "full" and one.runtime == "pytorch"]
    torch = [one.name for one in sound if one.runtime in ("pytorch", "merged", "pipeline")]
    return [*full, *torch, *names, *(one.name for one in variants)][0]


def noise_pair(variants: Sequence[Variant], baseline: str) -> list[Variant]:
    """The same variants with the baseline a second time: any difference of the two is noise."""
    again = next(one for one in variants if one.name == baseline)
    text = f"{again.description}; the baseline again, for the noise floor"
    name = f"{baseline}-again"
    pair = dataclasses.replace(again, name=name, description=text, is_noise_pair=True)
    place = list(variants).index(again) + 1
    return [*variants[:place], pair, *variants[place:]]


def _pytorch(
    contender: Contender, prefix: str, runtime: str, precision: str, device: str
) -> Variant:
    text = DESCRIPTIONS[runtime]
    if runtime == "pytorch":
        text += METHODS[contender.method].as_trained
    return Variant(
        name=f"{prefix}-{runtime}-{precision}",
        method=contender.method,
        runtime=runtime,
        precision=precision,
        folder=contender.run.folder if runtime == "pytorch" else None,
        source=contender,
        description=text + CONVERTED.get(precision, ""),
        device=device,
    )


def _onnx(
    contender: Contender, prefix: str, precision: str, device: str, *, runtime: str = "onnx"
) -> Variant:
    notes = {"int8": ", dynamic int8", "fp16": ", float16"}
    text = DESCRIPTIONS[runtime] + notes.get(precision, "")
    if contender.artifact.status == "failed":
        text += "; its export checks FAILED"
    return Variant(
        name=f"{prefix}-{runtime}-{precision}",
        method=contender.method,
        runtime=runtime,
        precision=precision,
        folder=contender.artifact.folder,
        source=contender,
        description=text,
        device=device if precision != "int8" else "cpu",
    )


def _prefixes(contenders: Sequence[Contender]) -> list[str]:
    """The method where it is the only one of its kind, else the run's name, else its folder's."""
    methods = Counter(one.method for one in contenders)
    names = Counter(one.name for one in contenders)
    prefixes = [
        one.method
        if methods[one.method] == 1
        else (one.name if names[one.name] == 1 else one.folder.name)
        for one in contenders
    ]
    double = [name for name, count in Counter(prefixes).items() if count > 1]
    if double:
        raise FolderError(
            "two folders cannot be told apart by name",
            received=", ".join(double),
            next_step="give one of them another folder name",
        )
    return prefixes


def _find_parent(artifact: Artifact, runs: Sequence[Run]) -> Run | None:
    """The run an artifact was made of: among those given, then in the usual places."""
    told = artifact.manifest["parent"]
    for run in runs:
        if _is_parent(run.folder, told):
            return run
    root = artifact.folder.resolve().parent.parent
    for folder in (root / "runs" / told["run"], Path("runs") / told["run"]):
        if _is_parent(folder, told):
            return open_run(folder)
    return None


def _find_artifact(run: Run, artifacts: Sequence[Artifact]) -> Artifact | None:
    """The artifact made of a run: among those given, then in the usual places."""
    for artifact in artifacts:
        if _is_parent(run.folder, artifact.manifest["parent"]):
            return artifact
    root = run.folder.resolve().parent.parent
    for target in (root / "artifacts" / run.name, Path("artifacts") / run.name):
        for folder in (target, failed_target(target)):
            if (folder / MANIFEST).is_file():
                artifact = open_artifact(folder)
                if _is_parent(run.folder, artifact.manifest["parent"]):
                    return artifact
    return None


def _is_parent(folder: Path, told: dict[str, Any]) -> bool:
    document = folder / "run.json"
    return document.is_file() and sha256_file(document) == told["run_sha256"]
