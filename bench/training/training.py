"""The story of ``kotune bench training``: a suite in; results.json and report.md out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.benchmark import available_cores, check_any_ok, warn_if_busy
from bench.rounds.compose import plain_command
from bench.statistics.decisions import Estimate
from bench.statistics.latency import Samples, collect_samples, median_interval, median_ratio
from bench.training.measure import TrainingRecord, measure_training, run_whole
from bench.training.report import training_markdown
from bench.training.suite import TrainingSuite, case_recipe
from finetune.core.errors import FolderError, RecipeError
from finetune.core.files import write_json, write_text
from finetune.core.provenance import collect_provenance
from finetune.metrics.classification import paired_difference, wilson_interval

Report = Callable[[str], None]
SCHEMA = "kotune.training-results/2"


def run_training_bench(
    suite: TrainingSuite, beside: Path, *, epochs: float | None, report: Report
) -> Path:
    """Measure every way with every method; the path of report.md.

    ``epochs`` also trains each to its end and compares validation accuracy. Raises RecipeError
    before anything is measured, GateError where nothing could be.
    """
    if epochs is None and not suite.processes:
        raise RecipeError("processes=0 measures nothing without --epochs", received=suite.name)
    check_target(suite.folder, SCHEMA)
    records = [
        TrainingRecord(way.name, method.name, case_recipe(suite, way, method, beside))
        for method in suite.methods
        for way in suite.ways
    ]
    threads = suite.threads or available_cores()
    warn_if_busy(report)
    measure_training(records, suite, threads, report)
    if epochs is not None:
        for record in records:
            training = record.recipe.training.model_copy(
                update={"epochs": epochs, "max_steps": None}
            )
            record.recipe = record.recipe.model_copy(update={"training": training})
        run_whole(records, suite, threads, report)
    content = describe_results(records, suite, threads, epochs)
    write_json(suite.folder / "results.json", SCHEMA, content)
    write_text(suite.folder / "report.md", training_markdown(content))
    check_any_ok(content["cases"], suite.folder)
    return suite.folder / "report.md"


def check_target(folder: Path, schema: str) -> None:
    """Refuse a folder that holds anything but an earlier report of this kind."""
    if folder.is_dir() and any(folder.iterdir()):
        from finetune.core.files import read_json

        try:
            read_json(folder / "results.json", schema)
        except FolderError as fault:
            raise FolderError(
                "the output is in use by something else", received=folder, next_step="output=…"
            ) from fault


def describe_results(
    records: list[TrainingRecord], suite: TrainingSuite, threads: int, epochs: float | None
) -> dict[str, Any]:
    """Everything measured and what follows from it, JSON-ready."""
    environment = collect_provenance(suite.seed).as_dict()
    command = plain_command(environment["command"])
    return {
        "name": suite.name,
        "note": suite.note,
        "environment": {**environment, "command": command},
        "threads": threads,
        "settings": suite.model_dump(mode="json", exclude={"note"}),
        "epochs": epochs,
        "cases": [_describe(record, records, suite) for record in records],
    }


def _describe(
    record: TrainingRecord, records: list[TrainingRecord], suite: TrainingSuite
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": record.name,
        "way": record.way,
        "method": record.method,
        "status": "failed" if record.reason else "ok",
        "reason": record.reason,
        "recipe": record.recipe.model_dump(mode="json"),
        "facts": record.facts,
        "visits": record.visits,
        "memory": record.memory,
        "whole_run": record.whole_run,
    }
    if record.reason:
        return entry
    entry["figures"] = _speed_figures(record, records, suite) if record.visits else {}
    if record.whole_run:
        entry["figures"] |= {
            "accuracy": _accuracy(record),
            "accuracy_against_ways": _accuracy_differences(record, records),
        }
    return entry


def _speed_figures(
    record: TrainingRecord, records: list[TrainingRecord], suite: TrainingSuite
) -> dict[str, Any]:
    visits = record.visits
    rows, tokens, places, seconds = (
        sum(visit[key] for visit in visits) for key in ("rows", "tokens", "places", "seconds")
    )
    return {
        "samples_per_s": _as_dict(median_interval(_speed(record), seed=suite.seed)),
        "tokens_per_s": tokens / seconds,
        "padding_share": 1 - tokens / places,
        "rows_per_step": rows / sum(len(visit["step_ms"]) for visit in visits),
        "step_ms": _as_dict(median_interval(_step_samples(record), seed=suite.seed)),
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in record.memory),
        "training_bytes": max(one["training_bytes"] for one in record.memory),
        "peak_vram_bytes": record.memory[0]["peak_vram_bytes"],
        "against_ways": _speed_ratios(record, records, suite),
        "against_methods": _step_ratios(record, records, suite),
        "step_flops": _step_flops(record) if "matrix" in record.facts else None,
        "share_of_matrix_peak": _share_of_peak(record),
    }


def _samples(record: TrainingRecord, take: Callable[[dict[str, Any]], list[float]]) -> Samples:
    return collect_samples(
        (visit["process"], visit["round"], take(visit)) for visit in record.visits
    )


def _speed(record: TrainingRecord) -> Samples:
    return _samples(record, lambda visit: [visit["rows"] / visit["seconds"]])


def _step_samples(record: TrainingRecord) -> Samples:
    return _samples(record, lambda visit: visit["step_ms"])


def _speed_ratios(
    record: TrainingRecord, records: list[TrainingRecord], suite: TrainingSuite
) -> dict[str, Any]:
    """Samples a second against the same method in each way listed before, by way."""
    return {
        other.way: _as_dict(median_ratio(_speed(record), _speed(other), seed=suite.seed))
        for other in _before(record, records)
        if other.method == record.method
    }


def _step_ratios(
    record: TrainingRecord, records: list[TrainingRecord], suite: TrainingSuite
) -> dict[str, Any]:
    """Time of a step against each method listed before in the same way, by method."""
    return {
        other.method: _as_dict(
            median_ratio(_step_samples(record), _step_samples(other), seed=suite.seed)
        )
        for other in _before(record, records)
        if other.way == record.way
    }


def _accuracy(record: TrainingRecord) -> dict[str, Any]:
    """Share of a split's rows that the whole run got right, with its 95 % interval."""
    shares = {}
    for split, right in record.whole_run["right"].items():
        low, high = wilson_interval(right.count("1"), len(right))
        shares[split] = {"value": right.count("1") / len(right), "low": low, "high": high}
    return shares


