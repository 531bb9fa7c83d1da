"""From measurements to ``results.json``, which the report is made of."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engines.prepare import Prepared
from bench.rounds.checkpoint import Measurement
from bench.variants.contenders import Contender, runs_of
from finetune.run_folder import Run, read_data, read_metrics, read_provenance

if TYPE_CHECKING:
    from bench.tasks.task import Rows, Task

TRAINING_KEYS = (
    "method",
    "device",
    "precision",
    "threads",
    "steps",
    "training_time_s",
    "step_times_s",
    "peak_training_memory_bytes",
    "peak_training_vram_bytes",
)


def describe_variant(task: Task, prepared: Prepared, measured: Measurement) -> dict[str, Any]:
    """One entry of ``variants``."""
    variant = prepared.variant
    reason = prepared.reason or measured.reason
    return {
        "name": variant.name,
        "method": variant.method,
        "runtime": variant.runtime,
        "precision": variant.precision,
        "device": variant.device,
        **({"group": variant.group} if variant.group else {}),
        "status": "failed" if reason else "ok",
        "reason": reason,
        "run": variant.source.name if variant.source else None,
        **_recipe_of(variant.source.run if variant.source else None),
        "description": variant.description,
        "export_checks": variant.export_checks,
        **task.describe_answers(measured.answers),
        "predicted_from": measured.answers_from,
        "latency": measured.latency,
        "throughput": measured.throughput,
        "first_call_ms": measured.first_call_ms,
        "load_s": measured.load_s,
        "warm_up": measured.warm_up,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "peak_vram_bytes": measured.peak_vram_bytes,
        "device_bytes": measured.device_bytes,
        "grid": measured.grid,
        "server": measured.server,
        "size_bytes": prepared.size_bytes,
        "adapter_bytes": prepared.adapter_bytes,
        "parameters": prepared.parameters,
        "training_time_s": prepared.training_time_s,
    }


def _recipe_of(run: Run | None) -> dict[str, Any]:
    """The seed, and a hash of the recipe without it: runs that share it differ in the seed."""
    if run is None:
        return {"recipe": None, "seed": None}
    content = run.recipe.model_dump(mode="json", exclude={"seed", "name", "output", "export"})
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"recipe": digest[:16], "seed": run.recipe.seed}


def data_facts(contenders: Sequence[Contender], rows: Rows) -> dict[str, Any]:
    """What the report says of the data, from the first run."""
    run = runs_of(contenders)[0]
    summary = read_data(run)
    splits = {name: part.rows for name, part in summary.splits.items()}
    described = summary.origin
    if len(rows.test) < splits["test"]:
        described += f"; {len(rows.test):,} of {splits['test']:,} test rows, drawn at random"
    return {
        "description": described,
        "fingerprint": run.info.data_fingerprint,
        "train_rows": splits["train"],
        "validation_rows": splits["validation"],
        "test_rows": len(rows.test),
        "latency_rows": len(rows.latency),
        "summary": summary.as_dict(),
    }


def training_facts(contenders: Sequence[Contender]) -> dict[str, dict[str, Any]]:
    """What each run's training cost: steps, seconds of each, peak memory."""
    told = {one.name: one.run.info.model_dump(mode="json") for one in contenders if one.run}
    return {name: {key: info[key] for key in TRAINING_KEYS} for name, info in told.items()}


def training_curves(contenders: Sequence[Contender]) -> dict[str, list[dict[str, Any]]]:
    """The history of each run, as its metrics.json keeps it."""
    return {
        one.name: [point.as_dict() for point in read_metrics(one.run).history]
        for one in contenders
        if one.run is not None
    }


def artifact_ladders(contenders: Sequence[Contender]) -> dict[str, list[dict[str, Any]]]:
    """The checks each artifact went through."""
    return {
        one.artifact.name: list(one.artifact.manifest.ladder)
        for one in contenders
        if one.artifact is not None
    }


def commands_of(contenders: Sequence[Contender], own: str) -> list[str]:
    """The commands that led here, training first, each once and without absolute paths."""
    told = [read_provenance(one.run).command for one in contenders if one.run]
    told += [one.artifact.manifest.provenance.command for one in contenders if one.artifact]
    return list(dict.fromkeys(plain_command(command) for command in [*told, own]))


def plain_command(command: str) -> str:
    """A command line without this machine's absolute paths: relative ones, or the last name."""
    return shlex.join(_plain_path(word) for word in shlex.split(command))


def _plain_path(word: str) -> str:
    key, equals, value = word.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return word
    here = Path.cwd()
    plain = str(path.relative_to(here)) if path.is_relative_to(here) else path.name
    return f"{key}{equals}{plain}"
