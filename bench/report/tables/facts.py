"""Nested records as label and value pairs: data, environment, machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.report import text
from bench.results.records import Results

Pairs = list[tuple[str, str]]
LISTED = 6  # items of a list of records that are shown


def flatten(record: Mapping[str, Any], prefix: str = "") -> Pairs:
    """Every leaf as (label, text), labels joined by " · "; None and empty parts are left out."""
    return list(_leaves(record, prefix))


def _leaves(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        label = f"{prefix} · {_words(str(key))}" if prefix else _words(str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, label)
        elif value is not None and value != []:
            yield label, _leaf(str(key), value)


def _words(key: str) -> str:
    """A key as words: test_rows → test rows; units move to the value."""
    for unit in ("_bytes", "_ms", "_s"):
        key = key.removesuffix(unit)
    return key.replace("_", " ")


def _leaf(key: str, value: Any) -> str:
    """One value as text; the key's unit decides how a number is written."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _items(key, value)
    if not isinstance(value, int | float):
        return str(value)
    if key.endswith("_bytes"):
        return text.bytes_with_unit(value)
    if key.endswith("_ms"):
        return f"{text.milliseconds(value)} ms"
    if key.endswith("_s"):
        return text.duration(value)
    if isinstance(value, int):
        return f"{value:,}" if key != "seed" else str(value)
    return text.significant(value, 4)


def _items(key: str, values: list[Any]) -> str:
    shown = [
        "; ".join(f"{label} {leaf}" for label, leaf in flatten(value))
        if isinstance(value, Mapping)
        else _leaf(key, value)
        for value in values[:LISTED]
    ]
    more = [f"and {len(values) - LISTED} more"] if len(values) > LISTED else []
    return ", ".join(shown + more)


def data_facts(results: Results) -> Pairs:
    """What the rows are, in short."""
    data = results.data
    counts = {
        "training rows": data.train_rows,
        "validation rows": data.validation_rows,
        "test rows": data.test_rows,
        "rows timed one by one": data.latency_rows,
    }
    return [
        ("corpus", data.description),
        *((label, f"{count:,}") for label, count in counts.items() if count is not None),
        ("classes", ", ".join(results.labels)),
        *([("fingerprint", data.fingerprint)] if data.fingerprint else []),
    ]


def machine(results: Results) -> str:
    """The hardware in a few words; empty where it was not recorded."""
    hardware = results.environment.get("hardware") or {}
    parts = [hardware.get("cpu"), *(hardware.get("gpus") or [])]
    if hardware.get("cores"):
        parts.insert(1, text.plural(hardware["cores"], "core"))
    return ", ".join(str(part) for part in parts if part)


def commit(results: Results) -> tuple[str, bool] | None:
    """Short commit and whether the tree had changes."""
    git = results.environment.get("git")
    return (str(git["commit"])[:10], bool(git.get("dirty"))) if git and git.get("commit") else None


def environment_facts(results: Results) -> Pairs:
    """Hardware, system, code and command; the packages are apart."""
    record = dict(results.environment)
    hardware, found = record.pop("hardware", None) or {}, commit(results)
    for key in ("packages", "git", "created"):
        record.pop(key, None)
    if found:
        record["commit"] = found[0] + (" with uncommitted changes" if found[1] else "")
    return [*flatten(hardware), *flatten(record), ("measured", when(results))]


def when(results: Results) -> str:
    """The time of measuring to the minute: 2025-06-01 09:30 UTC."""
    stamp = results.created.replace("T", " ")
    utc = stamp.endswith(("+00:00", "Z"))
    return f"{stamp[:16]} UTC" if utc else stamp
