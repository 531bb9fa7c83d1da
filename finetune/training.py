"""One readable run: reviews and a recipe in, a run folder out, on transformers.Trainer.

Killed, interrupted or out of memory, it goes on from its last checkpoint; see train_loop.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerState

from finetune import run_folder
from finetune.adapters.attach import ParameterCount, count_parameters
from finetune.adapters.method_training import as_stored
from finetune.core.files import publish_folder, write_json
from finetune.core.processes import (
    is_main_process,
    is_sharded,
    join_processes,
    leave_processes,
    process_count,
    wait_for_processes,
)
from finetune.core.provenance import collect_provenance, git_state
from finetune.data.report import report_data
from finetune.hardware.precision import bound_primitive_caches, choose_device, exact_fp32
from finetune.loop.checkpoints import Checkpoint, disk_errors
from finetune.loop.drive import train_to_end
from finetune.loop.ledger import Ledger
from finetune.loop.resumable import BEST, load_weights
from finetune.loop.work_folder import (
    announce_publication,
    clear_work,
    finish_publication,
    open_work,
)
from finetune.models.encoding import keep_preparation
from finetune.models.trained_weights import save_trained
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.evaluation import predict_splits
from finetune.tasks.text.job import Job, build_model, prepare_job
from finetune.tasks.text.ready import ready_model
from finetune.tasks.text.trainer import tokenize_rows, training_history

Report = Callable[[str], None]


@exact_fp32()
def finetune(recipe: FinetuneRecipe, *, overwrite: bool = False, report: Report = print) -> Path:
    """Train what the recipe says and publish the run folder, whole or not at all.

    An unfinished run of the same recipe goes on where it was. Raises RecipeError, DataError,
    ModelError or FolderError before anything heavy begins, KeyboardInterrupt once a training
    that was asked to stop has saved itself.
    """
    target = Path(recipe.folder)
    report = report if is_main_process() else _say_nothing
    git_state()
    bound_primitive_caches()
    join_processes(choose_device(recipe.training.device))
    if finish_publication(target, recipe, report):
        return target
    run_folder.check_target(target, overwrite=overwrite)
    job = prepare_job(recipe)
    report_data(job.corpus.summary, report)
    for key in recipe.adapter.unused:
        report(f"  adapter.{key} is not used by {recipe.adapter.method}")
    work = open_work(target, job, report)
    wait_for_processes()
    rows = {
        name: tokenize_rows(
            frame,
            job.tokenizer,
            recipe.model.max_length,
            recipe.training.padding,
            preparation=job.preparation,
        )
        for name, frame in (("train", job.corpus.train), ("validation", job.corpus.validation))
    }
    ready = ready_model(job, rows["train"], report, work)
    job, model = ready.job, ready.model
    _report_model(job, ready.parameters, report)
    checkpoint = train_to_end(job, model, rows, work, report)
    leave_processes()
    if not is_main_process():
        return target
    if is_sharded():
        model = build_model(job)
    if ready.originals is not None:
        ready.originals.give_back(model)
    load_weights(model, checkpoint.folder / BEST)
    with disk_errors(work / "steps"), publish_folder(target, workplace=work) as folder:
        _write_run(job, model, checkpoint, rows["train"]["length"], folder, report)
        shutil.copytree(work / "tensorboard", folder / "tensorboard")
        announce_publication(work, folder)
    clear_work(target)
    report(f"run folder {target}")
    return target


def _write_run(
    job: Job,
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    lengths: Any,
    folder: Path,
    report: Report,
) -> None:
    """Everything the run folder holds, run.json last."""
    summary = {**job.corpus.summary, "token_lengths": _quantiles(lengths)}
    write_json(folder / "data.json", "kotune.data/1", summary)
    parameters = count_parameters(model)
    figures = _write_results(job, model, checkpoint, folder, report)
    figures["parameters"] = {"total": parameters.total, "trainable": parameters.trainable}
    run_folder.seal_run(folder, job.recipe, _describe_run(job, figures, folder))


def _write_results(
    job: Job, model: torch.nn.Module, checkpoint: Checkpoint, folder: Path, report: Report
) -> dict[str, Any]:
    """Model, predictions, metrics and provenance; returns what run.json says of the training."""
    state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
    ledger = Ledger(**checkpoint.ledger)
    _save_model(model, job, folder)
    method = job.recipe.adapter.method
    model = as_stored(model, method, job.base, job.labels, folder / "model", job.device)
    metrics = predict_splits(job, model, folder, report)
    metrics["history"] = training_history(state)
    metrics["best"] = {
        "step": state.best_global_step,
        job.recipe.training.best_metric: state.best_metric,
    }
    write_json(folder / "metrics.json", "kotune.metrics/1", metrics)
    course = {
        "starts": ledger.starts,
        "processes": process_count(),
        "micro_batch": ledger.micro_batch,
        "gradient_accumulation_steps": ledger.accumulation,
        "out_of_memory": ledger.out_of_memory,
    }
    provenance = {**collect_provenance(job.recipe.seed), "training": course}
    write_json(folder / "provenance.json", "kotune.provenance/1", provenance)
    return {
        "training_time_s": ledger.training_time_s,
        "steps": state.global_step,
        "step_times_s": ledger.step_times_s,
        "peak_training_memory_bytes": ledger.peak_memory_bytes,
        "peak_training_vram_bytes": ledger.peak_vram_bytes if job.device == "cuda" else None,
        "training": course,
    }


def _say_nothing(line: str) -> None:
    """The report of every process but the first."""


def _save_model(model: torch.nn.Module, job: Job, folder: Path) -> None:
    """Adapter or model, head included, safetensors; with tokenizer and config."""
    target = folder / "model"
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = job.base.source
    save_trained(model, job.recipe.adapter.method, target)
    keep_preparation(job.tokenizer, job.preparation)
    job.tokenizer.save_pretrained(target)
    getattr(model, "config", model).save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)  # PEFT's empty card


def _describe_run(job: Job, figures: dict[str, Any], folder: Path) -> dict[str, Any]:
    weights = list((folder / "model").glob("*.safetensors"))
    return {
        "name": job.recipe.name,
        "task": "text-classification",
        "method": job.recipe.adapter.method,
        "base": job.base.as_dict(),
        "labels": job.labels,
        "max_length": job.recipe.model.max_length,
        "padding_side": "right",
        "preparation": job.preparation.as_dict(),
        "device": job.device,
        "precision": job.precision,
        "evaluation_precision": "fp32",
        "threads": torch.get_num_threads(),
        "data_fingerprint": job.corpus.fingerprint,
        "weights_bytes": sum(path.stat().st_size for path in weights),
        **figures,
    }


def _quantiles(lengths: Any) -> dict[str, int]:
    points = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
    values = np.quantile(np.asarray(lengths), points, method="higher")
    return {f"p{point * 100:g}": int(value) for point, value in zip(points, values, strict=True)}


def _report_model(job: Job, parameters: ParameterCount, report: Report) -> None:
    report(
        f"{job.recipe.adapter.method} on {job.base.source}: {parameters.trainable:,} of "
        f"{parameters.total:,} parameters trained ({parameters.trainable_share:.2%}), "
        f"{job.precision} on {job.device}, {torch.get_num_threads()} threads"
        + (f", {process_count()} processes" if process_count() > 1 else "")
    )
