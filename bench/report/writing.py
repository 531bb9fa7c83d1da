"""A report folder from its results.json: the same file in, the same bytes out."""

from __future__ import annotations

from pathlib import Path

from bench.report.csv_table import render_csv
from bench.report.html import render_html
from bench.report.markdown import render_markdown
from bench.report.plots import FILE_WIDTH, PLOTS, draw, standalone_svg
from bench.report.results import read_results
from bench.report.summary import summarise
from bench.report.verdict import reach_verdict
from finetune.files import write_text


def write_report(folder: Path) -> Path:
    """Write report.html, report.md, results.csv and plots/*.svg; the path of report.html.

    Each file is written by rename. Raises FolderError when results.json is missing, of another
    schema, or does not hold together.
    """
    folder = Path(folder)
    summary = summarise(read_results(folder))
    verdict = reach_verdict(summary)
    pictures = {name: plot for name in PLOTS if (plot := draw(name, summary, FILE_WIDTH))}
    for name, plot in pictures.items():
        write_text(folder / "plots" / f"{name}.svg", standalone_svg(plot))
    write_text(folder / "results.csv", render_csv(summary))
    write_text(folder / "report.md", render_markdown(summary, verdict, pictures))
    page = folder / "report.html"
    write_text(page, render_html(summary, verdict))
    return page
