"""Recipes on disk: find, read, override, check every key, print.

A recipe is YAML; ``key.sub=value`` overrides it, the value read as YAML too.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from finetune.core.errors import RecipeError

R = TypeVar("R", bound=BaseModel)


def packaged_recipes() -> dict[str, Path]:
    """Name (``finetune/tiny-lora``) → file, of every recipe shipped in ``configs/``."""
    root = Path(str(files("configs")))
    found = [path for path in sorted(root.rglob("*.yaml")) if path.parent.name != "accelerate"]
    return {str(path.relative_to(root).with_suffix("")): path for path in found}


def find_recipe(name: str) -> Path:
    """A path as it is, else a packaged recipe by name; raises RecipeError."""
    if Path(name).is_file():
        return Path(name)
    shipped = packaged_recipes()
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    hits = [path for key, path in shipped.items() if key == wanted or key.endswith("/" + wanted)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        names = ", ".join(key for key, path in shipped.items() if path in hits)
        raise RecipeError("several recipes have this name", received=name, allowed=names)
    near = difflib.get_close_matches(wanted, shipped, n=3, cutoff=0.3)
    raise RecipeError(
        "no such recipe file", received=name, allowed=", ".join(near) or None, next_step="kotune ls"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds; raises RecipeError where it holds none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as fault:
        detail = str(fault).splitlines()[0]
        raise RecipeError(f"{path} is not a YAML recipe", received=detail) from fault
    except OSError as fault:
        raise RecipeError(f"{path} cannot be read", received=fault.strerror) from fault
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path} is not a recipe",
            received=type(content).__name__,
            allowed="a mapping of sections",
        )
    return content


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``content`` with each ``key.sub=value`` set; raises RecipeError."""
    result = _deep_copy(content)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RecipeError(
                "an override is key.sub=value",
                received=override,
                next_step="training.learning_rate=1e-4",
            )
        *sections, last = key.split(".")
        place = result
        for section in sections:
            inner = place.setdefault(section, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{section} is a value, not a section", received=override)
            place = inner
        place[last] = yaml.safe_load(text)
    return result


def _deep_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep_copy(inner) for key, inner in value.items()}
    return value


def check_recipe(kind: type[R], content: dict[str, Any], origin: str) -> R:
    """The typed recipe; RecipeError lists every fault with its key and a suggestion."""
    try:
        return kind.model_validate(content)
    except ValidationError as fault:
        lines = [_explain(kind, error) for error in _without_union_echoes(fault.errors())]
        count = f"{len(lines)} fault{'s' if len(lines) > 1 else ''}"
        raise RecipeError(
            f"{origin}: {count} in the recipe\n" + "\n".join(f"  - {line}" for line in lines),
            next_step="kotune ls, then kotune show RECIPE for a valid one",
        ) from fault


def load_recipe(kind: type[R], name: str, overrides: Sequence[str] = ()) -> R:
    """Find, read, override and check a recipe of ``kind``; raises RecipeError."""
    path = find_recipe(name)
    return check_recipe(kind, apply_overrides(read_yaml(path), overrides), str(name))


def dump_recipe(recipe: BaseModel) -> str:
    """The resolved recipe as YAML, keys in the order of the model."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def expand_path(value: str, key: str) -> Path:
    """``~`` and ``${VARIABLE}`` filled in; recipes and reports keep the variable's name."""
    missing = [name for name in re.findall(r"\$\{?(\w+)\}?", value) if name not in os.environ]
    if missing:
        raise RecipeError(
            f"{key} names an environment variable that is not set",
            received=value,
            next_step=f"export {missing[0]}=/path/to/it",
        )
    return Path(os.path.expandvars(value)).expanduser()


def _without_union_echoes(errors: Sequence[Any]) -> Iterator[Any]:
    """One error a key: a union's members each report, the first says enough."""
    seen = set()
    for error in errors:
        place = tuple(part for part in error["loc"] if not _is_union_tag(part))
        if place not in seen:
            seen.add(place)
            yield {**error, "loc": place}


def _is_union_tag(part: object) -> bool:
    return isinstance(part, str) and bool(re.search(r"[\[\]]|^(str|int|float|bool)$", part))


def _explain(kind: type[BaseModel], error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    key = " -> ".join(place) or "recipe"
    if error["type"] == "extra_forbidden":
        known = list(_section_at(kind, place[:-1]).model_fields)
        near = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message} (received {error['input']!r})"


def _section_at(kind: type[BaseModel], place: Sequence[str]) -> type[BaseModel]:
    for part in place:
        field = kind.model_fields.get(part)
        if field is None:
            continue
        choices = [field.annotation, *get_args(field.annotation)]
        kind = next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), kind)
    return kind
