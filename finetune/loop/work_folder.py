"""Where an unfinished run lies: beside its run folder, one place for each recipe.

    runs/.NAME.checkpoints/
        3f9c0a61b2d4/            of what decides the weights: recipe, base, data, precision
            recipe.yaml
            steps/checkpoint-120
            tensorboard/

The same recipe finds its checkpoints again; another one begins anew and leaves them alone.
All of it goes when the run folder is published.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

from finetune.core.errors import FolderError
from finetune.core.files import read_json, sha256_file, write_json, write_text
from finetune.core.processes import is_main_process, wait_for_processes
from finetune.loop.checkpoints import Report, disk_errors
from finetune.models.source import BaseModel
from finetune.recipes.files import dump_recipe, read_yaml
from finetune.recipes.sections import Recipe

PUBLISHED = "kotune.published/1"
SETTLED_ELSEWHERE = ("name", "output", "export")  # these decide nothing about the weights


class Trainable(Protocol):
    """What decides the weights of a run.

    ``changeable`` names the keys of ``training`` that may change while it goes on.
    """

    recipe: Recipe
    base: BaseModel | None
    device: str
    precision: str

    @property
    def data_fingerprint(self) -> str:
        """Hash of the rows."""

    @property
    def changeable(self) -> frozenset[str]:
        """Keys of ``training``."""


def work_root(target: Path) -> Path:
    """The folder that holds everything of a run that is not finished."""
    return target.parent / f".{target.name}.checkpoints"


def open_work(target: Path, job: Trainable, report: Report) -> Path:
    """The place of this job, made where it is new; tells of other recipes' checkpoints.

    Raises FolderError where nothing can be written.
    """
    root = work_root(target)
    work = root / fingerprint(job)
    with disk_errors(work):
        if not work.exists():
            for other in root.glob("*/recipe.yaml"):
                changed = (
                    ", ".join(_changed_keys(other, job.recipe)) or "base model, data or device"
                )
                report(f"unfinished run of another recipe in {other.parent} ({changed} changed)")
                report("  this run starts over")
        for part in ("steps", "tensorboard"):
            (work / part).mkdir(parents=True, exist_ok=True)
        for key in _changed_keys(work / "recipe.yaml", job.recipe):
            if key.removeprefix("training.") in job.changeable:
                report(f"{key}: not as it began; what is left goes by the new value")
        write_text(work / "recipe.yaml", dump_recipe(job.recipe))
    _restore_replaced(work, target)
    for leftover in work.glob(f".{target.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return work


def fingerprint(job: Trainable) -> str:
    """Hash of all that decides the weights; where and how often to save does not."""
    recipe = job.recipe.model_dump(mode="json")
    for name in SETTLED_ELSEWHERE:
        recipe.pop(name, None)
    for name in {"save_steps", *job.changeable}:
        recipe["training"].pop(name)
    content = {
        "recipe": recipe,
        "base": job.base.as_dict() if job.base else None,
        "data": job.data_fingerprint,
    }
    for name in ("device", "precision"):
        if name not in job.changeable:
            content[name] = getattr(job, name)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def schedule(job: Trainable) -> str:
    """The values of what may change while the run goes on; empty where nothing may."""
    training = job.recipe.training.model_dump(mode="json")
    values = {key: training[key] for key in sorted(job.changeable)}
    return json.dumps(values) if values else ""


def announce_publication(work: Path, folder: Path, document: str) -> None:
    """Note which run is about to be published, so that a kill right after it is no loss.

    ``document`` is the file of the folder that is written last.
    """
    write_json(work / "published.json", PUBLISHED, {"run": sha256_file(folder / document)})


def is_published(target: Path, document: str, recipe: Recipe) -> bool:
    """Whether this recipe's run was published and only its leftovers were not cleared away."""
    for path in work_root(target).glob("*/published.json"):
        try:
            same = read_json(path, PUBLISHED)["run"] == sha256_file(target / document)
        except (FolderError, OSError):
            continue
        if same and (path.parent / "recipe.yaml").read_text("utf-8") == dump_recipe(recipe):
            return True
    return False


def finish_publication(target: Path, document: str, recipe: Recipe, report: Report) -> bool:
    """Clear away what a run left that was killed right after it was published."""
    published = is_published(target, document, recipe)
    wait_for_processes()
    if published and is_main_process():
        clear_work(target)
        report(f"{target} was finished already")
    return published


def clear_work(target: Path) -> None:
    """Remove what a published run needed; cut off, the next start removes the rest."""
    leaving = target.parent / f".{target.name}.finished"
    shutil.rmtree(leaving, ignore_errors=True)
    if work_root(target).exists():
        os.replace(work_root(target), leaving)
        shutil.rmtree(leaving)


def _restore_replaced(work: Path, target: Path) -> None:
    """Put back the run that was moved aside by a publication that was cut off."""
    for aside in work.glob(f".{target.name}.old.*/{target.name}"):
        if not target.exists():
            os.replace(aside, target)


def _changed_keys(saved: Path, recipe: Recipe) -> list[str]:
    if not saved.is_file():
        return []
    then = _flat(read_yaml(saved))
    now = _flat(recipe.model_dump(mode="json"))
    return [
        key
        for key in now
        if now[key] != then.get(key) and key.split(".")[0] not in SETTLED_ELSEWHERE
    ]


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result
