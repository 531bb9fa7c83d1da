"""The tasks that can be exported, one line each, imported when a run asks for one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finetune.recipes.kinds import SPEECH, TEXT

if TYPE_CHECKING:
    from export.tasks.task import Task
    from finetune.run_folder import Run

TASKS = {
    TEXT: ("export.tasks.text", "TextTask"),
    SPEECH: ("export.tasks.speech", "SpeechTask"),
}


def open_task(run: Run, settings: Any) -> Task:
    """The guest for a run's task; ``settings`` is the recipe's export section."""
    module, name = TASKS[run.task]
    return getattr(import_module(module), name)(run, settings)
