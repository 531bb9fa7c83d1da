"""Runs and artifacts that are compared, and the ``<method>-<runtime>-<precision>`` made of them.

What a task makes of a run or an artifact stands beside this file (``text.py``, ``speech.py``).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.variants.added import RUNTIMES
from export.artifact.folder import Artifact, failed_target, open_artifact
from export.artifact.manifest import MANIFEST, ParentRecord
from export.runtime.texts import manifest_preparation
from finetune.core.errors import FolderError, RecipeError
from finetune.core.files import sha256_file
from finetune.core.preparation import Preparation
from finetune.models.token_ids import check_shipped_ids
from finetune.recipes.methods import METHODS
from finetune.run_folder import Run, open_run, read_rows
from finetune.studies.seeds import runs_of_seeds
from finetune.tasks.registry import SPEECH, TEXT
from finetune.tasks.speech.ctc import read_speech_settings
from finetune.tasks.speech.features import check_features

AGAIN = "-again"  # the baseline's second time
TORCH_RUNTIMES = ("pytorch", "merged", "pipeline")
EXPORTED = ("onnx", "openvino", "optimum")  # runtimes that load an artifact's files


def is_exported(runtime: str) -> bool:
    """Whether a runtime, ours or a plugin's, loads an artifact's files."""
    return runtime in EXPORTED or runtime in RUNTIMES


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
        """A key of ``finetune.recipes.methods.METHODS``."""
        return self.run.method if self.run else self.artifact.method

    @property
    def preparation(self) -> Preparation | None:
        """How its texts are prepared, whatever runs it; None where it takes none."""
        if self.task != TEXT:
            return None
        if self.run:
            return self.run.preparation
        return manifest_preparation(self.artifact.folder, self.artifact.manifest.preparation)

    @property
    def folder(self) -> Path:
        """Where it lies: the run where there is one."""
        return self.run.folder if self.run else self.artifact.folder

    @property
    def task(self) -> str:
        """What it does: a name of ``bench/tasks/registry.py``."""
        return self.run.task if self.run else self.artifact.manifest.task


@dataclass(frozen=True)
class Variant:
    """One row of the report. ``folder`` is what is loaded; None until ``prepare`` has made it.

    ``group`` names a model that is compared with a baseline of its own and of which no accuracy
    is claimed (random weights in speech); None for what was trained. ``file`` is the key of the
    artifact's file where it is not the precision.
    """

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
    group: str | None = None
    file: str | None = None

    @property
    def export_checks(self) -> str | None:
        """What the checks of the artifact said that this is made of; None without an artifact."""
        exported = is_exported(self.runtime) and self.source and self.source.artifact
        if not exported:
            return None
        return "passed" if self.source.artifact.status == "passed" else "failed"

    @property
    def as_trained(self) -> bool:
        """Whether the run's stored logits are this variant's own."""
        return self.runtime == "pytorch" and self.precision in ("fp32", "nf4")

    @property
    def key(self) -> str:
        """The key of the artifact's file, where it is one of an artifact's."""
        return self.file or self.precision

    def as_job(self) -> dict[str, Any]:
        """The same in JSON's terms, for a worker."""
        run = self.source.run if self.source else None
        preparation = self.source.preparation if self.source else None
        return {
            "name": self.name,
            "method": self.method,
            "runtime": self.runtime,
            "precision": self.precision,
            "file": self.key,
            "folder": str(self.folder),
            "device": self.device,
            "slowdown": self.slowdown,
            "run": str(run.folder) if run else None,
            "max_length": run.max_length if run else None,
            "preparation": preparation.as_dict() if preparation else None,
        }


