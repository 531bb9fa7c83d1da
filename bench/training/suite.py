"""The typed suites of ``kotune bench training`` and ``kotune bench plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from bench.suites.recipe import as_overrides
from finetune.recipes.files import apply_overrides, check_recipe, find_recipe, read_yaml
from finetune.recipes.sections import Count, Folder, Section
from finetune.recipes.text import FinetuneRecipe

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Variation(Section):
    """One way of training: what it changes in the recipe, and what it is in words.

    ``learning_rate_factor`` goes with another batch size, whatever the method's learning rate.
    """

    name: Name
    description: str = ""
    set: dict[str, Any] = Field(default_factory=dict)
    learning_rate_factor: Annotated[float, Field(gt=0)] = 1.0


class RecipeSuite(Section):
    """A recipe, what all cases change in it, and the cases: every way with every method."""

    name: Name
    output: Folder = "reports/{name}"
    recipe: str
    common: dict[str, Any] = Field(default_factory=dict)
    ways: Annotated[list[Variation], Field(min_length=1)]
    methods: Annotated[list[Variation], Field(min_length=1)]
    threads: Count | None = None  # None: every core this process may use
    call_timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    note: str | None = None

    @property
    def folder(self) -> Path:
        """The report folder."""
        return Path(self.output.format(name=self.name))

    @model_validator(mode="after")
    def _names_differ(self) -> RecipeSuite:
        for what in ("ways", "methods"):
            names = [one.name for one in getattr(self, what)]
            if len(set(names)) < len(names):
                raise ValueError(f"two of `{what}` have the same name")
        return self


class TrainingSuite(RecipeSuite):
    """What is compared in speed: each way and each method with those listed before it.

    ``processes`` fresh processes of each case, all alive together while one runs, or 0 for the
    whole runs of ``--epochs`` alone; ``rounds`` visits a process, of ``steps`` optimizer steps
    and ``visit_s`` seconds at least. Lengths differ from step to step: a visit should see many.
    """

    processes: Annotated[int, Field(ge=0)] = 3
    rounds: Count = 3
    steps: Count = 4
    visit_s: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Count = 2
    seed: Annotated[int, Field(ge=0)] = 42
    matrix_peak_s: Annotated[float, Field(ge=0)] = 0.0  # seconds of plain products; 0: none
    whole_runs_at_once: Count = 1  # of --epochs; they share the threads, and are not timed


class PlanSuite(RecipeSuite):
    """Where the planner is held against measurements: ``repeats`` processes of each case."""

    repeats: Count = 3
    steps: Count = 3
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.15


def case_recipe(
    suite: RecipeSuite, way: Variation, method: Variation, beside: Path
) -> FinetuneRecipe:
    """The recipe of one way with one method; raises RecipeError."""
    path = beside / suite.recipe
    path = path if path.is_file() else find_recipe(suite.recipe)
    changes = [
        *as_overrides(suite.common),
        *as_overrides(method.set),
        *as_overrides(way.set),
        f"name={suite.name}-{way.name}-{method.name}",
    ]
    recipe = check_recipe(FinetuneRecipe, apply_overrides(read_yaml(path), changes), suite.name)
    rate = recipe.training.learning_rate * method.learning_rate_factor * way.learning_rate_factor
    training = recipe.training.model_copy(update={"learning_rate": rate})
    return recipe.model_copy(update={"training": training})
