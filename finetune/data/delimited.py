"""Records of a file whose columns a character separates, every line of it accounted for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from finetune.core.errors import DataError
from finetune.data.records import Records, plain_name

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
LONGEST_FIELD = 2**31 - 1
LISTED = 5
Key = tuple[str, Callable[[str, set[str]], bool]]
Choose = Callable[[Sequence[str]], list[int]]  # names of columns → places of those to keep


class Delimited:
    """One file whose columns a character separates."""

    def __init__(
        self,
        path: Path,
        lines: Iterator[str],
        wanted: Sequence[str],
        choose: Choose,
        key: Key | None,
    ) -> None:
        self.path, self.wanted, self.key = path, wanted, key
        self._lines, self._held = lines, []
        self._read = 0  # lines
        header = next(self._tape(), None)
        if header is None or not header.strip():
            raise DataError(f"{path} is not a readable table: its first line is empty")
        self.separator = self._find_separator(header)
        self.quoted = self.separator != "\t" or path.suffix.lower() == ".csv"
        self.names = next(self._parse([header]))
        self._held.clear()
        self._places = {plain_name(self.names[place]): place for place in choose(self.names)}
        self._ragged: list[str] = []
        self._ragged_count = self._longer = 0
        self._several: list[tuple[int, list[str]]] = []  # records of several lines
        self._blank: list[int] = []

    def read(self) -> Records:
        """Every record; raises DataError."""
        records = Records({name: [] for name in self._places})
        for fields in self._parse(self._tape()):
            line = self._read - len(self._held) + 1
            if not fields or (len(fields) == 1 != len(self.names) and not fields[0].strip()):
                self._blank.append(line)
            elif len(fields) != len(self.names):
                self._count_ragged(records, line, fields)
            else:
                self._fill(records)
                self._add(records, line, fields)
            self._held.clear()
        self._refuse_ragged(len(records.rows))
        self._refuse_swallowed(records)
        return self._told(records)

    def _tape(self) -> Iterator[str]:
        """The file's lines, those of the record at hand also held."""
        for line in self._lines:
            self._read += 1
            self._held.append(line)
            yield line

    def _parse(self, lines: Any) -> Iterator[list[str]]:
        if not self.quoted:
            yield from (line.split(self.separator) for line in lines)
            return
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.reader((line + "\n" for line in lines), delimiter=self.separator, strict=True)
        while True:
            try:
                yield next(reader)
            except StopIteration:
                return
            except csv.Error as fault:
                self._refuse_quotes(fault)

    def _refuse_quotes(self, fault: csv.Error) -> NoReturn:
        first = self._read - len(self._held) + 1
        opened = "unexpected end" in str(fault)
        what = "a quote is opened and never closed" if opened else "text follows a closing quote"
        raise DataError(
            f"{self.path} is not a readable table: {what}",
            received=f"line {first}: {self._held[0][:60]!r}",
            allowed='quotes inside a quoted text twice: "He said ""no"""',
            next_step="mend the line, or save the table as .jsonl; .tsv is read without quotes",
        ) from fault

    def _find_separator(self, header: str) -> str:
        """The one by which the header holds the wanted columns; the suffix's where none does."""
        usual = "," if self.path.suffix.lower() == ".csv" else "\t"
        asked = {plain_name(name) for name in self.wanted}
        for separator in dict.fromkeys([usual, *SEPARATORS]):
            if asked <= {plain_name(name.strip('"')) for name in header.split(separator)}:
                return separator
        return usual

    def _fill(self, records: Records) -> None:
        """Empty lines between records are records without values; those at the end are not."""
        for line in self._blank:
            records.rows.append(len(records.rows) + 2)
            records.lines.append(line)
            for values in records.columns.values():
                values.append(None)
        self._blank.clear()

    def _add(self, records: Records, line: int, fields: list[str]) -> None:
        if len(self._held) > 1:
            self._several.append((len(records.rows), list(self._held)))
        records.rows.append(len(records.rows) + 2)
        records.lines.append(line)
        for name, place in self._places.items():
            records.columns[name].append(fields[place])

    def _count_ragged(self, records: Records, line: int, fields: list[str]) -> None:
        self._fill(records)
        self._add(records, line, self.names)  # keeps the numbers; the file is refused in the end
        self._ragged_count += 1
        self._longer += len(fields) == len(self.names) + 1
        if len(self._ragged) < LISTED:
            place = records.place(len(records.rows) - 1)
            self._ragged.append(f"{place}: {len(fields)} columns, {'|'.join(fields)[:50]!r}")

    def _refuse_ragged(self, count: int) -> None:
        if not self._ragged_count:
            return
        fix = f'quote a text that holds "{self.separator}", or save the table as .jsonl'
        if self._longer == count:
            fix = "every row has one column more: give the first one a name in the header"
        raise DataError(
            f"{self.path}: {self._ragged_count} of {count} rows have not the "
            f"{len(self.names)} columns of the header",
            received="; ".join(self._ragged),
            next_step=fix,
        )

    def _refuse_swallowed(self, records: Records) -> None:
        """Refuse a quoted text whose lines are rows themselves: stray quotes made it one."""
        if self.key is None:
            return
        column, is_key = plain_name(self.key[0]), self.key[1]
        known = {one for one in records.columns[column] if one is not None}
        place = self._places[column]
        for index, lines in self._several:
            rows = [line for line in lines if self._looks_like_row(line, place, is_key, known)]
            if len(rows) > 1:
                raise DataError(
                    f"{self.path}: a quote swallows rows",
                    received=f"{records.place(index)} goes on for {len(lines)} lines, "
                    f"{len(rows)} of them rows themselves: {lines[0][:50]!r}",
                    next_step='write a quote inside a text twice (""), or save the table as '
                    ".jsonl; .tsv is read without quotes",
                )

    def _looks_like_row(
        self, line: str, place: int, is_key: Callable[[str, set[str]], bool], known: set[str]
    ) -> bool:
        for fields in (line.split(self.separator), *csv.reader([line], delimiter=self.separator)):
            if len(fields) == len(self.names) and is_key(fields[place].strip('"'), known):
                return True
        return False

    def _told(self, records: Records) -> Records:
        usual = "," if self.path.suffix.lower() == ".csv" else "\t"
        if self.separator != usual:
            records.notes.append(f"{self.path.name}: {SEPARATORS[self.separator]} between columns")
        if self._several:
            first = records.place(self._several[0][0])
            records.notes.append(
                f"{self.path.name}: {len(records.rows)} rows on {self._read - 1} lines: "
                f"{len(self._several)} hold line breaks inside quotes, the first is {first}"
            )
        return records
