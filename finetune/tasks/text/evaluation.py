"""What a trained model says of validation and test rows, stored and measured in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune import run_folder
from finetune.hardware.streaming import streamed
from finetune.loop.ledger import shrink_to_memory
from finetune.metrics.classification import class_figures, classification_metrics
from finetune.models.predicting import predict_logits
from finetune.recipes.metrics import METRICS, added_figures
from finetune.run_records import RunMetrics, SplitMetrics
from finetune.tasks.text.job import TextJob

Report = Callable[[str], None]


def predict_splits(
    job: TextJob, model: torch.nn.Module, folder: Path, report: Report
) -> RunMetrics:
    """Logits of every validation and test row in fp32, stored; metrics of each split."""
    model.eval()
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # bitsandbytes' Linear4bit: evaluate in fp32
            module.compute_dtype = torch.float32
    metrics: dict[str, SplitMetrics] = {}
    splits = {
        "train": job.corpus.train,
        "validation": job.corpus.validation,
        "test": job.corpus.test,
    }
    for name, frame in splits.items():
        run_folder.write_rows(folder, name, frame)
        if name == "train":
            continue
        with streamed(model, job.device):
            logits = _predict_within_memory(job, model, frame["text"].tolist())
        run_folder.write_predictions(folder, name, frame, logits)
        metrics[name] = _measure(frame, logits, job.labels)
        report(_metrics_line(name, metrics[name]))
        if len(job.labels) > 2:
            for one in metrics[name].figures["classes"]:
                report(_class_line(one))
    return RunMetrics(**metrics)


def _predict_within_memory(job: TextJob, model: torch.nn.Module, texts: list[str]) -> np.ndarray:
    """Logits; out of memory halves the batch and begins again."""
    return shrink_to_memory(
        lambda rows: predict_logits(
            model,
            job.tokenizer,
            texts,
            preparation=job.preparation,
            max_length=job.recipe.model.max_length,
            batch_size=rows,
            device=job.device,
        ),
        job.recipe.training.eval_batch_size,
    )


def _measure(frame: Any, logits: np.ndarray, names: Sequence[str]) -> SplitMetrics:
    """Metrics on all rows and, where the split knows, on those not seen in training."""
    labels = frame["label"].to_numpy()
    result = {"all": _figures(labels, logits)}
    result["all"]["classes"] = class_figures(result["all"]["confusion"], names)
    if "seen_in_training" in frame:
        unseen = ~frame["seen_in_training"].to_numpy()
        if unseen.any():
            result["unseen"] = _figures(labels[unseen], logits[unseen])
    return SplitMetrics(**result)


def _figures(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    return {
        **classification_metrics(labels, logits).as_dict(),
        **added_figures(labels, logits),
    }


def _class_line(figures: dict[str, Any]) -> str:
    shares = ", ".join(
        f"{name} {'–' if figures[name] is None else format(figures[name], form)}"
        for name, form in (("precision", ".2%"), ("recall", ".2%"), ("f1", ".4f"))
    )
    return f"    {figures['label']}: {figures['rows']} rows, {shares}"


def _metrics_line(name: str, metrics: SplitMetrics) -> str:
    whole = metrics.figures
    low, high = whole["accuracy_interval"]
    line = (
        f"{name}: accuracy {whole['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"macro F1 {whole['f1_macro']:.4f}, {whole['rows']} rows"
    )
    line += "".join(f", {name} {whole[name]:{METRICS[name].form}}" for name in METRICS)
    if metrics.unseen and metrics.unseen["rows"] < whole["rows"]:
        line += f"; {metrics.unseen['accuracy']:.2%} on those not seen in training"
    return line
