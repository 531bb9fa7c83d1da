"""Every task that can be measured, one line each, imported when a run or artifact asks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from export.artifact.folder import MANIFEST
from finetune.core.errors import FolderError
from finetune.core.plugins import Registry, find_plugins
from finetune.studies.seeds import runs_of_seeds
from finetune.tasks.registry import SPEECH, TEXT

if TYPE_CHECKING:
    from bench.tasks.task import Task

TASKS = {
    TEXT: "bench.tasks.text:TextTask",
    SPEECH: "bench.tasks.speech:SpeechTask",
}

GROUP = "kotune.tasks.bench"


def open_task(name: str) -> Task:
    """The guest of this name, ours or a plugin's; FolderError where nothing measures it."""
    if name in TASKS:
        module, _, kind = TASKS[name].partition(":")
        return getattr(import_module(module), kind)()
    if name in find_plugins(GROUP):
        from bench.tasks.task import Task

        return Registry(GROUP, {}, Task)[name]()
    raise FolderError(
        "nothing measures what this run does",
        received=name,
        allowed=", ".join([*TASKS, *find_plugins(GROUP)]),
    )


def task_of_folders(folders: Sequence[Path]) -> Task:
    """The task of the first run or artifact among ``folders``; text where none says it.

    Whether the folders hold together is checked when they are opened.
    """
    for folder in [one for given in folders for one in runs_of_seeds(given) or [given]]:
        for name in ("run.json", MANIFEST):
            path = folder / name
            if path.is_file():
                return open_task(_read_task(path))
    return open_task(TEXT)


def _read_task(path: Path) -> str:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        return TEXT  # opening it will say what is wrong
    return content.get("task", TEXT) if isinstance(content, dict) else TEXT
