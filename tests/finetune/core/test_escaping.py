"""Hostile words in every format: they stay text, in their cell and on their line."""

from __future__ import annotations

import csv
import io
import re

import pytest

from bench.report.tables.csv_table import write_records
from export.artifact.card_tables import markdown_table
from finetune.core.escaping import (
    csv_cell,
    escape_latex,
    escape_markdown,
    markdown_code,
)

CORPUS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a\n---\nlicense: mit\n# heading",
    "[click](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "a | b | c",
    "`code` and ` alone",
    "```\nfence",
    "*bold* _under_ # hash",
    "\\input{/etc/passwd}",
    "$\\write18{id}$ & % ~ ^ {",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3+cmd",
    "@SUM(1)",
    "\t=1",
    "\u2028line\u2029",
    "\x85next",
]


@pytest.mark.parametrize("words", CORPUS)
def test_markdown_shows_it_as_text(words: str) -> None:
    written = escape_markdown(words)
    assert len(written.splitlines()) == 1
    outside = "".join(re.split(r"(?<!\\)`[^`]*`", written))
    assert "<" not in outside and not re.search(r"(?<!\\)[\[|]", outside)
    assert len(markdown_code(words).splitlines()) == 1


@pytest.mark.parametrize("words", CORPUS)
def test_a_table_keeps_its_cells(words: str) -> None:
    head, _, row = markdown_table(["a", "b"], [[words, "x"]]).splitlines()
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", head)) == 3
    assert "<" not in row


@pytest.mark.parametrize("words", CORPUS)
def test_latex_runs_nothing(words: str) -> None:
    written = escape_latex(words)
    assert len(written.splitlines()) == 1
    known = r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\\[_%&#${}]|\$<\$"
    assert not re.search(r"[\\$&%#_{}~^]", re.sub(known, "", written))


@pytest.mark.parametrize("words", CORPUS)
def test_a_spreadsheet_calculates_nothing(words: str) -> None:
    ((cell,),) = list(csv.reader(io.StringIO(write_records([{"x": words}]), newline="")))[1:]
    assert cell[0] not in "=+-@\t\r" and cell.removeprefix("'") == words


def test_numbers_stay_numbers() -> None:
    assert [csv_cell(one) for one in (-1.5, -3, "-0.25", "1e-4")] == ["-1.5", -3, "-0.25", "1e-4"]
