"""What a plan knows of the data without training on it: rows, token lengths, padded tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.data.nsmc import OFFICIAL, cache_folder
from finetune.data.reviews import load_corpus
from finetune.loop.row_order import EpochOrder
from finetune.models.encoding import choose_preparation, encode_texts
from finetune.models.loading import load_base_tokenizer
from finetune.models.source import BaseModel
from finetune.recipes.files import expand_path
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.job import settle_labels

NSMC_ROWS = 149_995  # the official training file without its five empty rows


@dataclass(frozen=True)
class Lengths:
    """Tokens of the training rows: real ones, or ``max_length`` where the data is absent."""

    rows: int | None
    longest: int
    tokens: np.ndarray | None
    note: str | None


def read_lengths(recipe: FinetuneRecipe, base: BaseModel) -> Lengths:
    """Token lengths of the training rows; never downloads anything."""
    longest = recipe.model.max_length
    try:
        _check_at_hand(recipe)
        section = recipe.model.preparation
        corpus = load_corpus(recipe.data, recipe.seed, section.of_texts)
        tokenizer = load_base_tokenizer(base)
    except (DataError, ModelError, RecipeError) as fault:
        told = fault.what + (f" ({fault.received})" if fault.received else "")
        note = f"{told}: every row is taken to have max_length={longest} tokens"
        return Lengths(_known_rows(recipe), longest, None, note)
    rows = corpus.train["text"].tolist()
    preparation = choose_preparation(section, tokenizer)
    encoded = encode_texts(
        tokenizer, rows, preparation, max_length=longest, return_attention_mask=False
    )
    tokens = np.array([len(ids) for ids in encoded["input_ids"]])
    note = None
    if base.random_weights and base.weights_sha256 is None and base.location == base.source:
        note = "lengths are the embedded tokenizer's, whose vocabulary is smaller than the model's"
    return Lengths(len(rows), int(tokens.max()), tokens, note)


def planned_labels(recipe: FinetuneRecipe) -> tuple[FinetuneRecipe, list[str]]:
    """The recipe with its data's classes where it says ``auto``; two where the data is absent."""
    if recipe.data.labels != "auto":
        return recipe, []
    try:
        _check_at_hand(recipe)
        settled = settle_labels(recipe)
    except DataError as fault:
        data = recipe.data.model_copy(update={"labels": {"0": "0", "1": "1"}})
        note = f"data.labels=auto: {fault.what}; two classes are planned"
        return recipe.model_copy(update={"data": data}), [note]
    return settled, [f"data.labels=auto: {len(settled.data.labels)} classes"]


def count_steps(recipe: FinetuneRecipe, rows: int | None) -> tuple[int | None, int | None]:
    """(optimizer steps of the run, of an epoch), as Trainer counts them."""
    training = recipe.training
    if rows is None:
        return training.max_steps, None
    batches = math.ceil(rows / training.batch_size)
    per_epoch = math.ceil(batches / training.gradient_accumulation_steps)
    return training.max_steps or math.ceil(training.epochs * per_epoch), per_epoch


def padded_tokens(recipe: FinetuneRecipe, lengths: Lengths) -> tuple[float, float]:
    """(tokens of a mean micro-batch, padding included; share of padding)."""
    training = recipe.training
    if lengths.tokens is None or training.padding != "dynamic":
        fixed = recipe.model.max_length if training.padding == "max_length" else lengths.longest
        mean = fixed if lengths.tokens is None else float(lengths.tokens.mean())
        return training.batch_size * fixed, 1 - mean / fixed
    order = EpochOrder(
        lengths.tokens.tolist(),
        effective_batch=training.batch_size * training.gradient_accumulation_steps,
        micro_batch=training.batch_size,
        seed=recipe.seed,
        group_by_length=training.group_by_length,
    )
    starts = range(training.batch_size, len(order), training.batch_size)
    groups = np.array_split(lengths.tokens[list(order)], starts)
    places = sum(int(group.max()) * len(group) for group in groups)
    return places / len(groups), 1 - int(lengths.tokens.sum()) / places


def _check_at_hand(recipe: FinetuneRecipe) -> None:
    """Raise DataError where reading the data would download it."""
    data = recipe.data
    folder = cache_folder() / "nsmc"
    if data.source == "nsmc" and not all((folder / one.name).is_file() for one in OFFICIAL):
        raise DataError("NSMC is not downloaded yet")
    if data.path is not None and not expand_path(data.path, "data.path").exists():
        raise DataError("data.path does not exist", received=data.path)


def _known_rows(recipe: FinetuneRecipe) -> int | None:
    """Training rows of absent data, where the recipe or the corpus's own page tells them."""
    data = recipe.data
    total = data.rows or (NSMC_ROWS if data.source == "nsmc" else None)
    if total is None:
        return None
    held = data.validation_size
    return total - (held if isinstance(held, int) else round(total * held))
