"""The tasks that can be exported, one line each, imported when a run asks for one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from finetune.core.errors import FolderError
from finetune.core.plugins import Registry, find_plugins
from finetune.tasks.registry import SPEECH, TEXT

if TYPE_CHECKING:
    from export.tasks.task import Task

TASKS = {
    TEXT: "export.tasks.text:TextTask",
    SPEECH: "export.tasks.speech:SpeechTask",
}
GROUP = "kotune.tasks.export"


def find_task(name: str) -> type[Task]:
    """The guest for a run's task, ours or a plugin's; raises FolderError where there is none."""
    if name in TASKS:
        module, _, kind = TASKS[name].partition(":")
        return getattr(import_module(module), kind)
    if name in find_plugins(GROUP):
        from export.tasks.task import Task

        return Registry(GROUP, {}, Task)[name]
    raise FolderError(
        "nothing exports what this run does",
        received=name,
        allowed=", ".join([*TASKS, *find_plugins(GROUP)]),
    )
