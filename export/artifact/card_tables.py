"""Markdown tables of a model card, drawn from what the manifest holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from export.artifact.manifest import ArtifactManifest, FileRecord
from finetune.core.escaping import markdown_cell

Cell = Callable[[dict[str, Any]], str]
Column = tuple[str, Cell]  # heading, cell of a step
NOTHING = "–"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a vertical bar in a cell is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(markdown_cell, cells))} |" for cells in lines)


def files_table(manifest: ArtifactManifest) -> str:
    """Every model file: precision, path, size, processor."""
    rows = [
        [precision, f"`{entry.path}`", f"{entry.bytes / 1e6:.1f} MB", _processor(entry)]
        for precision, entry in manifest.files.items()
    ]
    return markdown_table(("precision", "file", "size", "made for"), rows)


def ladder_table(ladder: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    """One row a step, compared with the step named in the second column."""
    shown = [
        ("step", lambda step: step["name"] + (" **failed**" if step.get("failure") else "")),
        ("against", lambda step: step.get("before") or NOTHING),
        ("rows", lambda step: f"{step['rows']:,}"),
        *columns,
    ]
    shown = [one for one in shown if any(one[1](step) != NOTHING for step in ladder)]
    rows = [[cell(step) for _, cell in shown] for step in ladder]
    return markdown_table([heading for heading, _ in shown], rows)


def number(key: str, form: str) -> Cell:
    """A cell with a figure in this format, a dash where there is none."""
    return lambda step: NOTHING if step.get(key) is None else format(step[key], form)


def with_interval(key: str, interval_key: str, form: str) -> Cell:
    """A cell with a figure and its interval; "not finite" where there is none."""

    def show(step: dict[str, Any]) -> str:
        if step.get(key) is None:
            return "not finite"
        text, interval = format(step[key], form), step.get(interval_key)
        if not interval:
            return text
        return f"{text} ({interval[0]:{form}} to {interval[1]:{form}})"

    return show


def records_table(content: Any) -> str:
    """Any list of records as a table whose columns are the keys that hold plain values.

    A mapping of names to records counts as a list with the name first, and so does such a
    mapping inside a record; of other mappings the first list of records in it is taken.
    Without records: an empty string.
    """
    records = _records(content)
    keys = list(dict.fromkeys(key for record in records for key in record))
    keys = [key for key in keys if any(_plain(record.get(key)) for record in records)]
    if not records or not keys:
        return ""
    headings = [key.replace("_", " ") for key in keys]
    return markdown_table(
        headings, [[_show(record.get(key)) for key in keys] for record in records]
    )


def _records(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return [entry for entry in content if isinstance(entry, dict)]
    if not isinstance(content, dict):
        return []
    for value in content.values():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return _records(value)
    if not _is_named(content):
        return [content] if content else []
    records = []
    for name, value in content.items():
        records.append({"name": name, **value})
        for inner in filter(_is_named, value.values()):
            records += [{"name": f"{name}, {way}", **figures} for way, figures in inner.items()]
    return records


def _is_named(content: Any) -> bool:
    """Whether this is a mapping of names to records."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(value, dict) for value in content.values())
    )


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float) or _is_interval(value)


def _is_interval(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(end, int | float) for end in value)
    )


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if _is_interval(value):
        return f"{_show(value[0])} to {_show(value[1])}"
    return value if isinstance(value, str) and value else NOTHING


def _processor(entry: FileRecord) -> str:
    if entry.runtime == "openvino":
        return "CPU, OpenVINO"
    chosen = entry.instruction_set
    return f"CPU, {chosen['name']}" if chosen else "any"
