"""Domain pretraining: plain text and a recipe in, a model folder out, on transformers.Trainer.

Interrupted, the same command goes on from the last whole checkpoint and arrives at the same
weights. Checkpoints lie beside the output and go when it is published.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import set_seed

from finetune.core.errors import FolderError, RecipeError
from finetune.core.files import publish_folder, write_text
from finetune.core.provenance import git_state
from finetune.data.plain_texts import PretrainTexts, load_texts
from finetune.hardware.cpu_kernels import attention_for, quicken_dropout
from finetune.hardware.precision import (
    bound_primitive_caches,
    choose_device,
    choose_precision,
    exact_fp32,
)
from finetune.loop.checkpoints import last_checkpoint
from finetune.loop.interruption import stop_on_signal
from finetune.models.loading import load_base_tokenizer, load_tokenizer
from finetune.models.source import BaseModel, resolve_base
from finetune.recipes.files import dump_recipe, read_yaml
from finetune.recipes.text import PretrainRecipe
from finetune.tasks.pretraining.batches import Masker, TrainBatches, encode_texts, held_out_batches
from finetune.tasks.pretraining.folder import check_target, write_model_folder
from finetune.tasks.pretraining.model import (
    build_roberta,
    evaluate_masked,
    load_masked_model,
    longest_input,
    set_dropout,
)
from finetune.tasks.pretraining.tokenizer import train_tokenizer
from finetune.tasks.pretraining.trainer import build_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Report = Callable[[str], None]
# What may differ when a run goes on: how far and how fast, never what is learnt from what.
CHANGEABLE = {"epochs", "max_steps", "learning_rate", "weight_decay", "dropout", "warmup_steps"} | {
    *("scheduler", "decay_ratio", "precision", "device"),
    *("logging_steps", "save_steps", "eval_steps"),
}


@dataclass(frozen=True)
class PretrainJob:
    """What a pretraining works with, once everything was found and checked."""

    recipe: PretrainRecipe
    base: BaseModel | None
    texts: PretrainTexts
    tokenizer: PreTrainedTokenizerBase
    device: str
    precision: str


@exact_fp32()
def pretrain(recipe: PretrainRecipe, *, overwrite: bool = False, report: Report = print) -> Path:
    """Pretrain what the recipe says and publish the model folder, whole or not at all.

    Raises RecipeError, DataError, ModelError or FolderError before anything heavy begins.
    """
    target = Path(recipe.folder)
    check_target(target, overwrite=overwrite)
    git_state()
    bound_primitive_caches()
    work = work_folder(target)
    changed = check_same_run(work, recipe)
    job = prepare_job(recipe, work)
    counts = job.texts.summary
    report(
        f"corpus {counts['path']}: {counts['train_texts']:,} texts, {counts['held_out_texts']:,} "
        f"held out, {counts['duplicates_dropped']:,} duplicates and {counts['empty_dropped']:,} "
        f"empty ones dropped; vocabulary {len(job.tokenizer):,}"
    )
    if changed:
        report(f"{', '.join(changed)}: not as it began; what is left goes by the new values")
    set_seed(recipe.seed)
    model = _build_model(job)
    _check_length(model, recipe)
    write_text(work / "recipe.yaml", dump_recipe(recipe))
    metrics = _train(job, model, work, report)
    with publish_folder(target) as folder:
        write_model_folder(folder, model, job.tokenizer, recipe, metrics)
    shutil.rmtree(work)
    report(f"model folder {target}")
    return target


def work_folder(target: Path) -> Path:
    """Where checkpoints and the tokenizer of an unfinished run lie: beside its output."""
    return target.parent / f".{target.name}.checkpoints"


def check_same_run(work: Path, recipe: PretrainRecipe) -> list[str]:
    """The training keys of an unfinished run that the recipe changes, of those that may.

    Raises FolderError, naming the keys, where the checkpoints are another run's.
    """
    saved = work / "recipe.yaml"
    if not saved.is_file():
        return []
    then = read_yaml(saved)
    now = recipe.model_dump(mode="json")
    differ = [
        f"training.{key}"
        for key in sorted(CHANGEABLE)
        if then["training"].get(key) != now["training"][key]
    ]
    for section in (then, now):
        section["training"] = {
            key: value for key, value in section["training"].items() if key not in CHANGEABLE
        }
    changed = [key for key in now if now[key] != then.get(key)]
    if changed:
        raise FolderError(
            f"an unfinished run of other settings is in the way: {', '.join(changed)} differ",
            received=work,
            next_step=f"the recipe it began with, another output=…, or rm -r {work}",
        )
    return differ


def prepare_job(recipe: PretrainRecipe, work: Path) -> PretrainJob:
    """Find model, device, texts and tokenizer; the cheap mistakes are told first."""
    device = choose_device(recipe.training.device)
    precision = choose_precision(recipe.training.precision, device)
    base = resolve_base(recipe.model, recipe.revision) if recipe.model else None
    split_seed = recipe.corpus.split_seed
    texts = load_texts(recipe.corpus, recipe.seed if split_seed is None else split_seed)
    if base:
        tokenizer = load_base_tokenizer(base)
        if tokenizer.mask_token is None:
            raise RecipeError("the model's tokenizer has no mask token", received=recipe.model)
        return PretrainJob(recipe, base, texts, tokenizer, device, precision)
    if not (work / "tokenizer").is_dir():
        tokenizer = train_tokenizer(
            texts.train,
            vocabulary_size=recipe.tokenizer.vocabulary_size,
            min_frequency=recipe.tokenizer.min_frequency,
            max_length=recipe.architecture.max_positions - 2,
        )
        with publish_folder(work / "tokenizer") as folder:
            tokenizer.save_pretrained(folder)
    return PretrainJob(recipe, base, texts, load_tokenizer(work / "tokenizer"), device, precision)


def _build_model(job: PretrainJob) -> PreTrainedModel:
    training = job.recipe.training
    attention = attention_for(job.device, job.precision, training.max_length, training.dropout)
    if job.base:
        model = load_masked_model(job.base, attention)
    else:
        model = build_roberta(job.recipe.architecture, job.tokenizer, attention)
    if training.dropout is not None:
        set_dropout(model, training.dropout)
    return quicken_dropout(model) if job.device == "cpu" else model


def _check_length(model: PreTrainedModel, recipe: PretrainRecipe) -> None:
    if recipe.training.max_length > longest_input(model):
        raise RecipeError(
            "training.max_length is more than the model has positions for",
            received=recipe.training.max_length,
            allowed=f"up to {longest_input(model)}",
            next_step=f"training.max_length={longest_input(model)}",
        )


def _train(job: PretrainJob, model: PreTrainedModel, work: Path, report: Report) -> dict[str, Any]:
    """Train to the last step, from a checkpoint where there is one; figures of the result."""
    training, seed = job.recipe.training, job.recipe.seed
    masker = Masker(job.tokenizer, training.mask_probability)
    batches = TrainBatches(
        encode_texts(job.tokenizer, job.texts.train, training.max_length),
        masker,
        tokens_per_batch=training.tokens_per_batch,
        seed=seed,
        steps=training.max_steps,
        epochs=training.epochs,
    )
    held_out = held_out_batches(
        encode_texts(job.tokenizer, job.texts.held_out, training.max_length),
        masker,
        tokens_per_batch=training.tokens_per_batch,
        seed=seed,
    )
    checkpoint = last_checkpoint(work / "steps", report)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report(
        f"{parameters:,} parameters, {len(batches):,} steps of at most "
        f"{training.tokens_per_batch:,} tokens ({batches.per_epoch:,} an epoch of "
        f"{batches.lengths.sum():,}), {job.precision} on {job.device}, "
        f"{torch.get_num_threads()} threads"
        + (f"; going on from {checkpoint.folder.name}" if checkpoint else "")
    )
    began = time.perf_counter()
    with stop_on_signal() as request:
        trainer = build_trainer(
            model=model,
            batches=batches,
            held_out=held_out,
            training=training,
            device=job.device,
            precision=job.precision,
            seed=seed,
            checkpoints=work / "steps",
            request=request,
        )
        trainer.resume(checkpoint)
    if request.asked and not trainer.finished:
        report(f"saved at step {trainer.state.global_step} of {trainer.state.max_steps}")
        raise KeyboardInterrupt
    figures = evaluate_masked(model, held_out, job.device, "fp32")
    report(
        f"held-out loss {figures['loss']:.4f}, masked accuracy {figures['accuracy']:.2%} "
        f"({figures['masked_tokens']:,} masked tokens, fp32)"
    )
    return {
        "held_out": figures,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.global_step / batches.per_epoch,
        "tokens_seen": batches.tokens_before(trainer.state.global_step),
        "tokens_per_epoch": int(batches.lengths.sum()),
        "parameters": parameters,
        "device": job.device,
        "precision": job.precision,
        "training_time_s_since_last_start": time.perf_counter() - began,
        "base": job.base.as_dict() if job.base else None,
        "corpus": job.texts.summary,
        "history": trainer.state.log_history,
    }
