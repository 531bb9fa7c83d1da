"""Texts for pretraining: read, drop empty and duplicate ones, then hold some out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import DataError
from finetune.core.lines import TextFault, read_lines
from finetune.recipes.files import expand_path
from finetune.recipes.pretraining import PretrainCorpus


@dataclass(frozen=True)
class PretrainTexts:
    """Texts to learn from, texts to measure on (none of them in both), and the counts."""

    train: list[str]
    held_out: list[str]
    summary: dict[str, Any]


def load_texts(corpus: PretrainCorpus, seed: int) -> PretrainTexts:
    """Distinct texts, prepared, split by ``seed``; raises DataError, RecipeError."""
    path = expand_path(corpus.path, "corpus.path")
    prepare = corpus.preparation.of_texts
    raw = prepare.many(read_texts(path, corpus.text_column, corpus.path))
    raw = ["" if text.isspace() else text for text in raw]
    kept = list(dict.fromkeys(text for text in raw if text))
    held_out_count = corpus.held_out_size
    if isinstance(held_out_count, float):
        held_out_count = max(1, round(held_out_count * len(kept)))
    if held_out_count >= len(kept):
        raise DataError(
            "corpus.held_out_size leaves no text to learn from",
            received=f"{corpus.held_out_size} of {len(kept)} distinct texts in {corpus.path}",
            next_step="corpus.held_out_size=0.05",
        )
    order = np.random.default_rng(seed).permutation(len(kept))
    held_out = [kept[index] for index in sorted(order[:held_out_count])]
    train = [kept[index] for index in sorted(order[held_out_count:])]
    empty = sum(not text for text in raw)
    summary = {
        "path": corpus.path,
        "text_column": corpus.text_column,
        "texts_read": len(raw),
        "empty_dropped": empty,
        "preparation": corpus.preparation.model_dump(),
        "duplicates_dropped": len(raw) - empty - len(kept),
        "train_texts": len(train),
        "held_out_texts": len(held_out),
        "sha256": hashlib.sha256("\n".join(kept).encode()).hexdigest(),
    }
    return PretrainTexts(train, held_out, summary)


def read_texts(path: Path, text_column: str | None, named: str) -> list[str]:
    """Every text of a file: a table's column, or each line where ``text_column`` is None.

    ``named`` is the path as the recipe writes it. Raises DataError.
    """
    if not path.is_file():
        raise DataError(
            "corpus.path is not a file", received=named, next_step="corpus.path=FILE (plain text)"
        )
    if text_column is None:
        return _read_lines(path, named)
    from finetune.data.tables import read_table

    try:
        return read_table(path, text_column, None).frame["text"].tolist()
    except DataError as fault:
        raise DataError(
            f"corpus.path: {fault.what}",
            received=fault.received,
            allowed=fault.allowed,
            next_step="corpus.text_column=…, or corpus.text_column=null for one text a line",
        ) from fault


def _read_lines(path: Path, named: str) -> list[str]:
    try:
        with path.open("rb") as stream:
            return list(read_lines(stream))
    except TextFault as fault:
        raise DataError("corpus.path is no plain text", received=f"{named}: {fault}") from fault
