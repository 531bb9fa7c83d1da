"""One table of texts and labels in a common shape, whatever file or data set it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from finetune.core.errors import DataError
from finetune.core.preparation import well_formed
from finetune.data.records import Records, find_columns, plain_name
from finetune.data.table_files import SUFFIXES, Number, read_records

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["SUFFIXES", "Table", "read_table", "table_of_dataset"]


@dataclass(frozen=True)
class Table:
    """``frame``: row, line (of a text file; it is the row but for quoted line breaks), text
    ("" where there is none) and raw_label (None where there is none or none was asked for).

    ``notes`` say what a reader of the data should know of how the file was read.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]


def read_table(path: Path, text_column: str, label_column: str | None) -> Table:
    """Texts as they stand in a file, and its labels as text; raises DataError.

    ``row`` is the number of a record, a header counted as the first.
    """
    wanted = [text_column] if label_column is None else [text_column, label_column]
    key = None if label_column is None else (label_column, lambda value, known: value in known)
    records = read_records(path, wanted, key=key)
    return table_of_records(records, path, text_column, label_column)


def table_of_dataset(
    dataset: Dataset, origin: str, text_column: str, label_column: str | None
) -> Table:
    """The same of a ``datasets.Dataset``; raises DataError."""
    wanted = [text_column] if label_column is None else [text_column, label_column]
    names = dataset.column_names
    chosen = [names[place] for place in find_columns(names, wanted, origin)]
    table = dataset.with_format(None)
    columns = {plain_name(name): list(table[name]) for name in chosen}
    records = Records(columns, rows=list(range(1, len(dataset) + 1)))
    return table_of_records(records, origin, text_column, label_column)


def table_of_records(
    records: Records, origin: Any, text_column: str, label_column: str | None
) -> Table:
    """Values of any kind as text; raises DataError naming the record of one that cannot be."""
    texts = _Values(records, origin, text_column)
    frame = pd.DataFrame(
        {
            "row": pd.Series(records.rows, dtype="int64"),
            "line": pd.Series(records.lines or records.rows, dtype="int64"),
            "text": pd.Series(texts.as_texts(), dtype=object),
            "raw_label": pd.Series(
                _Values(records, origin, label_column).as_labels()
                if label_column is not None
                else [None] * len(records.rows),
                dtype=object,
            ),
        }
    )
    return Table(frame, (*records.notes, *texts.notes))


def canonical_label(raw: str) -> str:
    """One spelling for the ways tools write the same class: 1, 1.0, true."""
    whole, _, zeros = raw.partition(".")
    if zeros and not zeros.strip("0") and whole.lstrip("+-").isdigit():
        return whole
    return {"true": "1", "false": "0"}.get(raw.lower(), raw)


class _Values:
    """One column of records, whose values are of whatever type its file gave them."""

    def __init__(self, records: Records, origin: Any, column: str) -> None:
        self.records, self.origin, self.column = records, origin, column
        self.values: Sequence[Any] = records.columns[plain_name(column)]
        self.notes: list[str] = []

    def as_texts(self) -> list[str]:
        """Each value as text, "" where it is missing; raises DataError."""
        numbers = broken = present = 0
        found = []
        for index, value in enumerate(self.values):
            if is_missing(value):
                found.append("")
                continue
            if isinstance(value, bool):
                raise self._fault(index, f"bool: {value}", "texts")
            text = self._as_string(index, value)
            present += 1
            numbers += isinstance(value, Number) or not isinstance(value, str | bytes)
            broken += well_formed(text) != text
            found.append(well_formed(text))
        if numbers and numbers == present:
            first = next(one for one in self.values if not is_missing(one))
            raise DataError(
                f"{self.origin}: column {self.column} holds numbers, no texts",
                received=f"{type(first).__name__} {first}",
                next_step="data.text_column=…",
            )
        if numbers:
            self.notes.append(f"{self.origin}: {numbers} texts are numbers, read as written")
        if broken:
            self.notes.append(f"{self.origin}: half characters in {broken} texts became U+FFFD")
        return found

    def as_labels(self) -> list[str | None]:
        """Each value as text, None where it is missing; raises DataError."""
        return [
            None if is_missing(value) else plain_name(self._as_string(index, value)) or None
            for index, value in enumerate(self.values)
        ]

    def _as_string(self, index: int, value: Any) -> str:
        try:
            text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError as fault:
            raise self._fault(index, "bytes that are no UTF-8", "text") from fault
        if not isinstance(value, str | bytes | int | float | np.generic | Decimal):
            raise self._fault(index, f"{type(value).__name__}: {text[:50]!r}", "text, or a number")
        if "\0" in text:
            raise self._fault(index, f"a NUL character in {text[:50]!r}", "text without it")
        return text

    def _fault(self, index: int, what: str, allowed: str) -> DataError:
        return DataError(
            f"{self.origin}: {self.records.place(index)} has no text in column {self.column}",
            received=what,
            allowed=allowed,
        )


def is_missing(value: Any) -> bool:
    """None, NaN, NaT or pandas' NA, in whatever column."""
    if value is None:
        return True
    missing = pd.isna(value) if pd.api.types.is_scalar(value) else False
    return bool(missing)
