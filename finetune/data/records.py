"""Records of a table file by column, and which columns of it are wanted."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.core.errors import DataError

TEXT_KEYS = "data.text_column=… data.label_column=…"


@dataclass
class Records:
    """Values of a file by column, in its order; None where there is none.

    ``rows`` are the numbers of the records, a header counted as the first; ``lines`` those of
    the lines they begin on, where quoted line breaks make them differ.
    """

    columns: dict[str, list[Any]]
    rows: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def place(self, index: int) -> str:
        """``row 5``, or ``row 5 (line 9)``."""
        row = self.rows[index]
        line = self.lines[index] if self.lines else row
        return f"row {row}" if line == row else f"row {row} (line {line})"


def plain_name(name: object) -> str:
    """A column's name in NFC (macOS writes NFD), without space around it."""
    return unicodedata.normalize("NFC", str(name)).strip()


def find_columns(
    names: Sequence[object], wanted: Sequence[str], path: object, fix: str = TEXT_KEYS
) -> list[int]:
    """Where the wanted columns stand; raises DataError where one is missing or there twice."""
    plain = [plain_name(name) for name in names]
    asked = list(dict.fromkeys(plain_name(name) for name in wanted))
    missing = [name for name in asked if name not in plain]
    found = ", ".join(repr(name)[1:41] for name in plain[:8]) + (" …" if len(plain) > 8 else "")
    if missing:
        raise DataError(
            f"{path} has no column {' and '.join(missing)}",
            received=f"columns {found}",
            next_step=fix,
        )
    double = [name for name in asked if plain.count(name) > 1]
    if double:
        raise DataError(
            f"{path} has two columns {double[0]}", received=f"columns {found}", next_step=fix
        )
    return [plain.index(name) for name in asked]
