"""Runs of one recipe with several seeds as one row: what the recipe does, not what one run did.

Accuracy and F1 are means over the runs. Latencies are pooled, each process by itself, since a
seed changes the weights and not the work. A run whose export failed its checks, or that could not
be measured, stays a row of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, takewhile

from bench.report.figures import compare_row_speeds, describe_row, mark_front
from bench.report.row import Row
from bench.results.records import Results, Variant
from bench.statistics.decisions import AccuracyComparison, judge_all
from bench.statistics.seeds import compare_seeds, mean_over_seeds

ALONE = -1  # the seed of a run whose seed nobody recorded
QUALITY = ("accuracy", "accuracy_unseen", "f1_binary", "f1_macro", "f1_micro", "f1_weighted")
POOLED = ("load_s", "first_call_ms", "peak_memory_bytes", "peak_vram_bytes", "device_bytes")
Key = tuple[str, str, str]  # recipe, runtime, precision
Group = dict[int, Row]  # by seed


def merge_seeds(rows: Sequence[Row], results: Results) -> list[Row]:
    """The rows with one for each recipe, runtime and precision of several seeds."""
    variants = {one.name: one for one in results.variants}
    groups = _groups(rows, variants)
    if not groups:
        return list(rows)
    members = {row.name: key for key, by in groups.items() for row in by.values()}
    taken = {row.name for row in rows if row.name not in members}
    merged: dict[object, Row] = {}
    for row in rows:
        key = members.get(row.name)
        if key is None:
            merged[row.name] = row
        elif key not in merged:
            merged[key] = _merge(_free_name(key, groups, taken), groups[key], variants, results)
    floor = next((row.noise_floor for row in rows if row.noise_floor is not None), None)
    found = list(merged.values())
    if any(row.is_baseline and not row.export_failed for row in found):
        found = _compare_accuracies(compare_row_speeds(found, floor), variants)
    return mark_front(found)


def _groups(rows: Sequence[Row], variants: Mapping[str, Variant]) -> dict[Key, Group]:
    """The rows that can be chosen, by recipe, runtime and precision, where seeds differ."""
    groups: dict[Key, Group] = defaultdict(dict)
    for row in rows:
        one = variants[row.name]
        sound = not (row.failed or row.export_failed or row.is_noise_pair)
        if sound and one.recipe is not None and one.seed is not None:
            groups[one.recipe, row.runtime, row.precision][one.seed] = row
    return {key: by for key, by in groups.items() if len(by) > 1}


def _merge(name: str, by: Group, variants: Mapping[str, Variant], results: Results) -> Row:
    """One row of all seeds."""
    rows = [by[seed] for seed in sorted(by)]
    pooled = _pool(name, [variants[row.name] for row in rows])
    quality = {}
    for field in QUALITY:
        figures = [getattr(row, field) for row in rows]
        if all(figures):
            quality[field] = mean_over_seeds([figure.value for figure in figures])
    accuracies = {seed: row.accuracy.value for seed, row in by.items() if row.accuracy}
    return replace(
        describe_row(pooled, results),
        **quality,
        run=None,
        is_baseline=any(row.is_baseline for row in rows),
        seeds=tuple(sorted(by)),
        seed_accuracies=accuracies if len(accuracies) == len(by) else None,
    )


def _pool(name: str, variants: Sequence[Variant]) -> Variant:
    """A variant of all measurements; every seed's processes are processes of their own."""
    passes = [*chain(*(one.latency for one in variants), *(one.throughput for one in variants))]
    stride = 1 + max((one.process for one in passes), default=0)

    def moved(field: str) -> list[object]:
        return [
            entry.model_copy(update={"process": entry.process + place * stride})
            for place, one in enumerate(variants)
            for entry in getattr(one, field)
        ]

    times = [one.training_time_s for one in variants if one.training_time_s is not None]
    return variants[0].model_copy(
        update={
            "name": name,
            "predicted": [],
            "latency": moved("latency"),
            "throughput": moved("throughput"),
            **{field: [*chain(*(getattr(one, field) for one in variants))] for field in POOLED},
            "size_bytes": max(one.size_bytes or 0 for one in variants) or None,
            "training_time_s": sum(times) / len(times) if times else None,
        }
    )


def _compare_accuracies(rows: Sequence[Row], variants: Mapping[str, Variant]) -> list[Row]:
    """Accuracies against the baseline's: over seeds where either side has several."""
    base = next(row for row in rows if row.is_baseline)
    compared = {
        row.name: found
        for row in rows
        if not (row is base or row.is_noise_pair)
        and (found := _compare(row, base, variants)) is not None
    }
    judged = judge_all(compared)
    return [replace(row, comparison=judged.get(row.name)) for row in rows]


def _compare(row: Row, base: Row, variants: Mapping[str, Variant]) -> AccuracyComparison | None:
    if row.accuracy is None or base.accuracy is None:
        return None
    if not (row.seeds or base.seeds):
        return row.comparison
    return compare_seeds(_by_seed(row, variants), _by_seed(base, variants))


def _by_seed(row: Row, variants: Mapping[str, Variant]) -> Mapping[int, float]:
    if row.seed_accuracies is not None:
        return row.seed_accuracies
    seed = variants[row.name].seed
    return {ALONE if seed is None else seed: row.accuracy.value}


def _free_name(key: Key, groups: Mapping[Key, Group], taken: set[str]) -> str:
    """``<recipe>-<runtime>-<precision>``, told apart from the rows that stay."""
    name = f"{_recipe_name(key, groups)}-{key[1]}-{key[2]}"
    while name in taken:
        name += "-seeds"
    taken.add(name)
    return name


def _recipe_name(key: Key, groups: Mapping[Key, Group]) -> str:
    """The method where one recipe has it, else what the runs' names have in common."""
    rows = list(groups[key].values())
    methods = {recipe: next(iter(by.values())).method for (recipe, *_), by in groups.items()}
    if list(methods.values()).count(rows[0].method) == 1:
        return rows[0].method
    names = [row.run or row.name for row in rows]
    shared = "".join(letters[0] for letters in takewhile(_all_same, zip(*names, strict=False)))
    return shared.rstrip("-_.").removesuffix("-seed") or key[0][:8]


def _all_same(letters: tuple[str, ...]) -> bool:
    return len(set(letters)) == 1
