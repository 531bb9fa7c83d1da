"""Lines of a text file, the same at every door: marks of encodings, line ends, what is no text.

Imports the standard library only: it stands inside an artifact's ``predict.py`` too.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO

MARKS = (  # byte order marks, the longer ones first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
FOREIGN = {  # how files begin that are no text
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file: its name ends in .parquet",
    b"\x1f\x8b": "gzip: gunzip it first",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of git-lfs: git lfs pull fetches the file",
}
BLOCK_BYTES = 1 << 16
HEAD_BYTES = max(map(len, FOREIGN))


class TextFault(Exception):
    """A file that is no text we read: one line that says what and where."""


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """Each line without its end (LF, CRLF or CR), whatever the stream's length.

    UTF-8, or UTF-16 and UTF-32 with their byte order mark. Raises TextFault, also for NUL
    characters and for what is known to be no text.
    """
    head = stream.read(HEAD_BYTES)
    for start, kind in FOREIGN.items():
        if head.startswith(start):
            raise TextFault(f"{kind}, no text")
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), "utf-8")
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), True)
    number, pending, block = 0, "", head
    while True:
        try:
            pending += decoder.decode(block, final=not block)
        except UnicodeDecodeError as fault:
            raise TextFault(_explain(fault, encoding, number)) from fault
        *lines, pending = pending.split("\n")
        for line in lines:
            number += 1
            yield _checked(line, number)
        if not block:
            break
        block = stream.read(BLOCK_BYTES)
    if pending:
        yield _checked(pending, number + 1)


def _checked(line: str, number: int) -> str:
    if "\0" in line:
        raise TextFault(f"line {number} holds a NUL character: a binary file, or UTF-16 unmarked")
    return line


def _explain(fault: UnicodeDecodeError, encoding: str, lines: int) -> str:
    """Where a file is not in its encoding, and which one it may be in."""
    start = fault.start if fault.start < len(fault.object) else 0
    number = lines + 1 + fault.object[:start].count(b"\n")
    name = encoding.removesuffix("-sig").upper()
    told = f"line {number} is not {name} (byte 0x{fault.object[start]:02x})"
    return f"{told}: {guess}" if (guess := _guess(fault.object)) else told


def _guess(content: bytes) -> str:
    """What to do about bytes that are no UTF-8, where they look like Korean or UTF-16."""
    if content.count(0) > len(content) // 4:
        return "UTF-16 without a byte order mark? iconv -f UTF-16LE -t UTF-8 FILE > NEW"
    letters = [one for one in content.decode("cp949", "ignore") if not one.isascii()]
    hangul = sum("가" <= one <= "힣" for one in letters)
    if hangul * 2 > len(letters):
        return "CP949 (EUC-KR)? iconv -f CP949 -t UTF-8 FILE > NEW"
    return ""
