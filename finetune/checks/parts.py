"""Config, tokenizer and recipe held against each other before anything is loaded.

Each states facts that the others take for granted: positions, vocabulary, padding, inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from finetune.checks.signs import Sign
from finetune.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POSITION_TABLES = (
    "position_embeddings",
    "embed_positions",
    "wpe",
    "char_position_embeddings",
    "distance_embedding",
)
UNSET_LENGTH = 10**9  # transformers writes 1e30 where a tokenizer states no length
FOREIGN_VOCABULARY = 0.5  # of the embeddings: fewer tokens than this are another model's


@dataclass(frozen=True)
class Fault:
    """Two facts that contradict each other, and what to try."""

    what: str
    next_step: str


def compare_parts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    key: str = "model.max_length",
    random_weights: bool = False,
) -> list[Sign]:
    """Signs of parts that fit badly; ModelError, with every fault, where they do not fit.

    ``model`` may lie on the meta device: names and shapes are read, nothing is computed. ``key``
    is the recipe's name of ``max_length``, tokens of a row with the special ones.
    """
    faults = [
        *_position_faults(model, tokenizer, max_length, key),
        *_input_faults(model, tokenizer),
        *_vocabulary_faults(model, tokenizer),
    ]
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise ModelError(
            f"config, tokenizer and recipe do not fit together: {count}\n"
            + "\n".join(f"  - {one.what}" for one in faults),
            next_step="; ".join(dict.fromkeys(one.next_step for one in faults)),
        )
    return list(_signs(model, tokenizer, max_length, key, random_weights))


def longest_input(model: PreTrainedModel) -> int | None:
    """Tokens a row may have, special ones included; None where positions are relative.

    Tables with a padding index (RoBERTa's) count positions from behind it. Some tables are longer
    than the config says (BART's, Nyströmformer's), so both limit.
    """
    config, limits = model.config, []
    stated = getattr(config, "max_position_embeddings", None)
    for name, table in _position_tables(model):
        reach = table.num_embeddings
        if name.endswith("distance_embedding"):  # of every distance to the left and to the right
            reach = (reach + 1) // 2
        elif table.padding_idx is not None:
            reach -= table.padding_idx + 1
        limits.append(min(reach, stated) if isinstance(stated, int) else reach)
    return min(limits, default=None)


def _position_tables(model: nn.Module) -> Iterator[tuple[str, nn.Embedding]]:
    """Tables that are indexed by absolute position."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            yield name, module


def _position_faults(
    model: PreTrainedModel, tokenizer: Any, max_length: int, key: str
) -> Iterator[Fault]:
    longest = longest_input(model)
    if longest is not None and max_length > longest:
        table = next(table for _, table in _position_tables(model))
        padding = table.padding_idx
        unused = "" if padding is None else f", of which the first {padding + 1} are for padding"
        yield Fault(
            f"{key}={max_length}, and the model has positions for {longest} tokens "
            f"({table.num_embeddings} in its table{unused})",
            f"{key}={longest}",
        )
    special = tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        yield Fault(
            f"{key}={max_length} leaves no room beside the tokenizer's {special} special tokens",
            f"{key}={special + 1} or more",
        )


def _input_faults(model: PreTrainedModel, tokenizer: Any) -> Iterator[Fault]:
    kind = model.config.model_type
    if tokenizer.pad_token_id is None:
        yield Fault(
            "the tokenizer has no padding token, and rows of a batch differ in length",
            "a tokenizer_config.json that names pad_token",
        )
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        yield Fault(
            f"{kind} takes no attention mask: its answers would depend on the padding beside a "
            "text, so on the texts it shares a batch with",
            "an encoder with an attention mask, such as bert, roberta, electra or deberta-v2",
        )


def _vocabulary_faults(model: PreTrainedModel, tokenizer: Any) -> Iterator[Fault]:
    rows = embedding_rows(model)
    if rows is None:
        return
    beyond = sorted(
        (index, token) for token, index in tokenizer.get_vocab().items() if index >= rows
    )
    if beyond:
        named = ", ".join(repr(token) for _, token in beyond[:3])
        yield Fault(
            f"the tokenizer has token ids up to {beyond[-1][0]:,} and the model {rows:,} "
            f"embeddings: {len(beyond):,} tokens have none ({named}{' …' if beyond[3:] else ''})",
            "the model's own tokenizer, or the embeddings resized "
            "(model.resize_token_embeddings(len(tokenizer))) and saved again",
        )


def embedding_rows(model: PreTrainedModel) -> int | None:
    """Rows of the table that token ids look up; None where there is none (CANINE hashes)."""
    try:
        table = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


def _signs(
    model: PreTrainedModel, tokenizer: Any, max_length: int, key: str, random_weights: bool
) -> Iterator[Sign]:
    stated = tokenizer.model_max_length
    if stated < min(max_length, UNSET_LENGTH):
        yield Sign(
            "parts",
            f"{key}={max_length} is more than the tokenizer's own model_max_length={stated}",
            {"max_length": max_length, "tokenizer_model_max_length": int(stated)},
        )
    told, pads = getattr(model.config, "pad_token_id", None), tokenizer.pad_token_id
    if told is not None and told != pads and not random_weights:
        token = tokenizer.convert_ids_to_tokens(told) if told < len(tokenizer) else None
        yield Sign(
            "parts",
            f"the tokenizer pads with id {pads}, config.json says pad_token_id={told} "
            f"({token!r} to the tokenizer); both stay as they are",
            {"tokenizer_pad_token_id": pads, "config_pad_token_id": told},
        )
    rows, known = embedding_rows(model), len(tokenizer)
    if rows is not None and known < FOREIGN_VOCABULARY * rows and not random_weights:
        yield Sign(
            "parts",
            f"the tokenizer has {known:,} tokens and the model {rows:,} embeddings: is it another "
            "model's tokenizer?",
            {"tokens": known, "embeddings": rows},
        )
    if tokenizer.num_special_tokens_to_add() == 0:
        yield Sign("parts", "the tokenizer adds no special tokens, such as [CLS] and [SEP]", {})