def find_contenders(folders: Sequence[Path]) -> list[Contender]:
    """Run and artifact folders → contenders, each run with its artifact and the other way round.

    A summary of several seeds stands for its runs. Every hash is checked, and what artifacts
    make of texts and recordings. Raises FolderError, also where the folders are of different
    tasks, and ModelError.
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
    _check_same_task(contenders)
    for artifact in (one.artifact for one in contenders):
        if artifact is not None:
            _check_inputs(artifact)
    return sorted(contenders, key=lambda one: list(METHODS).index(one.method))


def _check_inputs(artifact: Artifact) -> None:
    """Raise ModelError where texts or recordings become other inputs here than at the export."""
    if artifact.manifest.task == SPEECH:
        check_features(read_speech_settings(artifact.folder), artifact.folder)
    else:
        check_shipped_ids(artifact.folder)


def runs_of(contenders: Sequence[Contender]) -> list[Run]:
    """The runs among them; raises FolderError where there is none, and so no test row."""
    runs = [one.run for one in contenders if one.run is not None]
    if not runs:
        raise FolderError(
            "no test rows: none of these folders is a run, nor are the artifacts' runs found",
            received=", ".join(str(one.folder) for one in contenders),
            next_step="give the run folder as well",
        )
    return runs


def common_rows(
    runs: Sequence[Run], of_rows: Callable[[Any], list[Any]], of_run: Callable[[Run], Any]
) -> Any:
    """The test split of the first run as a DataFrame, checked to be that of every other.

    What ``of_rows`` takes of a DataFrame has to be the same for all, and what ``of_run`` says of
    a run. Raises FolderError.
    """
    first = read_rows(runs[0], "test")
    for run in runs[1:]:
        rows = read_rows(run, "test")
        same = len(rows) == len(first) and of_rows(rows) == of_rows(first)
        if not same or of_run(run) != of_run(runs[0]):
            raise FolderError(
                "the runs were tested on different rows",
                received=f"{runs[0].folder}: {len(first)} rows; {run.folder}: {len(rows)} rows",
                next_step="train them on the same data; for several seeds, data.seed=42 in all",
            )
    return first


def choose_variants(
    default: Sequence[Variant], optional: Sequence[Variant], wanted: str | Sequence[str]
) -> list[Variant]:
    """``default``, or the named variants in the order named; raises RecipeError."""
    if wanted == "default":
        return list(default)
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

    A variant whose export failed its checks is no baseline, unless it was asked for or nothing
    else is measured: then the report says so and compares nothing.
    """
    if wanted is not None:
        names = [variant.name for variant in variants]
        if wanted not in names:
            raise RecipeError(
                "bench.baseline is not among the variants",
                received=wanted,
                allowed=", ".join(names),
            )
        return wanted
    sound = [one for one in variants if one.export_checks != "failed"]
    names = [variant.name for variant in sound]
    own = [one for one in sound if one.group is None]
    full = [one.name for one in own if one.method == "full" and one.runtime == "pytorch"]
    torch = [one.name for one in own if one.runtime in TORCH_RUNTIMES]
    return [*full, *torch, *names, *(one.name for one in variants)][0]


def noise_pair(variants: Sequence[Variant], baseline: str) -> list[Variant]:
    """The same variants with the baseline a second time: any difference of the two is noise."""
    again = next(one for one in variants if one.name == baseline)
    text = f"{again.description}; the baseline again, for the noise floor"
    name = f"{baseline}{AGAIN}"
    pair = dataclasses.replace(again, name=name, description=text, is_noise_pair=True)
    place = list(variants).index(again) + 1
    return [*variants[:place], pair, *variants[place:]]


def variant_prefixes(contenders: Sequence[Contender]) -> list[str]:
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


def _check_same_task(contenders: Sequence[Contender]) -> None:
    tasks = {one.task for one in contenders}
    if len(tasks) > 1:
        raise FolderError(
            "these folders do different things, which nothing compares",
            received=", ".join(f"{one.folder}: {one.task}" for one in contenders),
            next_step="one benchmark for each task",
        )


def _find_parent(artifact: Artifact, runs: Sequence[Run]) -> Run | None:
    """The run an artifact was made of: among those given, then in the usual places."""
    told = artifact.manifest.parent
    for run in runs:
        if _is_parent(run.folder, told):
            return run
    root = artifact.folder.resolve().parent.parent
    for folder in (root / "runs" / told.run, Path("runs") / told.run):
        if _is_parent(folder, told):
            return open_run(folder)
    return None


def _find_artifact(run: Run, artifacts: Sequence[Artifact]) -> Artifact | None:
    """The artifact made of a run: among those given, then in the usual places."""
    for artifact in artifacts:
        if _is_parent(run.folder, artifact.manifest.parent):
            return artifact
    root = run.folder.resolve().parent.parent
    for target in (root / "artifacts" / run.name, Path("artifacts") / run.name):
        for folder in (target, failed_target(target)):
            if (folder / MANIFEST).is_file():
                artifact = open_artifact(folder)
                if _is_parent(run.folder, artifact.manifest.parent):
                    return artifact
    return None


def _is_parent(folder: Path, told: ParentRecord) -> bool:
    document = folder / "run.json"
    return document.is_file() and sha256_file(document) == told.run_sha256
