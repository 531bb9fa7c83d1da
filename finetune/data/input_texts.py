"""Texts to predict, from the same files and by the same readers as texts to train on."""

from __future__ import annotations

import sys
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.lines import TextFault, read_lines
from finetune.core.preparation import well_formed

TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
COLUMN = "document"  # of a table, where none is named


def read_input_texts(file: Path | None, column: str | None = None) -> tuple[list[str], list[str]]:
    """(texts, notes on how they were read) of a table, or of lines of a file or standard input.

    A row without text is an empty text: the answers keep the order and number of the rows.
    Raises DataError.
    """
    if file is not None and (column is not None or file.suffix.lower() in TABLES):
        return _read_column(file, column or COLUMN)
    if column is not None:
        raise DataError("--column belongs to --file", received=column)
    named = "standard input" if file is None else str(file)
    try:
        if file is None:
            lines = list(read_lines(sys.stdin.buffer))
        else:
            with file.open("rb") as stream:
                lines = list(read_lines(stream))
    except OSError as fault:
        raise DataError("the file cannot be read", received=f"{file}: {fault.strerror}") from fault
    except TextFault as fault:
        raise DataError("the text cannot be read", received=f"{named}: {fault}") from fault
    if not lines:
        raise DataError("no text", received=named)
    if COLUMN in lines[0].split("\t")[1:] or lines[0].startswith(f"{COLUMN}\t"):
        raise DataError(
            "a table, not one text a line", received=named, next_step=f"--column {COLUMN}"
        )
    return lines, []


def given_texts(texts: list[str]) -> list[str]:
    """Texts of the command line; bytes that are no UTF-8 arrive as surrogates, and go as U+FFFD."""
    return [well_formed(text) for text in texts]


def _read_column(file: Path, column: str) -> tuple[list[str], list[str]]:
    from finetune.data.tables import read_table

    try:
        table = read_table(file, column, None)
    except DataError as fault:
        raise DataError(
            fault.what,
            received=fault.received,
            allowed=fault.allowed,
            next_step="--column NAME" if "has no column" in fault.what else fault.next_step,
        ) from fault
    texts = table.frame["text"].tolist()
    if not texts:
        raise DataError("no text", received=file)
    empty = sum(not text.strip() for text in texts)
    told = [f"{file.name}: {empty} of {len(texts)} rows have no text"] if empty else []
    return texts, [*table.notes, *told]
