"""Table files of any supported kind, each record accounted for: CSV, TSV, JSON lines, Parquet.

What cannot be accounted for (a row with more columns than the header, a quote that swallows
rows, a column that is there twice) is refused with its place; the rest of what a reader of the
data should know stands in ``notes``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.core.lines import TextFault, read_lines
from finetune.data.delimited import Choose, Delimited, Key
from finetune.data.records import TEXT_KEYS, Records, find_columns, plain_name

SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl", ".json", ".parquet")
HINTS = {  # what to do about files that are no table we read
    ".gz": "gunzip FILE",
    ".zip": "unzip FILE",
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".xls": "save the sheet as CSV (UTF-8)",
}


class Number(str):
    """A number of a JSON file, as it is written there."""


def read_records(
    path: Path,
    wanted: Sequence[str],
    *,
    key: Key | None = None,
    every: bool = False,
    fix: str = TEXT_KEYS,
) -> Records:
    """The ``wanted`` columns of a file, or ``every`` one; raises DataError.

    ``.csv`` is read with quotes; NSMC's ``.txt`` and any ``.tsv`` without: the corpus holds
    quotes that never close. ``key`` is (column, whether a value is one of its own given all
    seen), which tells rows that a stray quote has swallowed from a text of several lines. ``fix``
    is what to try where a column is missing.
    """
    if not path.is_file():
        raise DataError("the data file does not exist", received=path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            "unknown kind of data file",
            received=path,
            allowed=", ".join(SUFFIXES),
            next_step=HINTS.get(suffix),
        )

    def choose(names: Sequence[object]) -> list[int]:
        places = find_columns(names, wanted, path, fix)
        return list(range(len(names))) if every else places

    if suffix == ".parquet":
        return _read_parquet(path, choose)
    try:
        with path.open("rb") as stream:
            lines = read_lines(stream)
            if suffix in (".json", ".jsonl"):
                return _read_json(path, lines, choose)
            return Delimited(path, lines, wanted, choose, key).read()
    except (TextFault, OSError) as fault:
        raise DataError(f"{path} is not a readable table", received=fault) from fault


def _read_json(path: Path, lines: Iterator[str], choose: Choose) -> Records:
    """One object a line, or one array of objects."""
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise DataError(f"{path} is not a readable table: it is empty")
    if first[1].lstrip().startswith("["):
        content = _parse_json(path, "\n".join([first[1], *(line for _, line in numbered)]), "")
        objects = list(enumerate(content, start=1))
        word = "record"
    else:
        objects = [
            (number, _parse_json(path, line, f"line {number}"))
            for number, line in (first, *numbered)
        ]
        word = "line"
    for number, one in objects:
        if not isinstance(one, dict):
            raise DataError(
                f"{path}: {word} {number} is no object",
                received=type(one).__name__,
                allowed='one object a line: {"document": "…", "label": 1}',
            )
    names = list(dict.fromkeys(name for _, one in objects for name in one))
    chosen = [names[place] for place in choose(names)]
    return Records(
        {plain_name(name): [one.get(name) for _, one in objects] for name in chosen},
        rows=[number for number, _ in objects],
    )


def _parse_json(path: Path, text: str, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{path}: a key is there twice", received=f"{where}: {double!r}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError) as fault:
        raise DataError(
            f"{path} is not a readable table",
            received=f"{where or 'the array'}: {str(fault)[:80]}",
            allowed="one JSON object a line",
        ) from fault


def _read_parquet(path: Path, choose: Choose) -> Records:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            chosen = [names[place] for place in choose(names)]
            table = file.read(columns=chosen)
    except (pyarrow.ArrowException, OSError) as fault:
        detail = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise DataError(f"{path} is not a readable table", received=detail) from fault
    columns = {plain_name(name): table.column(name).to_pylist() for name in chosen}
    return Records(columns, rows=list(range(1, table.num_rows + 1)))
