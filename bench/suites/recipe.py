"""The typed suite: which recipes, what they share, what is exported, how it is measured."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, create_model, model_validator

from bench.settings import BenchSection, BenchSettings
from bench.tasks.registry import open_task
from finetune.core.errors import KotuneError, RecipeError
from finetune.recipes.files import apply_overrides, check_recipe, find_recipe, read_yaml
from finetune.recipes.sections import Folder, Recipe, Section
from finetune.studies.seeds import seed_recipes
from finetune.tasks.registry import TEXT, recipe_kind


class SuiteRun(Section):
    """A recipe by name or path, and what this suite changes in it; a plain name changes nothing."""

    recipe: str
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, given: Any) -> Any:
        return {"recipe": given} if isinstance(given, str) else given


class SuiteRecipe(Section):
    """Recipes → runs → artifacts → one report.

    ``common`` and each ``set`` change recipes: ``training.epochs: 1``, or a section with the
    keys to change. ``export`` is true, false, or the names of the runs to export. ``bench`` is the
    section that the recipes' task has (``suite_kind``).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    output: Folder = "reports/{name}"
    recipes: Annotated[list[SuiteRun], Field(min_length=1)]
    common: dict[str, Any] = Field(default_factory=dict)
    export: bool | list[str] = True
    bench: SerializeAsAny[BenchSettings] = BenchSection()

    @property
    def folder(self) -> Path:
        """The report folder."""
        return Path(self.output.format(name=self.name))


def suite_kind(content: dict[str, Any], beside: Path) -> type[SuiteRecipe]:
    """The model of a suite whose ``bench`` section is that of its first recipe's task."""
    settings = open_task(_first_task(content, beside)).settings
    bench = (settings, Field(default_factory=settings))
    return create_model("SuiteRecipe", __base__=SuiteRecipe, bench=bench)


def suite_recipes(suite: SuiteRecipe, beside: Path) -> list[Recipe]:
    """The recipes of a suite with its changes applied; files may stand ``beside`` the suite.

    Raises RecipeError, also where they are of different tasks, which nothing compares.
    """
    recipes = []
    for run in suite.recipes:
        changes = [*as_overrides(suite.common), *as_overrides(run.set)]
        content = apply_overrides(read_yaml(_find_beside(run.recipe, beside)), changes)
        recipes.append(check_recipe(recipe_kind(content), content, run.recipe))
    tasks = {one.task for one in recipes}
    if len(tasks) > 1 or not isinstance(suite.bench, open_task(recipes[0].task).settings):
        raise RecipeError(
            "the recipes of a suite do the same, and are compared in one report",
            received=", ".join(f"{one.name}: {one.task}" for one in recipes),
            next_step="one suite for each task",
        )
    return recipes


def resolve_recipes(suite: SuiteRecipe, beside: Path) -> list[Recipe]:
    """The same with a recipe for each of its ``seeds``.

    Raises RecipeError, also where two recipes would write the same run folder.
    """
    whole = suite_recipes(suite, beside)
    recipes = [one for recipe in whole for one in seed_recipes(recipe)]
    folders = [one.folder for one in (*recipes, *(one for one in whole if one.seeds))]
    double = [name for name, count in Counter(folders).items() if count > 1]
    if double:
        raise RecipeError(
            "two recipes of the suite write the same run folder",
            received=", ".join(double),
            next_step="set: {name: …} in one of them",
        )
    unknown = set(wanted_exports(suite, recipes)) - {one.name for one in recipes}
    if unknown:
        raise RecipeError(
            "export names no run of the suite",
            received=", ".join(sorted(unknown)),
            allowed=", ".join(one.name for one in recipes),
        )
    return recipes


def wanted_exports(suite: SuiteRecipe, recipes: list[Recipe]) -> list[str]:
    """Names of the runs that are exported."""
    if isinstance(suite.export, bool):
        return [one.name for one in recipes] if suite.export else []
    return suite.export


def _find_beside(name: str, beside: Path) -> Path:
    """A recipe's file: beside the suite, else wherever recipes are found."""
    path = beside / name
    return path if path.is_file() else find_recipe(name)


def _first_task(content: dict[str, Any], beside: Path) -> str:
    """The task of the first recipe; text where the suite's check will say what is wrong."""
    recipes = content.get("recipes")
    first = recipes[0] if isinstance(recipes, list) and recipes else None
    name = first.get("recipe") if isinstance(first, dict) else first
    if not isinstance(name, str):
        return TEXT
    try:
        found = read_yaml(_find_beside(name, beside))
        recipe_kind(found)
        return found.get("task", TEXT)
    except KotuneError:
        return TEXT


def as_overrides(changes: dict[str, Any]) -> list[str]:
    """``{a.b: 1}`` and ``{a: {b: 1}}`` → ``a.b=1``; deeper mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in changes.items():
        if isinstance(value, dict) and "." not in key:
            flat |= {f"{key}.{inner}": what for inner, what in value.items()}
        else:
            flat[key] = value
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flat.items()]
