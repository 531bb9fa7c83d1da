"""The typed suite: which recipes, what they share, what is exported, how it is measured."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from bench.settings import BenchSection
from finetune.core.errors import RecipeError
from finetune.recipes.files import apply_overrides, check_recipe, find_recipe, read_yaml
from finetune.recipes.sections import Folder, Section
from finetune.recipes.text import FinetuneRecipe
from finetune.studies.seeds import seed_recipes


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
    keys to change. ``export`` is true, false, or the names of the runs to export.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    output: Folder = "reports/{name}"
    recipes: Annotated[list[SuiteRun], Field(min_length=1)]
    common: dict[str, Any] = Field(default_factory=dict)
    export: bool | list[str] = True
    bench: BenchSection = BenchSection()

    @property
    def folder(self) -> Path:
        """The report folder."""
        return Path(self.output.format(name=self.name))


def resolve_recipes(suite: SuiteRecipe, beside: Path) -> list[FinetuneRecipe]:
    """The recipes of a suite with its changes applied; files may stand ``beside`` the suite.

    A recipe with ``seeds`` becomes one for each.
    Raises RecipeError, also where two recipes would write the same run folder.
    """
    recipes = []
    for run in suite.recipes:
        path = beside / run.recipe
        path = path if path.is_file() else find_recipe(run.recipe)
        changes = [*as_overrides(suite.common), *as_overrides(run.set)]
        content = apply_overrides(read_yaml(path), changes)
        recipes += seed_recipes(check_recipe(FinetuneRecipe, content, run.recipe))
    double = [name for name, count in Counter(one.folder for one in recipes).items() if count > 1]
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


def wanted_exports(suite: SuiteRecipe, recipes: list[FinetuneRecipe]) -> list[str]:
    """Names of the runs that are exported."""
    if isinstance(suite.export, bool):
        return [one.name for one in recipes] if suite.export else []
    return suite.export


def as_overrides(changes: dict[str, Any]) -> list[str]:
    """``{a.b: 1}`` and ``{a: {b: 1}}`` → ``a.b=1``; deeper mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in changes.items():
        if isinstance(value, dict) and "." not in key:
            flat |= {f"{key}.{inner}": what for inner, what in value.items()}
        else:
            flat[key] = value
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flat.items()]