def _accuracy_differences(record: TrainingRecord, records: list[TrainingRecord]) -> dict[str, Any]:
    """Rows right against the same method in each way listed before, by way and split."""
    return {
        other.way: {
            split: dataclasses.asdict(
                paired_difference(_hits(right), _hits(other.whole_run["right"][split]))
            )
            for split, right in record.whole_run["right"].items()
        }
        for other in _before(record, records)
        if other.method == record.method and other.whole_run
    }


def _before(record: TrainingRecord, records: list[TrainingRecord]) -> list[TrainingRecord]:
    """The cases listed before this one that did not fail."""
    return [one for one in records[: records.index(record)] if not one.reason]


def _hits(right: str) -> np.ndarray:
    return np.array([row == "1" for row in right])


def _share_of_peak(record: TrainingRecord) -> float | None:
    """Operations a second of the median step, as a share of what its products alone reach."""
    matrix = record.facts.get("matrix")
    if not matrix:
        return None
    step_s = median_interval(_step_samples(record)).value / 1000
    return _step_flops(record) / step_s / matrix["matrix_peak"]["flops_per_s"]


def _step_flops(record: TrainingRecord) -> float:
    """Operations of a mean step: those of the counted micro-batch, for as many places."""
    places = sum(visit["places"] for visit in record.visits)
    steps = sum(len(visit["step_ms"]) for visit in record.visits)
    matrix = record.facts["matrix"]
    return matrix["flops"] / matrix["places"] * places / steps


def _as_dict(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
