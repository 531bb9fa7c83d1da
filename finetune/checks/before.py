"""Everything that is compared before a text training, in one call of its job preparation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetune.adapters.attach import find_target_modules
from finetune.checks.exportable import check_exportable
from finetune.checks.parts import compare_parts
from finetune.checks.signs import Sign
from finetune.checks.texts import TextCounts, count_texts, sample_texts, text_signs
from finetune.core.errors import ModelError
from finetune.models.loading import load_skeleton
from finetune.recipes.methods import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.core.preparation import Preparation
    from finetune.models.source import BaseModel
    from finetune.recipes.text import AdapterSection, FinetuneRecipe, TrainingSection


@dataclass(frozen=True)
class Before:
    """What the comparison found: signs, and counts of each split's tokens."""

    signs: tuple[Sign, ...] = ()
    texts: Mapping[str, TextCounts] = field(default_factory=dict)


def check_before_training(
    recipe: FinetuneRecipe,
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    preparation: Preparation,
    splits: Mapping[str, Sequence[Any]],
) -> Before:
    """Hold config, tokenizer, adapter, schedule, texts and exporter against each other.

    Raises ModelError, DataError or RecipeError where they do not fit.
    """
    signs = compare_with_model(recipe, base, tokenizer)
    signs += schedule_signs(recipe.training, len(splits["train"]))
    length = recipe.model.max_length
    counts = {
        name: count_texts(
            tokenizer(
                preparation.many(sample_texts(texts)),
                truncation=preparation.truncation_strategy,
                max_length=length,
                return_special_tokens_mask=True,
                return_token_type_ids=False,
            ),
            tokenizer.unk_token_id,
            length,
        )
        for name, texts in splits.items()
        if len(texts)
    }
    limit = recipe.data.max_unknown_tokens
    signs += text_signs(counts, max_length=length, max_unknown_tokens=limit)
    return Before(tuple(signs), counts)


def compare_with_model(
    recipe: FinetuneRecipe,
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    refuse: bool = True,
) -> list[Sign]:
    """Signs of config, tokenizer, adapter and exporter; needs neither weights nor data.

    What cannot be exported is refused where the recipe has an export section, unless ``refuse``
    is False.
    """
    model = load_skeleton(base, list(recipe.data.labels.values()), recipe.model.dropout, None)
    signs = compare_parts(
        model, tokenizer, max_length=recipe.model.max_length, random_weights=base.random_weights
    )
    if recipe.training.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ModelError(
            f"{model.config.model_type} supports no gradient checkpointing",
            received="training.gradient_checkpointing=true",
            next_step="training.gradient_checkpointing=false",
        )
    if METHODS[recipe.adapter.method].has_adapter:
        signs += adapter_signs(model, recipe.adapter)
    precisions = recipe.export.precisions
    wanted = refuse and "export" in recipe.model_fields_set
    return signs + check_exportable(model.config, tokenizer, wanted=wanted, precisions=precisions)


def adapter_signs(model: Any, adapter: AdapterSection) -> list[Sign]:
    """A rank beyond the smaller side of the smallest matrix; ModelError for unknown targets."""
    head = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    names = find_target_modules(model, adapter.target_modules, [*head, "pooler"])
    layers = [model.get_submodule(name) for name in names]
    narrowest = min(min(layer.in_features, layer.out_features) for layer in layers)
    if "rank" not in METHODS[adapter.method].keys or adapter.rank <= narrowest:
        return []
    return [
        Sign(
            "parts",
            f"adapter.rank={adapter.rank} is more than the smaller side of the smallest matrix, "
            f"{narrowest}: what is above it adds nothing",
            {"rank": adapter.rank, "narrowest": narrowest},
        )
    ]


def schedule_signs(training: TrainingSection, rows: int) -> list[Sign]:
    """A warm-up that ends with the training or after it."""
    steps = training.max_steps
    if steps is None:
        batches = math.ceil(rows / training.batch_size)
        steps = math.ceil(
            training.epochs * math.ceil(batches / training.gradient_accumulation_steps)
        )
    warmup = training.warmup_steps or math.ceil(training.warmup_ratio * steps)
    if training.scheduler == "constant" or warmup < steps or warmup <= 1:
        return []
    return [
        Sign(
            "schedule",
            f"the warm-up takes {warmup:,} steps and the training {steps:,}: the learning rate "
            f"never reaches {training.learning_rate:g}",
            {"warmup_steps": warmup, "steps": steps},
        )
    ]
