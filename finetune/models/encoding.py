"""Texts as token ids for PyTorch: prepared, cut where the preparation says, one segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.core.preparation import Preparation
from finetune.recipes.text import PreparationSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def choose_preparation(
    section: PreparationSection, tokenizer: PreTrainedTokenizerBase
) -> Preparation:
    """What a recipe asks for; what it leaves open is the tokenizer's own."""
    return replace(
        section.of_texts,
        truncation_side=section.truncation_side or tokenizer.truncation_side,
        special_tokens="split" if tokenizer.split_special_tokens else "parsed",
    )


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    preparation: Preparation,
    *,
    max_length: int,
    **options: Any,
) -> Any:
    """transformers' encoding of the prepared texts, at most ``max_length`` tokens each.

    A text without a token, where the tokenizer adds none of its own, is one padding token that
    is seen: no model answers no token. ``options`` go to the tokenizer (padding, return_tensors
    …). Raises TypeError where a text is no string.
    """
    tokenizer.truncation_side = preparation.truncation_side
    how = {"truncation": preparation.truncation_strategy, "max_length": max_length}
    prepared = preparation.many(texts)
    if tokenizer.num_special_tokens_to_add():
        return tokenizer(prepared, return_token_type_ids=False, **how, **options)
    encoded = tokenizer(prepared, return_token_type_ids=False, **how)
    for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True):
        if not ids:
            ids.append(tokenizer.pad_token_id)
            mask.append(1)
    if not options.get("padding") and "return_tensors" not in options:
        return encoded
    length = {"max_length": max_length} if options.get("padding") == "max_length" else {}
    return tokenizer.pad(encoded, **{"padding": False, **options}, **length)


def length_batches(
    lengths: Sequence[int], batch_tokens: int | None, rows: int = 1
) -> Iterator[list[int]]:
    """Row numbers of each batch, longest first: rows x longest within ``batch_tokens``.

    ``rows`` of them where there is no such bound. The plan of the artifact's classifier.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        count = rows if batch_tokens is None else max(1, batch_tokens // longest)
        yield order[start : start + count]
        start += count


def keep_preparation(tokenizer: PreTrainedTokenizerBase, preparation: Preparation) -> None:
    """Have the tokenizer's own files say where texts are cut, for clients that read only them."""
    tokenizer.truncation_side = preparation.truncation_side
    tokenizer.init_kwargs["truncation_side"] = preparation.truncation_side
