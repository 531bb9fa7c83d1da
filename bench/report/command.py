"""kotune report FOLDER."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.console import say


def report_command(
    folder: Annotated[Path, typer.Argument(help="a report folder: it holds results.json")],
) -> None:
    """Make report.html, report.md and results.csv again from results.json alone."""
    from bench.report.writing import write_report

    say(f"{write_report(folder)}")
