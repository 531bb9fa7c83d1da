"""Read one table of any supported kind as strings, with the line each row stands on."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from finetune.core.errors import DataError

SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl", ".parquet")


def read_table(path: Path, text_column: str, label_column: str) -> pd.DataFrame:
    """Columns ``row`` (1-based line; record number for Parquet), ``text``, ``raw_label``.

    NSMC's ``.txt`` and any ``.tsv`` are read without quoting: the corpus holds quotes that
    never close, and a reader that honours them swallows rows silently.
    Raises DataError where the file is no table of this shape.
    """
    if not path.is_file():
        raise DataError("the data file does not exist", received=path)
    if path.suffix not in SUFFIXES:
        raise DataError("unknown kind of data file", received=path, allowed=", ".join(SUFFIXES))
    try:
        frame, first_line = _read(path)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as bad:
        detail = str(bad).splitlines()[0] if str(bad) else type(bad).__name__
        raise DataError(f"{path} is not a readable table", received=detail) from bad
    missing = [name for name in (text_column, label_column) if name not in frame.columns]
    if missing:
        found = ", ".join(repr(str(name))[1:41] for name in frame.columns[:8])
        raise DataError(
            f"{path} has no column {' and '.join(missing)}",
            received=f"columns {found}",
            next_step="data.text_column=… data.label_column=…",
        )
    return as_rows(frame, text_column, label_column, first_line)


def _read(path: Path) -> tuple[pd.DataFrame, int]:
    if path.suffix == ".parquet":
        return pd.read_parquet(path), 1
    _refuse_binary(path)
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True, dtype=False), 1
    options: dict = {"dtype": str, "keep_default_na": False, "na_values": [], "encoding": "utf-8"}
    if path.suffix == ".csv":
        return pd.read_csv(path, skip_blank_lines=False, **options), 2
    frame = pd.read_csv(
        path,
        sep="\t",
        quoting=csv.QUOTE_NONE,
        lineterminator="\n",
        skip_blank_lines=False,
        **options,
    )
    return frame.rename(columns=lambda name: name.rstrip("\r")), 2


def _refuse_binary(path: Path) -> None:
    with path.open("rb") as stream:
        if b"\0" in stream.read(1 << 16):
            raise ValueError("a binary file")


def as_rows(frame: pd.DataFrame, text: str, label: str, first_line: int) -> pd.DataFrame:
    """One table in the common shape: row, text (as it stands there), raw_label."""
    return pd.DataFrame(
        {
            "row": range(first_line, first_line + len(frame)),
            "text": frame[text].map(_as_text).astype(object),
            "raw_label": frame[label].map(_as_label).astype(object),
        }
    )


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _as_label(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or value != value else str(value).strip()
