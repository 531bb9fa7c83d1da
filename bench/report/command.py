"""kotune report FOLDER."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.core.console import say, tell
from finetune.core.errors import GateError

Where = Annotated[
    str | None,
    typer.Option("--where", help='conditions: "accuracy_drop<=0.2pt, p95_ms<=20, size_mb<=150"'),
]


def report_command(
    folder: Annotated[Path, typer.Argument(help="a report folder: it holds results.json")],
    where: Where = None,
) -> None:
    """Make the report again from results.json alone; --where names the best variant under it."""
    from bench.report.writing import write_report

    say(f"{write_report(folder, where=where)}")
    if where is not None:
        tell_selection(folder, where)


def tell_selection(folder: Path, where: str) -> None:
    """Print which variant satisfies the conditions and why others do not; GateError for none."""
    from bench.report.selection import select_variant
    from bench.report.summary import summarise
    from bench.results.reading import read_results

    found = select_variant(summarise(read_results(folder)), where)
    for sentence in (found.headline, *found.sentences):
        tell(sentence.replace("`", ""))
    if found.chosen is None:
        raise GateError("no variant satisfies the conditions", received=where)
