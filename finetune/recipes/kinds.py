"""Which recipe a task has; the task of a recipe or run that names none is text."""

from __future__ import annotations

from typing import Any

from finetune.core.errors import RecipeError
from finetune.recipes.speech import SpeechRecipe
from finetune.recipes.text import FinetuneRecipe

TEXT = "text-classification"
SPEECH = "speech-recognition"
RECIPES: dict[str, type[FinetuneRecipe] | type[SpeechRecipe]] = {
    TEXT: FinetuneRecipe,
    SPEECH: SpeechRecipe,
}


def recipe_kind(content: dict[str, Any]) -> type[FinetuneRecipe] | type[SpeechRecipe]:
    """The recipe model that ``content`` asks for with its ``task``; raises RecipeError."""
    task = content.get("task", TEXT)
    if task not in RECIPES:
        raise RecipeError(
            "the recipe's task is unknown",
            received=f"task={task}",
            allowed=", ".join(RECIPES),
        )
    return RECIPES[task]
