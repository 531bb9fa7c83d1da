"""Every task by the name that a recipe gives it, one line each; nothing heavy is imported.

Plugins add theirs (docs/plugins.md). A recipe or run that names no task is text classification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune.core.errors import RecipeError
from finetune.core.plugins import Registry
from finetune.recipes.pretraining import PretrainRecipe
from finetune.recipes.sections import Recipe
from finetune.recipes.speech import SpeechRecipe
from finetune.recipes.text import FinetuneRecipe

TEXT = "text-classification"
SPEECH = "speech-recognition"
PRETRAINING = "pretraining"


@dataclass(frozen=True)
class Guest:
    """A task's recipe, and where its Task stands: ``module:class``, loaded by ``task_of``."""

    recipe: type[Recipe]
    place: str


OWN: dict[str, Guest] = {
    TEXT: Guest(FinetuneRecipe, "finetune.tasks.text.task:TextTask"),
    SPEECH: Guest(SpeechRecipe, "finetune.tasks.speech.task:SpeechTask"),
    PRETRAINING: Guest(PretrainRecipe, "finetune.tasks.pretraining.task:PretrainTask"),
}
TASKS: Registry[Guest] = Registry("kotune.tasks", OWN, Guest)


def recipe_kind(content: dict[str, Any], default: str = TEXT) -> type[Recipe]:
    """The recipe model that ``content`` asks for with its ``task``; raises RecipeError."""
    task = content.get("task", default)
    if not isinstance(task, str) or task not in TASKS:
        raise RecipeError(
            "the recipe's task is unknown", received=f"task={task}", allowed=", ".join(TASKS)
        )
    return TASKS[task].recipe
