"""The tasks that can be exported, one line each, imported when a run asks for one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from finetune.tasks.registry import SPEECH, TEXT

if TYPE_CHECKING:
    from export.tasks.task import Task

TASKS = {
    TEXT: ("export.tasks.text", "TextTask"),
    SPEECH: ("export.tasks.speech", "SpeechTask"),
}


def find_task(name: str) -> type[Task]:
    """The guest for a run's task."""
    module, kind = TASKS[name]
    return getattr(import_module(module), kind)
