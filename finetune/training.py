"""One readable run: reviews and a recipe in, a run folder out, on transformers.Trainer."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Trainer, set_seed

from finetune import run_folder
from finetune.adapters import attach_adapter, count_parameters
from finetune.base import BaseModel, resolve_base
from finetune.data import Corpus, load_corpus
from finetune.files import publish_folder, write_json
from finetune.metrics import classification_metrics
from finetune.models import load_base, load_base_tokenizer, predict_logits
from finetune.precision import choose_device, choose_precision
from finetune.progress import ProgressReport
from finetune.provenance import collect_provenance
from finetune.recipe import FinetuneRecipe
from finetune.trainer_setup import build_trainer, tokenize_rows, training_history

Report = Callable[[str], None]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Job:
    """What a run works with, once everything was found and checked."""

    recipe: FinetuneRecipe
    base: BaseModel
    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    device: str
    precision: str

    @property
    def labels(self) -> list[str]:
        """Class names in the order of their ids."""
        return list(self.recipe.data.labels.values())


def finetune(recipe: FinetuneRecipe, *, overwrite: bool = False, report: Report = print) -> Path:
    """Train what the recipe says and publish the run folder, whole or not at all.

    Raises RecipeError, DataError, ModelError or FolderError before anything heavy begins.
    """
    target = Path(recipe.folder)
    run_folder.check_target(target, overwrite=overwrite)
    job = prepare_job(recipe)
    _report_data(job, report)
    set_seed(recipe.seed)
    model = build_model(job)
    parameters = count_parameters(model)
    report(
        f"{recipe.adapter.method} on {job.base.source}: {parameters.trainable:,} of "
        f"{parameters.total:,} parameters trained ({parameters.trainable_share:.2%}), "
        f"{job.precision} on {job.device}, {torch.get_num_threads()} threads"
    )
    with publish_folder(target) as folder:
        figures = _train_and_write(job, model, folder, report)
        figures["parameters"] = {"total": parameters.total, "trainable": parameters.trainable}
        run_folder.seal_run(folder, recipe, _describe_run(job, figures, folder))
    report(f"run folder {target}")
    return target


def prepare_job(recipe: FinetuneRecipe) -> Job:
    """Find base model, device, data and tokenizer; the cheap mistakes are told first."""
    base = resolve_base(
        recipe.model.source,
        recipe.model.revision,
        random_weights=recipe.model.random_weights,
        seed=recipe.seed,
    )
    device = choose_device(recipe.training.device)
    precision = choose_precision(recipe.training.precision, device)
    corpus = load_corpus(recipe.data, recipe.seed)
    return Job(recipe, base, corpus, load_base_tokenizer(base), device, precision)


def build_model(job: Job) -> torch.nn.Module:
    """Base model with a new head, adapter attached, on its device, ready to train."""
    recipe = job.recipe
    model = load_base(
        job.base,
        job.labels,
        quantize_4bit=recipe.adapter.method == "qlora",
        compute_dtype=DTYPES[job.precision],
        device=job.device,
        seed=recipe.seed,
        dropout=recipe.model.dropout,
    )
    model.config.pad_token_id = job.tokenizer.pad_token_id
    adapted = attach_adapter(
        model,
        method=recipe.adapter.method,
        rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha,
        dropout=recipe.adapter.dropout,
        target_modules=recipe.adapter.target_modules,
        gradient_checkpointing=recipe.training.gradient_checkpointing,
    )
    return adapted.to(job.device)


def _train_and_write(
    job: Job, model: torch.nn.Module, folder: Path, report: Report
) -> dict[str, Any]:
    splits = {"train": job.corpus.train, "validation": job.corpus.validation}
    rows = {
        name: tokenize_rows(
            frame, job.tokenizer, job.recipe.model.max_length, job.recipe.training.padding
        )
        for name, frame in splits.items()
    }
    summary = {**job.corpus.summary, "token_lengths": _length_quantiles(rows["train"]["length"])}
    write_json(folder / "data.json", "kotune.data/1", summary)
    per_step = job.recipe.training.batch_size * job.recipe.training.gradient_accumulation_steps
    progress = ProgressReport(per_step, job.recipe.training.best_metric)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".checkpoints.") as checkpoints:
        trainer = build_trainer(
            model=model,
            tokenizer=job.tokenizer,
            train_rows=rows["train"],
            validation_rows=rows["validation"],
            training=job.recipe.training,
            device=job.device,
            precision=job.precision,
            seed=job.recipe.seed,
            checkpoints=Path(checkpoints),
            tensorboard=folder / "tensorboard",
            progress=progress,
        )
        began = time.perf_counter()
        trainer.train()
        training_time_s = time.perf_counter() - began
    peak_training_bytes = _peak_memory_bytes()
    # accelerate leaves autocast wrapped around forward: what follows is measured in fp32
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    _save_model(model, job, folder)
    metrics = _predict_splits(job, model, folder, report)
    metrics["history"] = training_history(trainer.state)
    metrics["best"] = {
        "step": _best_step(trainer),
        job.recipe.training.best_metric: trainer.state.best_metric,
    }
    write_json(folder / "metrics.json", "kotune.metrics/1", metrics)
    write_json(
        folder / "provenance.json",
        "kotune.provenance/1",
        collect_provenance(job.recipe.seed),
    )
    return {
        "training_time_s": training_time_s,
        "steps": trainer.state.global_step,
        "step_times_s": [round(value, 4) for value in progress.step_times_s],
        "peak_training_memory_bytes": peak_training_bytes,
        "peak_training_vram_bytes": torch.cuda.max_memory_allocated()
        if job.device == "cuda"
        else None,
    }


def _best_step(trainer: Trainer) -> int:
    """The step whose weights were kept; the last where no evaluation came."""
    return trainer.state.best_global_step or trainer.state.global_step


def _save_model(model: torch.nn.Module, job: Job, folder: Path) -> None:
    """Adapter or model, head included, safetensors; with tokenizer and config."""
    target = folder / "model"
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = job.base.source
    model.save_pretrained(target, safe_serialization=True)
    job.tokenizer.save_pretrained(target)
    getattr(model, "config", model).save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)  # PEFT's empty card


def _predict_splits(
    job: Job, model: torch.nn.Module, folder: Path, report: Report
) -> dict[str, Any]:
    """Logits of every validation and test row in fp32, stored; metrics of each split."""
    model.eval()
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # bitsandbytes' Linear4bit: evaluate in fp32
            module.compute_dtype = torch.float32
    metrics: dict[str, Any] = {}
    splits = {
        "train": job.corpus.train,
        "validation": job.corpus.validation,
        "test": job.corpus.test,
    }
    for name, frame in splits.items():
        run_folder.write_rows(folder, name, frame)
        if name == "train":
            continue
        logits = predict_logits(
            model,
            job.tokenizer,
            frame["text"].tolist(),
            max_length=job.recipe.model.max_length,
            batch_size=job.recipe.training.eval_batch_size,
            device=job.device,
        )
        run_folder.write_predictions(folder, name, frame, logits)
        metrics[name] = _measure(frame, logits)
        report(_metrics_line(name, metrics[name]))
    return metrics


def _measure(frame: Any, logits: np.ndarray) -> dict[str, Any]:
    """Metrics on all rows and, where the split knows, on those not seen in training."""
    labels = frame["label"].to_numpy()
    result = {"all": classification_metrics(labels, logits).as_dict()}
    if "seen_in_training" in frame:
        unseen = ~frame["seen_in_training"].to_numpy()
        if unseen.any():
            result["unseen"] = classification_metrics(labels[unseen], logits[unseen]).as_dict()
    return result


def _metrics_line(name: str, figures: dict[str, Any]) -> str:
    whole = figures["all"]
    low, high = whole["accuracy_interval"]
    line = (
        f"{name}: accuracy {whole['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"macro F1 {whole['f1_macro']:.4f}, {whole['rows']} rows"
    )
    if "unseen" in figures and figures["unseen"]["rows"] < whole["rows"]:
        line += f"; {figures['unseen']['accuracy']:.2%} on those not seen in training"
    return line


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
        "device": job.device,
        "precision": job.precision,
        "evaluation_precision": "fp32",
        "threads": torch.get_num_threads(),
        "data_fingerprint": job.corpus.fingerprint,
        "weights_bytes": sum(path.stat().st_size for path in weights),
        **figures,
    }


def _length_quantiles(lengths: Any) -> dict[str, int]:
    points = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
    values = np.quantile(np.asarray(lengths), points, method="higher")
    return {f"p{point * 100:g}": int(value) for point, value in zip(points, values, strict=True)}


def _report_data(job: Job, report: Report) -> None:
    summary = job.corpus.summary
    rows = ", ".join(f"{name} {part['rows']:,}" for name, part in summary["splits"].items())
    report(f"data {summary['origin']}: {rows} rows, fingerprint {summary['fingerprint'][:12]}")
    for name, dropped in summary["dropped"].items():
        if dropped and (dropped["no_text"] or dropped["unknown_label"]):
            first = "; ".join(f"line {one['row']}: {one['why']}" for one in dropped["first"])
            report(
                f"  dropped from {name}: {dropped['no_text']} without text, "
                f"{dropped['unknown_label']} with an unknown label ({first})"
            )
    if summary["test_rows_seen_in_training"]:
        report(
            f"  {summary['test_rows_seen_in_training']} test rows have a text that also stands "
            "in training: accuracy is reported with and without them"
        )


def _peak_memory_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
