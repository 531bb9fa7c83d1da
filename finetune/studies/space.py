"""What a sweep searches: recipe keys, each with choices or a range. Imports nothing heavy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.core.errors import RecipeError
from finetune.recipes.files import apply_overrides, check_recipe
from finetune.recipes.sections import Recipe
from finetune.recipes.yaml_text import parse_yaml
from finetune.tasks.registry import recipe_kind

SECTIONS = ("adapter", "augment", "architecture", "training", "model")
FORMS = "4,8,16 | all-linear,attention | 1e-4:1e-3:log | 0.0:0.1 | 2:8"


@dataclass(frozen=True)
class Choices:
    """A finite set of values; those that Optuna cannot store are stored as JSON text."""

    values: tuple[Any, ...]

    def suggest(self, trial: Any, key: str) -> Any:
        """One of the values, chosen by the trial."""
        known = {_storable(value): value for value in self.values}
        return known[trial.suggest_categorical(key, list(known))]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values to check before anything runs."""
        return self.values


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; integers where both ends are."""

    low: float
    high: float
    log: bool

    def suggest(self, trial: Any, key: str) -> Any:
        """A number, chosen by the trial."""
        ask = trial.suggest_int if isinstance(self.low, int) else trial.suggest_float
        return ask(key, self.low, self.high, log=self.log)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values to check before anything runs."""
        return self.low, self.high


Space = dict[str, Choices | Range]


def parse_options(options: Sequence[str]) -> dict[str, str]:
    """``["a.b=1,2 c.d=1:3"]`` → ``{"a.b": "1,2", "c.d": "1:3"}``; raises RecipeError."""
    result: dict[str, str] = {}
    for word in " ".join(options).split():
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise RecipeError("a parameter is key=values", received=word, allowed=FORMS)
        result[key] = text
    return result


def parse_space(parameters: Mapping[str, list[Any] | str]) -> Space:
    """The search space, keys in the order given; raises RecipeError."""
    return {key: _parse_values(key, given) for key, given in parameters.items()}


def check_space(content: dict[str, Any], space: Space, origin: str) -> None:
    """Every value of every key on the recipe; raises RecipeError for the first that is wrong."""
    for key, values in space.items():
        if key.split(".")[0] not in SECTIONS or key == "training.best_metric":
            raise RecipeError(
                "this key cannot be searched: trials would not be comparable",
                received=key,
                allowed=", ".join(f"{name}.…" for name in SECTIONS),
            )
        for value in values.ends:
            apply_parameters(content, {key: value}, f"{origin}, {key}={value}")


def apply_parameters(content: dict[str, Any], parameters: Mapping[str, Any], origin: str) -> Recipe:
    """The recipe with a trial's values; raises RecipeError where they do not fit together."""
    changes = [f"{key}={json.dumps(value)}" for key, value in parameters.items()]
    return check_recipe(recipe_kind(content), apply_overrides(content, changes), origin)


def combinations(space: Space) -> list[dict[str, Any]] | None:
    """Every combination as Optuna stores it, in order; None where a range has no end of them."""
    result: list[dict[str, Any]] = [{}]
    for key, values in space.items():
        if isinstance(values, Range):
            return None
        stored = [_storable(value) for value in values.values]
        result = [{**one, key: value} for one in result for value in stored]
    return result


def _parse_values(key: str, given: list[Any] | str) -> Choices | Range:
    if isinstance(given, str) and ":" in given:
        return _parse_range(key, given)
    try:
        values = parse_yaml(f"[{given}]", key) if isinstance(given, str) else given
    except RecipeError as fault:
        raise RecipeError("values cannot be read", received=f"{key}={given}", allowed=FORMS) from (
            fault
        )
    numbers = tuple(_as_number(value) for value in values)
    if not numbers or len({_storable(value) for value in numbers}) < len(numbers):
        raise RecipeError(
            "a parameter needs values that differ", received=f"{key}={given}", allowed=FORMS
        )
    return Choices(numbers)


def _parse_range(key: str, text: str) -> Range:
    low, high, *rest = (_as_number(part) for part in text.split(":"))
    fault = RecipeError(
        "a range is low:high or low:high:log", received=f"{key}={text}", allowed=FORMS
    )
    if any(isinstance(end, str) or not math.isfinite(end) for end in (low, high)):
        raise fault
    if rest not in ([], ["log"]) or low >= high or (rest and low <= 0):
        raise fault
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    return Range(low, high, bool(rest))


def _as_number(value: Any) -> Any:
    """``"1e-4"``, which YAML 1.1 calls text, as the number it is; anything else as it is."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def _storable(value: Any) -> Any:
    """Scalars as they are, lists and mappings as JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
