"""The story of ``kotune bench training``: a suite in; results.json and report.md out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.benchmark import available_cores, check_any_ok, warn_if_busy
from bench.compose import plain_command
from bench.statistics import Estimate, Samples, collect_samples, median_interval, median_ratio
from bench.training_measure import TrainingRecord, measure_training, run_whole
from bench.training_report import training_markdown
from bench.training_suite import TrainingSuite, case_recipe
from finetune.errors import FolderError
from finetune.files import write_json, write_text
from finetune.provenance import collect_provenance

Report = Callable[[str], None]
SCHEMA = "kotune.training-results/1"


def run_training_bench(
    suite: TrainingSuite, beside: Path, *, epochs: float | None, report: Report
) -> Path:
    """Measure every way with every method; the path of report.md.

    ``epochs`` also trains each to its end and compares validation accuracy. Raises RecipeError
    before anything is measured, GateError where nothing could be.
    """
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
        from finetune.files import read_json

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
    environment = collect_provenance(suite.seed)
    environment["command"] = plain_command(environment["command"])
    return {
        "name": suite.name,
        "note": suite.note,
        "environment": environment,
        "threads": threads,
        "settings": suite.model_dump(mode="json", exclude={"note"}),
        "epochs": epochs,
        "baseline": suite.baseline or suite.ways[0].name,
        "baseline_method": suite.baseline_method or suite.methods[0].name,
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
    visits = record.visits
    rows, tokens, places, seconds = (
        sum(visit[key] for visit in visits) for key in ("rows", "tokens", "places", "seconds")
    )
    speed = _samples(record, lambda visit: [visit["rows"] / visit["seconds"]])
    entry["figures"] = {
        "samples_per_s": _as_dict(median_interval(speed, seed=suite.seed)),
        "tokens_per_s": tokens / seconds,
        "padding_share": 1 - tokens / places,
        "rows_per_step": rows / sum(len(visit["step_ms"]) for visit in visits),
        "step_ms": _as_dict(median_interval(_step_samples(record), seed=suite.seed)),
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in record.memory),
        "training_bytes": max(one["training_bytes"] for one in record.memory),
        "peak_vram_bytes": record.memory[0]["peak_vram_bytes"],
        "against_way": _speed_ratio(record, records, suite, suite.baseline or suite.ways[0].name),
        "against_method": _step_ratio(record, records, suite),
        "step_flops": _step_flops(record) if "matrix" in record.facts else None,
        "share_of_matrix_peak": _share_of_peak(record),
    }
    return entry


def _samples(record: TrainingRecord, take: Callable[[dict[str, Any]], list[float]]) -> Samples:
    return collect_samples(
        (visit["process"], visit["round"], take(visit)) for visit in record.visits
    )


def _step_samples(record: TrainingRecord) -> Samples:
    return _samples(record, lambda visit: visit["step_ms"])


def _speed_ratio(
    record: TrainingRecord, records: list[TrainingRecord], suite: TrainingSuite, way: str
) -> dict[str, Any] | None:
    """Samples a second against the baseline way of the same method."""
    other = _find(records, way, record.method)
    if other is None or other is record:
        return None
    pair = [
        _samples(one, lambda visit: [visit["rows"] / visit["seconds"]]) for one in (record, other)
    ]
    return _as_dict(median_ratio(*pair, seed=suite.seed))


def _step_ratio(
    record: TrainingRecord, records: list[TrainingRecord], suite: TrainingSuite
) -> dict[str, Any]:
    """Time of a step against each other method of the same way, by method."""
    ratios = {}
    for method in suite.methods:
        other = _find(records, record.way, method.name)
        if other is not None and other is not record:
            ratio = median_ratio(_step_samples(record), _step_samples(other), seed=suite.seed)
            ratios[method.name] = _as_dict(ratio)
    return ratios


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


def _find(records: list[TrainingRecord], way: str, method: str) -> TrainingRecord | None:
    found = [one for one in records if one.way == way and one.method == method and not one.reason]
    return found[0] if found else None


def _as_dict(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
