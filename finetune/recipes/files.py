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
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from finetune.core.errors import RecipeError
from finetune.recipes.synonyms import section_at, suggest_key
from finetune.recipes.yaml_text import parse_override, parse_yaml, read_text, write_yaml

R = TypeVar("R", bound=BaseModel)
EXCLUDES = {"data.path": ["data.source"], "data.source": ["data.path", "data.test_path"]}
SHAPES = (  # a section, what has it, and the command that takes it
    ("ways", "a suite of trainings", "bench training"),
    ("recipes", "a suite of recipes", "run"),
    ("corpus", "a pretraining recipe", "pretrain"),
    ("data", "a recipe of one run", "finetune"),
)


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
    content = parse_yaml(read_text(path), str(path))
    if not isinstance(content, dict):
        found = {type(None): "nothing", list: "a list"}.get(type(content), "a single value")
        raise RecipeError(
            f"{path} is not a recipe", received=found, allowed="a mapping of sections"
        )
    return content


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``content`` with each ``key.sub=value`` set; raises RecipeError.

    One that names other data takes the place of what the recipe names.
    """
    result = _deep_copy(content)
    given = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RecipeError(
                "an override is key.sub=value",
                received=override,
                next_step="training.learning_rate=1e-4",
            )
        *sections, last = key.split(".")
        if not all([*sections, last]):
            raise RecipeError("a part of the key is empty", received=override)
        place = result
        for section in sections:
            inner = place.setdefault(section, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{section} is a value, not a section", received=override)
            place = inner
        place[last] = parse_override(text, override)
        if place[last] is not None:
            given.add(key)
    for key, excluded in EXCLUDES.items():
        if key in given and not given & set(excluded):
            _drop(result, excluded)
    return result


def _drop(content: dict[str, Any], keys: Sequence[str]) -> None:
    """Take ``section.key`` out, where it is there."""
    for key in keys:
        section, _, name = key.partition(".")
        if isinstance(content.get(section), dict):
            content[section].pop(name, None)


def _deep_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep_copy(inner) for key, inner in value.items()}
    return value


def check_recipe(kind: type[R], content: dict[str, Any], origin: str) -> R:
    """The typed recipe; RecipeError lists every fault with its key and a suggestion.

    A recipe of another command is answered with that command.
    """
    _check_shape(kind, content, origin)
    try:
        return kind.model_validate(content)
    except ValidationError as fault:
        lines = _all_faults(kind, content, fault)
        count = f"{len(lines)} fault{'s' if len(lines) > 1 else ''}"
        raise RecipeError(
            f"{origin}: {count} in the recipe\n" + "\n".join(f"  - {line}" for line in lines),
            next_step="kotune ls, then kotune show RECIPE for a valid one",
        ) from fault


def _all_faults(
    kind: type[BaseModel], content: dict[str, Any], fault: ValidationError
) -> list[str]:
    """Faults of single keys, and of keys that do not go together, which pydantic looks at last.

    Those come out once the keys that are wrong by themselves are left out; what is said of a key
    left out is not the user's fault.
    """
    lines, removed = [], set()
    while True:
        errors = list(_without_union_echoes(fault.errors()))
        for error in errors:
            for line in _explain(kind, error).split("\n"):
                named = set(re.findall(r"\w+", line))
                if line not in lines and not (error["type"] == "value_error" and named & removed):
                    lines.append(line)
        rest = _deep_copy(content)
        gone = [name for error in errors if (name := _take_out(rest, error))]
        if not gone:
            return lines
        content, removed = rest, {*removed, *gone}
        try:
            kind.model_validate(content)
            return lines
        except ValidationError as further:
            fault = further


def _take_out(content: dict[str, Any], error: Any) -> str | None:
    """Remove the key that an error is of, or the first one that it names in a section; its name."""
    *sections, last = error["loc"] or (None,)
    place: Any = content
    for part in sections:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        return None
    if error["type"] == "value_error" and isinstance(place[last], dict):
        place, named = place[last], re.findall(r"\w+", error["msg"])
        last = next((name for name in named if name in place), None)
    if last is not None:
        del place[last]
    return last


def _check_shape(kind: type[BaseModel], content: dict[str, Any], origin: str) -> None:
    """Tell a suite from a recipe by the section that only one of them has."""
    own = [key for key, _, _ in SHAPES if key in kind.model_fields]
    if not own or any(key in content for key in own):
        return
    for key, what, command in SHAPES:
        if key in content:
            raise RecipeError(f"{origin} is {what}", next_step=f"kotune {command} {origin}")


def load_recipe(kind: type[R], name: str, overrides: Sequence[str] = ()) -> R:
    """Find, read, override and check a recipe of ``kind``; raises RecipeError."""
    path = find_recipe(name)
    return check_recipe(kind, apply_overrides(read_yaml(path), overrides), str(name))


def dump_recipe(recipe: BaseModel) -> str:
    """The resolved recipe as YAML, keys in the order of the model."""
    return write_yaml(recipe.model_dump(mode="json"))


def describe_recipe(recipe: BaseModel, *, verbose: bool = False) -> str:
    """What a reader wants to see of a resolved recipe: the keys that are not as by default.

    ``verbose``: all of them.
    """
    if verbose:
        return dump_recipe(recipe)
    return f"{write_yaml(_changed(recipe))}# all else as by default; --verbose shows it\n"


def _changed(section: BaseModel) -> dict[str, Any]:
    """The keys whose value is not the default, those without a default, and sections of such."""
    shown: dict[str, Any] = {}
    plain = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            if inner := _changed(value):
                shown[name] = inner
        elif name in plain and (field.is_required() or value != field.get_default()):
            shown[name] = plain[name]
    return shown


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
        return f"{key}: unknown key; {suggest_key(kind, place)}"
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return "\n".join(f"{key}: {line}" for line in message.split("\n"))
    if error["type"] == "model_type":
        known = ", ".join(section_at(kind, place).model_fields)
        return f"{key}: a section of keys is wanted (received {error['input']!r}); keys: {known}"
    told = f"{key}: {message} (received {error['input']!r})"
    if error["type"] == "string_type" and isinstance(error["input"], int | float | dict):
        looks = "holds a colon" if isinstance(error["input"], dict) else "looks like a number"
        return f"{told}; text that {looks} wants quotes"
    return told
