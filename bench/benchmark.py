"""The story of a benchmark: run and artifact folders in, a report folder out.

Whatever the runs do is asked of their task (``bench/tasks``).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.engines.prepare import Prepared, prepare_variants
from bench.instruments.timing import REWARM_CALLS
from bench.results.reading import write_results
from bench.rounds.checkpoint import Checkpoint, Measurement, Progress, checkpoint_for
from bench.rounds.compose import (
    artifact_ladders,
    commands_of,
    describe_variant,
    plain_command,
    training_curves,
    training_facts,
)
from bench.rounds.processes import Plan, measure_variants
from bench.settings import BenchSettings
from bench.tasks.registry import open_task
from bench.tasks.task import Rows, Task
from bench.variants.contenders import (
    Contender,
    choose_baseline,
    choose_variants,
    find_contenders,
    noise_pair,
)
from export.runtime.manifest import BATCH_TOKENS
from export.runtime.processor import available_cores
from finetune.core.errors import FolderError, GateError, RecipeError
from finetune.core.output_lock import lock_output
from finetune.core.provenance import collect_provenance

Report = Callable[[str], None]
LOAD_LIMIT = 0.5  # load average per core above which the machine is said to be busy


def run_benchmark(
    folders: Sequence[Path | str],
    settings: BenchSettings,
    output: Path | str,
    *,
    name: str | None = None,
    report: Report = print,
) -> Path:
    """Measure every variant of the folders; write ``output``/results.json and its report.

    Returns the path of report.html. Raises FolderError or RecipeError before anything is
    measured, GateError where no variant could be measured at all.
    """
    output = Path(output)
    check_target(output)
    check_device(settings.device)
    contenders = find_contenders([Path(folder) for folder in folders])
    task = open_task(contenders[0].task)
    variants = choose_variants(*task.list_variants(contenders, settings), settings.variants)
    baseline = choose_baseline(variants, settings.baseline)
    threads = settings.threads or available_cores()
    warn_if_busy(report)
    with lock_output(output), tempfile.TemporaryDirectory(prefix="kotune-bench-") as place:
        scratch = Path(place)
        rows = task.choose_rows(contenders, settings, scratch)
        prepared = prepare_variants(
            task,
            noise_pair(variants, baseline) if settings.noise_pair else variants,
            contenders,
            scratch,
            seed=settings.seed,
            threads=threads,
            timeout_s=settings.call_timeout_s,
            report=report,
        )
        names = [one.variant.name for one in prepared]
        checkpoint = checkpoint_for(output, contenders, names, settings)
        plan = make_plan(task, prepared, rows, settings, threads, checkpoint, report, baseline)
        ready = [one.variant for one in prepared if one.reason is None]
        progress = measure_variants(ready, plan)
    entries = [
        describe_variant(task, one, progress.variants.get(one.variant.name, Measurement()))
        for one in prepared
    ]
    content = {
        **describe_benchmark(task, name or output.name, contenders, rows, settings),
        "baseline": baseline,
        "baselines": task.group_baselines(variants),
        "settings": describe_settings(settings, threads, rows, progress),
        "load": progress.load,
        "variants": entries,
    }
    add_gpus(content["environment"], progress)
    write_results(output, content)
    checkpoint.clear()
    check_any_ok(entries, output)
    from bench.report.writing import write_report

    return write_report(output)


def make_plan(
    task: Task,
    prepared: Sequence[Prepared],
    rows: Rows,
    settings: BenchSettings,
    threads: int,
    checkpoint: Checkpoint,
    report: Report,
    baseline: str,
) -> Plan:
    """Sizes for the memory plan, and the answers that runs have stored already."""
    stored: dict[str, list[Any]] = {}
    for one in prepared:
        found = task.stored_answers(one.variant, rows) if rows.accuracy else None
        if found is not None:
            stored[one.variant.name] = found
    sizes = {one.variant.name: one.size_bytes or 0 for one in prepared}
    return Plan(task, settings, threads, rows, sizes, stored, checkpoint, report, baseline)


def describe_benchmark(
    task: Task,
    name: str,
    contenders: Sequence[Contender],
    rows: Rows,
    settings: BenchSettings,
) -> dict[str, Any]:
    """Everything of results.json that is known without measuring."""
    environment = collect_provenance(settings.seed)
    command = plain_command(environment.command)
    notes = [*([settings.note] if settings.note else []), *task.notes(contenders, rows)]
    return {
        "name": name,
        "task": task.name,
        "created": environment.created,
        "commands": commands_of(contenders, command),
        "note": " ".join(notes) or None,
        "environment": {**environment.as_dict(), "command": command},
        **task.describe_rows(contenders, rows),
        "curves": training_curves(contenders),
        "ladders": artifact_ladders(contenders),
        "training": training_facts(contenders),
    }


def describe_settings(
    settings: BenchSettings, threads: int, rows: Rows, progress: Progress
) -> dict[str, Any]:
    """The section as resolved, and how the machine was shared."""
    measured = [one for one in progress.variants.values() if one.latency]
    split = any(len(blocks) > 1 for blocks in progress.blocks)
    server = ["server"] if any(one.server for one in measured) else []
    bulk = ["offline"] if rows.throughput else []
    return {
        **settings.model_dump(mode="json", exclude={"note"}),
        "threads": threads,
        "latency_rows": len(rows.latency),
        "throughput_rows": len(rows.throughput),
        "processes_planned": settings.processes,
        "processes": len(progress.blocks),
        "rewarm_calls": REWARM_CALLS,
        "throughput_tokens": _bulk_tokens(rows),
        "turn_calls": max(stop - start for start, stop in rows.turns()),
        "priority": max((one.facts.get("priority", 0) for one in measured), default=0),
        "scenarios": ["single-stream", *bulk, *server],
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_blocks": progress.blocks if split else None,
        "sittings": progress.sittings,
    }


def _bulk_tokens(rows: Rows) -> dict[str, int] | None:
    """Padded tokens of a batch in bulk, by device: one plan for every runtime."""
    if not rows.throughput:
        return None
    return {device: rows.batch_tokens or tokens for device, tokens in BATCH_TOKENS.items()}


def add_gpus(environment: dict[str, Any], progress: Progress) -> None:
    """GPUs as the workers saw them: this process has no torch to ask."""
    found = {one.facts["gpu"] for one in progress.variants.values() if "gpu" in one.facts}
    environment["hardware"]["gpus"] = sorted(found)
    for one in progress.variants.values():
        environment["hardware"] |= one.facts.get("gpu_libraries", {})


def check_target(output: Path) -> None:
    """Refuse to write a report into anything but a report folder or an empty one."""
    if output.is_dir() and any(output.iterdir()) and not (output / "results.json").is_file():
        marks = [name for name in ("run.json", "manifest.json") if (output / name).exists()]
        if marks or not (output / "suite.yaml").is_file():
            raise FolderError(
                "the output is in use by something that is not a report",
                received=output,
                next_step="--output with another folder",
            )
    if output.exists() and not output.is_dir():
        raise FolderError("the output is a file", received=output)


def check_device(device: str) -> None:
    """Raise RecipeError where CUDA is asked for and PyTorch sees none."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise RecipeError("bench.device=cuda, and PyTorch sees no GPU", next_step="device=cpu")


def check_any_ok(entries: Sequence[dict[str, Any]], output: Path) -> None:
    """Raise GateError where every variant failed: there is nothing to report."""
    if all(entry["status"] == "failed" for entry in entries):
        raise GateError(
            "no variant could be measured",
            received="; ".join(f"{entry['name']}: {entry['reason']}" for entry in entries[:3]),
            next_step=f"the reasons of all stand in {output / 'results.json'}",
        )


def warn_if_busy(report: Report) -> None:
    """One line where other programs take the cores that are to be measured."""
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0] / available_cores()
        if load > LOAD_LIMIT:
            report(f"this machine is busy ({load:.1f} of 1 per core); timings will be noisy")
