"""Runs of one recipe with several seeds as one row: what the recipe does, not what one run did.

Accuracy, F1 and error rates are means over the runs. Latencies are pooled, each process by itself,
since a seed changes the weights and not the work. A run whose export failed its checks, or that
could not be measured, stays a row of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, takewhile

from bench.report.figures import compare_row_speeds, mark_front
from bench.report.rows import Row, describe_row
from bench.report.speech_figures import ErrorComparison
from bench.results.records import Results, Variant
from bench.statistics.decisions import AccuracyComparison, Finding, judge_all
from bench.statistics.seeds import compare_seeds, mean_over_seeds, t_test

ALONE = -1  # the seed of a run whose seed nobody recorded
QUALITY = ("accuracy", "accuracy_unseen", "f1_binary", "f1_macro", "f1_micro", "f1_weighted")
ERRORS = ("wer", "cer")
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
    found = list(merged.values())
    if any(row.is_baseline and not row.export_failed for row in found):
        found = _compare_quality(compare_row_speeds(found, rows), variants)
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
    for fields, within in ((QUALITY, "share"), (ERRORS, "positive")):
        for field in fields:
            figures = [getattr(row, field) for row in rows]
            if all(figures):
                quality[field] = mean_over_seeds([figure.value for figure in figures], within)
    accuracies = {seed: row.accuracy.value for seed, row in by.items() if row.accuracy}
    wers = {seed: row.wer.value for seed, row in by.items() if row.wer}
    return replace(
        describe_row(pooled, results),
        **quality,
        run=None,
        is_baseline=any(row.is_baseline for row in rows),
        seeds=tuple(sorted(by)),
        seed_accuracies=accuracies if len(accuracies) == len(by) else None,
        seed_wers=wers if len(wers) == len(by) else None,
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
            "transcripts": [],
            "latency": moved("latency"),
            "throughput": moved("throughput"),
            **{field: [*chain(*(getattr(one, field) for one in variants))] for field in POOLED},
            "size_bytes": max(one.size_bytes or 0 for one in variants) or None,
            "training_time_s": sum(times) / len(times) if times else None,
        }
    )


def _compare_quality(rows: Sequence[Row], variants: Mapping[str, Variant]) -> list[Row]:
    """Accuracy and error rate against the baseline's: over seeds where either side has several."""
    base = next(row for row in rows if row.is_baseline and row.group is None)
    others = [row for row in rows if not (row is base or row.is_noise_pair)]
    accuracies = {row.name: _compare(row, base, variants) for row in others}
    judged = judge_all({name: found for name, found in accuracies.items() if found is not None})
    seeds = {row.name: _compare_errors(row, base, variants) for row in others}
    wers = judge_all({name: found for name, found in seeds.items() if found is not None})
    errors = {name: _as_errors(found) for name, found in wers.items()}
    return [
        replace(
            row,
            comparison=judged.get(row.name),
            errors=errors.get(row.name, None if row.seeds or base.seeds else row.errors),
        )
        for row in rows
    ]


def _compare(row: Row, base: Row, variants: Mapping[str, Variant]) -> AccuracyComparison | None:
    if row.accuracy is None or base.accuracy is None:
        return None
    if not (row.seeds or base.seeds):
        return row.comparison
    own, other = (_by_seed(one, one.seed_accuracies, "accuracy", variants) for one in (row, base))
    return compare_seeds(own, other)


def _compare_errors(
    row: Row, base: Row, variants: Mapping[str, Variant]
) -> AccuracyComparison | None:
    """Word error rates over seeds; None where both sides have a single run."""
    if row.wer is None or base.wer is None or not (row.seeds or base.seeds):
        return None
    own, other = (_by_seed(one, one.seed_wers, "wer", variants) for one in (row, base))
    difference, p, test = t_test(own, other)
    return AccuracyComparison(difference, p, p, test, "tie")


def _as_errors(found: AccuracyComparison) -> ErrorComparison:
    """A comparison of error rates, of which less is better."""
    finding: Finding = {"better": "worse", "worse": "better"}.get(found.finding, "tie")
    return ErrorComparison(found.difference, finding, None, found.test, found.p_adjusted)


def _by_seed(
    row: Row, several: Mapping[int, float] | None, field: str, variants: Mapping[str, Variant]
) -> Mapping[int, float]:
    if several is not None:
        return several
    seed = variants[row.name].seed
    return {ALONE if seed is None else seed: getattr(row, field).value}


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
