"""Text classification as the story of a fine-tuning asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

from finetune.adapters.attach import ParameterCount
from finetune.adapters.method_training import as_stored, fit_trainer_to_method
from finetune.checks.answers import answer_signs
from finetune.checks.signs import Sign
from finetune.checks.stored import check_stored_run
from finetune.checks.texts import report_texts
from finetune.core.processes import process_count
from finetune.data.summary import DataSummary, report_data
from finetune.loop.ledger import BatchShape, Ledger
from finetune.loop.progress import Watch
from finetune.models.encoding import keep_preparation
from finetune.models.loading import TRAINED_AS
from finetune.models.token_ids import hold_token_ids
from finetune.models.tokenizer import save_tokenizer
from finetune.models.trained_weights import save_trained
from finetune.recipes.metrics import METRICS, greater_is_better
from finetune.recipes.text import FinetuneRecipe
from finetune.run_records import RunMetrics
from finetune.tasks.task import Built, Figures, Measure, Report, RunTask
from finetune.tasks.text.evaluation import predict_splits
from finetune.tasks.text.job import TextJob, prepare_job, settle_labels
from finetune.tasks.text.ready import ready_model
from finetune.tasks.text.trainer import RowsTrainer, build_trainer, tokenize_rows


@dataclass(frozen=True)
class TextBuilt(Built):
    """The model and the tokenised rows of ``train`` and ``validation``."""

    rows: dict[str, Dataset]


class TextTask(RunTask):
    """Rows of text, or of a pair of texts, into classes."""

    streams = True

    @property
    def measures(self) -> dict[str, Measure]:
        """Accuracy, macro F1, loss, and the metrics that plugins add."""
        added = {name: Measure(name, one.form, one.within) for name, one in METRICS.items()}
        return {
            "accuracy": Measure("accuracy", ".2%", "share"),
            "f1_macro": Measure("macro F1", ".4f", "share"),
            "loss": Measure("loss", ".4f", "positive", shown=False),
            **added,
        }

    def settle(self, recipe: FinetuneRecipe) -> FinetuneRecipe:
        """The classes of the data."""
        return settle_labels(recipe)

    def prepare(self, recipe: FinetuneRecipe) -> TextJob:
        """Base model, device, rows and tokenizer."""
        return prepare_job(recipe)

    def report_data(self, job: TextJob, report: Report) -> None:
        """Rows of each split, and what was dropped."""
        report_data(job.corpus.summary, report)
        report_texts(job.before.texts, report)

    def build(self, job: TextJob, work: Path, report: Report) -> TextBuilt:
        """The model with its adapter, frozen weights held as the recipe asks; rows tokenised."""
        recipe = job.recipe
        hold_token_ids(job.tokenizer, work)
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
        loaded = getattr(ready.model, "kotune_loaded", None)  # none of random weights
        if loaded is not None:
            report(f"  {loaded.describe()}")
        _report_model(ready.job, ready.parameters, report)
        return TextBuilt(ready.job, ready.model, ready.originals, rows)

    def watch(self, job: TextJob, built: TextBuilt) -> Watch:
        """The recipe's own metric."""
        training = job.recipe.training
        metric = training.best_metric
        return Watch(metric, greater_is_better(metric), training.save_steps, job.device)

    def batch_shape(self, job: TextJob, built: TextBuilt) -> BatchShape:
        """The recipe's micro-batch."""
        training = job.recipe.training
        return BatchShape(training.batch_size, training.gradient_accumulation_steps)

    def make_trainer(
        self,
        job: TextJob,
        built: TextBuilt,
        ledger: Ledger,
        callbacks: Sequence[TrainerCallback],
        checkpoints: Path,
    ) -> RowsTrainer:
        """Rows in their order, what the method asks for beside them."""
        trainer = build_trainer(
            model=built.model,
            tokenizer=job.tokenizer,
            max_length=job.recipe.model.max_length,
            train_rows=built.rows["train"],
            validation_rows=built.rows["validation"],
            training=job.recipe.training,
            device=job.device,
            precision=job.precision,
            seed=job.recipe.seed,
            checkpoints=checkpoints,
            ledger=ledger,
            callbacks=callbacks,
            loss=job.loss,
        )
        fit_trainer_to_method(trainer, job.recipe.adapter)
        return trainer

    def data_summary(self, job: TextJob, built: TextBuilt) -> DataSummary:
        """What was read, how long the rows are in tokens, and how many of those are unknown."""
        found = {
            "token_lengths": _quantiles(built.rows["train"]["length"]),
            "tokens": {name: one.as_dict() for name, one in job.before.texts.items()},
        }
        return job.corpus.summary.model_copy(update=found)

    def save_model(self, job: TextJob, built: TextBuilt, folder: Path) -> None:
        """Adapter or model, head included, safetensors; with tokenizer and config."""
        model = built.model
        for config in getattr(model, "peft_config", {}).values():
            config.base_model_name_or_path = job.base.source
        save_trained(model, job.recipe.method, folder)
        keep_preparation(job.tokenizer, job.preparation)
        save_tokenizer(job.tokenizer, folder)
        getattr(model, "config", model).save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card

    def evaluate(self, job: TextJob, built: TextBuilt, folder: Path, report: Report) -> RunMetrics:
        """Logits of every validation and test row, and what they amount to."""
        method, stored = job.recipe.method, folder / "model"
        model = as_stored(built.model, method, job.base, job.labels, stored, job.device)
        return predict_splits(job, model, folder, report)

    def answer_signs(self, job: TextJob, metrics: RunMetrics) -> list[Sign]:
        """One class only, no better than the majority, a class never found."""
        return [
            sign
            for split in ("validation", "test")
            for sign in answer_signs(split, metrics.split(split), job.labels)
        ]

    def check_stored(self, job: TextJob, folder: Path, sample: None) -> None:
        """Load the run afresh and compare its logits of validation rows."""
        check_stored_run(folder, job.device)

    def describe(self, job: TextJob, built: TextBuilt) -> dict[str, Any]:
        """Labels and how texts become tokens."""
        return {
            "labels": job.labels,
            "problem_type": TRAINED_AS["problem_type"],
            "max_length": job.recipe.model.max_length,
            "padding_side": "right",
            "preparation": job.preparation.as_dict(),
        }

    def figures(self, metrics: RunMetrics) -> Figures:
        """``measures`` on all rows of validation and test, those that were measured then."""
        found = {split: metrics.split(split) for split in ("validation", "test")}
        return {
            split: {figure: one[figure] for figure in self.measures if figure in one}
            for split, one in found.items()
        }


def _quantiles(lengths: Any) -> dict[str, int]:
    points = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
    values = np.quantile(np.asarray(lengths), points, method="higher")
    return {f"p{point * 100:g}": int(value) for point, value in zip(points, values, strict=True)}


def _report_model(job: TextJob, parameters: ParameterCount, report: Report) -> None:
    report(
        f"{job.recipe.method} on {job.base.source}: {parameters.trainable:,} of "
        f"{parameters.total:,} parameters trained ({parameters.trainable_share:.2%}), "
        f"{job.precision} on {job.device}, {torch.get_num_threads()} threads"
        + (f", {process_count()} processes" if process_count() > 1 else "")
    )
