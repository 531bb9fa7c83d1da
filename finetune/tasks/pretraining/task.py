"""Pretraining as the story of a fine-tuning asks for it: plain text in, a model folder out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback, set_seed

from finetune.checks.parts import compare_parts
from finetune.checks.signs import report_signs
from finetune.core.errors import RecipeError
from finetune.core.files import publish_folder
from finetune.core.processes import is_main_process, process_count, wait_for_processes
from finetune.data.plain_texts import PretrainTexts, load_texts
from finetune.hardware.cpu_kernels import attention_for, quicken_dropout
from finetune.hardware.host_memory import shape_memory
from finetune.hardware.precision import choose_device, choose_precision
from finetune.loop.ledger import BatchShape, Ledger
from finetune.loop.planned_batches import Batch
from finetune.loop.progress import Watch
from finetune.loop.resumable import WEIGHTS
from finetune.loop.trainer_setup import training_history
from finetune.models.loading import load_base_tokenizer
from finetune.models.source import resolve_base
from finetune.models.tokenizer import load_tokenizer, save_tokenizer
from finetune.recipes.pretraining import PretrainRecipe
from finetune.tasks.pretraining.batches import Masker, TrainBatches, encode_texts, held_out_batches
from finetune.tasks.pretraining.folder import is_pretrained, read_metrics, write_model_folder
from finetune.tasks.pretraining.model import (
    build_roberta,
    evaluate_masked,
    load_masked_model,
    masked_loss,
    set_dropout,
)
from finetune.tasks.pretraining.tokenizer import train_tokenizer
from finetune.tasks.pretraining.trainer import MaskedTrainer, build_trainer
from finetune.tasks.task import Built, Finished, Job, Measure, Outcome, Report, Task, build_tried

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What may differ when a run goes on: how far and how fast, never what is learnt from what.
CHANGEABLE = frozenset(
    {"epochs", "max_steps", "learning_rate", "weight_decay", "dropout", "warmup_steps"}
    | {"warmup_ratio", "scheduler", "scheduler_kwargs", "decay_ratio", "precision", "device"}
    | {"logging_steps", "eval_steps", "max_grad_norm"}
)


@dataclass(frozen=True)
class PretrainJob(Job):
    """What a pretraining works with, once everything was found and checked."""

    recipe: PretrainRecipe
    texts: PretrainTexts

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 over the texts."""
        return self.texts.summary["sha256"]

    @property
    def changeable(self) -> frozenset[str]:
        """Keys of ``training`` that may change while the run goes on."""
        return CHANGEABLE


@dataclass(frozen=True)
class PretrainBuilt(Built):
    """The model, its tokenizer, its batches and those of the held-out texts."""

    tokenizer: PreTrainedTokenizerBase
    batches: TrainBatches
    held_out: list[Batch]


