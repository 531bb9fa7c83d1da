"""Stages that remember: a key of everything that went in, stored beside what came out.

A stage is done when its record's key is today's and its output is still the one it wrote. The
key holds the resolved recipe, the hashes of data and base model, the stage before, and kotune's
version; whatever of these changes makes it run again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.errors import FolderError, KotuneError
from finetune.core.files import read_json, sha256_file, write_json
from finetune.core.provenance import package_version
from finetune.models.source import KLUE, TINY
from finetune.recipes.files import expand_path
from finetune.recipes.sections import Recipe

SCHEMA = "kotune.stage/1"
MARKERS = {"finetune": "run.json", "export": "manifest.json", "bench": "results.json"}
SAMPLE = TINY.parent / "sample"


@dataclass(frozen=True)
class Record:
    """A stage that ended: its key, the folder it wrote, and the gate it failed at, if any."""

    stage: str
    key: str
    folder: Path
    marker_sha256: str
    seconds: float
    failure: str | None = None


def record_path(stage: str, target: Path) -> Path:
    """Where a stage's record stands: a hidden file beside its output folder."""
    return target.with_name(f".{target.name}.{stage}.json")


def write_record(record: Record, target: Path) -> None:
    """Store a record for the stage that was to write ``target``."""
    content = {
        "stage": record.stage,
        "key": record.key,
        "folder": record.folder.name,
        "marker_sha256": record.marker_sha256,
        "seconds": round(record.seconds, 2),
        "failure": record.failure,
    }
    write_json(record_path(record.stage, target), SCHEMA, content)


def read_record(stage: str, target: Path) -> Record | None:
    """The record of a stage whose output is still the one it wrote; None otherwise."""
    try:
        content = read_json(record_path(stage, target), SCHEMA)
        folder = target.with_name(content["folder"])
        found = sha256_file(folder / MARKERS[stage])
    except (KotuneError, OSError, KeyError):
        return None
    if found != content["marker_sha256"]:
        return None
    return Record(stage, content["key"], folder, found, content["seconds"], content.get("failure"))


def finish(
    stage: str, key: str, target: Path, folder: Path, seconds: float, failure: str | None = None
) -> Record:
    """Write and return the record of a stage that has just written ``folder``."""
    marker = sha256_file(folder / MARKERS[stage])
    record = Record(stage, key, folder, marker, seconds, failure)
    write_record(record, target)
    return record


def finetune_key(recipe: Recipe) -> str:
    """Key of a training; ``export`` settings do not enter it. Raises KotuneError."""
    content = recipe.model_dump(mode="json", exclude={"export"})
    return _digest(
        stage="finetune", recipe=content, data=_data_state(recipe), base=_base_state(recipe)
    )


def export_key(run: Record, recipe: Recipe) -> str:
    """Key of the export of a finished run."""
    settings = recipe.export.model_dump(mode="json")
    return _digest(stage="export", run=run.marker_sha256, settings=settings)


def bench_key(inputs: list[Record], section: dict[str, Any]) -> str:
    """Key of a benchmark over finished runs and artifacts."""
    return _digest(stage="bench", inputs=[one.marker_sha256 for one in inputs], section=section)


def adopt_run(recipe: Recipe, key: str) -> Record | None:
    """Take over a run that ``kotune finetune`` made of the same recipe, data and base model.

    Raises FolderError where the folder holds another run, which is not ours to replace.
    """
    from bench.tasks.registry import open_task
    from finetune.run_folder import open_run
    from finetune.tasks.task import task_of

    target = Path(recipe.folder)
    if not target.is_dir() or not any(target.iterdir()):
        return None
    run, recipe = open_run(target), task_of(recipe).settle(recipe)
    wanted = recipe.model_dump(mode="json", exclude={"export"})
    same = run.recipe.model_dump(mode="json", exclude={"export"}) == wanted
    task = open_task(recipe.task)
    if same and run.info.data_fingerprint == task.data_fingerprint(recipe):
        return finish("finetune", key, target, target, run.info.training_time_s)
    raise FolderError(
        "the run folder holds another run, which no suite has made",
        received=target,
        next_step="kotune run … --fresh to replace it, or common.output=runs/other-{name}",
    )


def _digest(**content: Any) -> str:
    body = {"kotune": package_version("kotune"), **content}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _data_state(recipe: Recipe) -> dict[str, Any]:
    """Hashes of the data files; a hub id or the official download stand for themselves."""
    data = recipe.data
    source = getattr(data, "source", None)  # speech has none
    if source is not None:
        return _hash_tree(SAMPLE) if source == "sample" else {"source": source}
    state: dict[str, Any] = {}
    for key, value in (("data.path", data.path), ("data.test_path", data.test_path)):
        if value is not None:
            path = expand_path(value, key)
            state[key] = _hash_tree(path) if path.exists() else value
    return state


def _base_state(recipe: Recipe) -> Any:
    """Hashes of a local base model's files, else hub id and revision; "random" without one."""
    model = recipe.model
    if model.source is None or (getattr(model, "random_weights", False) and model.source in KLUE):
        return "random"
    folder = TINY if model.source == "tiny" else expand_path(model.source, "model.source")
    return _hash_tree(folder) if folder.is_dir() else [model.source, model.revision]


def _hash_tree(path: Path) -> dict[str, str]:
    """Relative name → SHA-256 of every file under a path."""
    if path.is_file():
        return {path.name: sha256_file(path)}
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return {one.relative_to(path).as_posix(): sha256_file(one) for one in files}
