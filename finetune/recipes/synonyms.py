"""Names that other tools have for a recipe's keys, and which key is meant.

The names are those of ``transformers.TrainingArguments``, PEFT's ``LoraConfig`` and the usual
training scripts; a name of several keys has the first that the recipe at hand knows.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel

SYNONYMS: dict[str, tuple[str, ...]] = {
    "num_train_epochs": ("training.epochs",),
    "num_epochs": ("training.epochs",),
    "n_epochs": ("training.epochs",),
    "per_device_train_batch_size": (
        "training.batch_size",
        "training.batch_seconds",
        "training.tokens_per_batch",
    ),
    "per_gpu_train_batch_size": ("training.batch_size", "training.batch_seconds"),
    "train_batch_size": ("training.batch_size", "training.batch_seconds"),
    "micro_batch_size": ("training.batch_size", "training.batch_seconds"),
    "per_device_eval_batch_size": ("training.eval_batch_size",),
    "lr": ("training.learning_rate",),
    "lr_scheduler_type": ("training.scheduler",),
    "lr_scheduler": ("training.scheduler",),
    "lr_scheduler_kwargs": ("training.scheduler_kwargs",),
    "optim": ("training.optimizer",),
    "fp16": ("training.precision=fp16",),
    "bf16": ("training.precision=bf16",),
    "fp32": ("training.precision=fp32",),
    "mixed_precision": ("training.precision",),
    "dtype": ("training.precision",),
    "torch_dtype": ("training.precision",),
    "label_smoothing_factor": ("training.label_smoothing",),
    "metric_for_best_model": ("training.best_metric",),
    "eval_strategy": ("training.eval_steps",),
    "evaluation_strategy": ("training.eval_steps",),
    "save_strategy": ("training.save_steps",),
    "logging_strategy": ("training.logging_steps",),
    "patience": ("training.early_stopping_patience",),
    "use_cpu": ("training.device=cpu",),
    "no_cuda": ("training.device=cpu",),
    "output_dir": ("output",),
    "run_name": ("name",),
    "data_seed": ("data.seed",),
    "model_name_or_path": ("model.source", "model"),
    "pretrained_model_name_or_path": ("model.source", "model"),
    "model_name": ("model.source", "model"),
    "base_model": ("model.source", "model"),
    "max_seq_length": ("model.max_length", "training.max_length"),
    "max_seq_len": ("model.max_length", "training.max_length"),
    "model_max_length": ("model.max_length", "training.max_length"),
    "hidden_dropout_prob": ("model.dropout", "architecture.dropout"),
    "train_file": ("data.path", "corpus.path"),
    "train_path": ("data.path", "corpus.path"),
    "dataset_name": ("data.path", "corpus.path"),
    "test_file": ("data.test_path",),
    "text_column_name": ("data.text_column",),
    "label_column_name": ("data.label_column",),
    "max_train_samples": ("data.rows",),
    "id2label": ("data.labels",),
    "r": ("adapter.rank",),
    "lora_r": ("adapter.rank",),
    "lora_rank": ("adapter.rank",),
    "lora_alpha": ("adapter.alpha",),
    "lora_dropout": ("adapter.dropout",),
    "lora_target_modules": ("adapter.target_modules",),
    "loraplus_lr_ratio": ("adapter.learning_rate_ratio",),
    "load_in_4bit": ("adapter.method=qlora",),
    "mlm_probability": ("training.mask_probability",),
    "vocab_size": ("tokenizer.vocabulary_size",),
}
SETTLED = {
    "load_best_model_at_end": "the best evaluation's weights are always kept",
    "greater_is_better": "training.best_metric says it",
    "do_train": "kotune finetune trains",
    "do_eval": "training.eval_steps says how often",
    "overwrite_output_dir": "--overwrite on the command line",
    "resume_from_checkpoint": "the same command goes on from its checkpoint",
    "push_to_hub": "kotune push ARTIFACT OWNER/NAME",
}


def suggest_key(kind: type[BaseModel], place: Sequence[str]) -> str:
    """What to write instead of an unknown key: the key that is meant, or those there are."""
    *sections, name = place
    if name in SETTLED:
        return SETTLED[name]
    meant = next((key for key in SYNONYMS.get(name, ()) if _is_key(kind, key)), None)
    if meant is not None:
        return f"use `{meant}`"
    known = list(section_at(kind, sections).model_fields)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    elsewhere = [key for key in _all_keys(kind) if key.rpartition(".")[2] == name]
    if elsewhere:
        return f"use {' or '.join(f'`{key}`' for key in elsewhere)}"
    return f"known keys: {', '.join(known)}"


def section_at(kind: type[BaseModel], place: Sequence[str]) -> type[BaseModel]:
    """The model of the section at a place in a recipe."""
    for part in place:
        field = kind.model_fields.get(part)
        if field is None:
            continue
        choices = [field.annotation, *get_args(field.annotation)]
        kind = next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), kind)
    return kind


def _is_key(kind: type[BaseModel], key: str) -> bool:
    return key.partition("=")[0] in _all_keys(kind)


def _all_keys(kind: type[BaseModel]) -> Iterator[str]:
    """``section.key`` of every key of a recipe."""
    for name in kind.model_fields:
        inner = section_at(kind, [name])
        yield name
        if inner is not kind:
            yield from (f"{name}.{key}" for key in inner.model_fields)