class PretrainTask(Task):
    """Masked-language modelling on plain text, from scratch or from a model."""

    document = "metrics.json"
    folder_kind = "pretrained model"
    keeps = WEIGHTS  # the last: the schedule cools down to them
    measures = MappingProxyType(
        {
            "loss": Measure("loss", ".4f", "positive"),
            "accuracy": Measure("accuracy", ".2%", "share"),
        }
    )

    def prepare(self, recipe: PretrainRecipe) -> PretrainJob:
        """Base model, device and texts."""
        device = choose_device(recipe.training.device)
        precision = choose_precision(recipe.training.precision, device)
        base = resolve_base(**recipe.base_model) if recipe.base_model else None
        if base and load_base_tokenizer(base).mask_token is None:
            raise RecipeError("the model's tokenizer has no mask token", received=recipe.model)
        split_seed = recipe.corpus.split_seed
        texts = load_texts(recipe.corpus, recipe.seed if split_seed is None else split_seed)
        return PretrainJob(recipe, base, device, precision, texts)

    def report_data(self, job: PretrainJob, report: Report) -> None:
        """Texts to learn from and to measure on, and what was dropped."""
        counts = job.texts.summary
        report(
            f"corpus {counts['path']}: {counts['train_texts']:,} texts, "
            f"{counts['held_out_texts']:,} held out, {counts['duplicates_dropped']:,} duplicates "
            f"and {counts['empty_dropped']:,} empty ones dropped"
        )

    def build(self, job: PretrainJob, work: Path, report: Report) -> PretrainBuilt:
        """Tokenizer, model and batches, and a step tried with them."""
        return build_tried(
            job,
            lambda changed, recipe: self._build(changed, recipe, work, report),
            lambda built: (built.batches[0], masked_loss),
            report,
        )

    def _build(
        self, job: PretrainJob, recipe: PretrainRecipe, work: Path, report: Report
    ) -> PretrainBuilt:
        set_seed(recipe.seed)
        training, seed = recipe.training, recipe.seed
        shape_memory(recipe, job.device)
        tokenizer = _open_tokenizer(job, work / "tokenizer")
        model = _build_model(replace(job, recipe=recipe), tokenizer).to(job.device)
        signs = compare_parts(
            model, tokenizer, max_length=training.max_length, key="training.max_length"
        )
        report_signs(signs, report)
        masker = Masker(tokenizer, training.mask_probability)
        steps = training.max_steps
        batches = TrainBatches(
            encode_texts(tokenizer, job.texts.train, training.max_length),
            masker,
            tokens_per_batch=training.tokens_per_batch,
            seed=seed,
            batches=None if steps is None else steps * training.gradient_accumulation_steps,
            epochs=training.epochs,
        )
        held_out = held_out_batches(
            encode_texts(tokenizer, job.texts.held_out, training.max_length),
            masker,
            tokens_per_batch=training.tokens_per_batch,
            seed=seed,
        )
        _report_model(job, model, tokenizer, batches, report)
        return PretrainBuilt(job, model, None, tokenizer, batches, held_out)

    def watch(self, job: PretrainJob, built: PretrainBuilt) -> Watch:
        """The loss on held-out texts; every log line, for these trainings are long."""
        training = job.recipe.training
        whole = training.gradient_accumulation_steps
        return Watch(
            "loss",
            False,
            training.save_steps,
            job.device,
            unit="tokens",
            seen=lambda steps: built.batches.tokens_before(steps * whole),
            every_log=True,
        )

    def batch_shape(self, job: PretrainJob, built: PretrainBuilt) -> BatchShape:
        """Whole batches."""
        return built.batches.shape(job.recipe.training.gradient_accumulation_steps)

    def make_trainer(
        self,
        job: PretrainJob,
        built: PretrainBuilt,
        ledger: Ledger,
        callbacks: Sequence[TrainerCallback],
        checkpoints: Path,
    ) -> MaskedTrainer:
        """Batches in their order, loss at masked positions only."""
        return build_trainer(
            model=built.model,
            batches=built.batches,
            held_out=built.held_out,
            training=job.recipe.training,
            device=job.device,
            precision=job.precision,
            seed=job.recipe.seed,
            checkpoints=checkpoints,
            ledger=ledger,
            callbacks=callbacks,
        )

    def write(
        self,
        job: PretrainJob,
        built: PretrainBuilt,
        outcome: Outcome,
        folder: Path,
        report: Report,
    ) -> None:
        """The model folder: weights, tokenizer, recipe, figures, provenance and card."""
        held_out = evaluate_masked(built.model.to(job.device), built.held_out, job.device, "fp32")
        report(
            f"held-out loss {held_out['loss']:.4f}, masked accuracy {held_out['accuracy']:.2%} "
            f"({held_out['masked_tokens']:,} masked tokens, fp32)"
        )
        batches = outcome.state.global_step * job.recipe.training.gradient_accumulation_steps
        metrics = {
            "held_out": held_out,
            "epochs": built.batches.epoch_of(batches),
            "tokens_seen": built.batches.tokens_before(batches),
            "tokens_per_epoch": int(built.batches.lengths.sum()),
            "parameters": sum(one.numel() for one in built.model.parameters()),
            "device": job.device,
            "precision": job.precision,
            **outcome.figures,
            "base": job.base.as_dict() if job.base else None,
            "corpus": job.texts.summary,
            "history": training_history(outcome.state.log_history),
        }
        write_model_folder(
            folder, built.model, built.tokenizer, job.recipe, metrics, outcome.course
        )

    def is_finished(self, folder: Path) -> bool:
        """Whether ``folder`` is what a pretraining writes."""
        return is_pretrained(folder)

    def read_finished(self, folder: Path) -> Finished | None:
        """What the model folder says of its training; None where it is none yet."""
        if not is_pretrained(folder):
            return None
        recipe, metrics = read_metrics(folder)
        return Finished(
            recipe=recipe,
            method=recipe.method,
            data_fingerprint=metrics["corpus"]["sha256"],
            steps=metrics["steps"],
            training_time_s=metrics["training_time_s"],
            figures={"held_out": {name: metrics["held_out"][name] for name in self.measures}},
        )


def _open_tokenizer(job: PretrainJob, folder: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer, or one trained on the texts, once however often a run starts."""
    if job.base:
        return load_base_tokenizer(job.base)
    recipe = job.recipe
    if is_main_process() and not folder.is_dir():
        tokenizer = train_tokenizer(
            job.texts.train,
            vocabulary_size=recipe.tokenizer.vocabulary_size,
            min_frequency=recipe.tokenizer.min_frequency,
            max_length=recipe.architecture.max_positions - 2,
        )
        with publish_folder(folder) as place:
            save_tokenizer(tokenizer, place)
    wait_for_processes()
    return load_tokenizer(folder)


def _build_model(job: PretrainJob, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    training = job.recipe.training
    auto = training.cpu_kernels == "auto"
    attention = (
        attention_for(job.device, job.precision, training.max_length, training.dropout)
        if auto
        else None
    )
    if job.base:
        model = load_masked_model(job.base, attention)
    else:
        model = build_roberta(job.recipe.architecture, tokenizer, attention)
    if training.dropout is not None:
        set_dropout(model, training.dropout)
    return quicken_dropout(model) if auto and job.device == "cpu" else model


def _report_model(
    job: PretrainJob,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: TrainBatches,
    report: Report,
) -> None:
    training = job.recipe.training
    whole = training.gradient_accumulation_steps
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report(
        f"{parameters:,} parameters, vocabulary {len(tokenizer):,}, {-(-len(batches) // whole):,} "
        f"steps of {whole} × at most {training.tokens_per_batch:,} tokens ({batches.per_epoch:,} "
        f"batches and {batches.lengths.sum():,} tokens an epoch), {job.precision} on {job.device}, "
        f"{torch.get_num_threads()} threads"
        + (f", {process_count()} processes" if process_count() > 1 else "")
    )
