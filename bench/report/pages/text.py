"""The report of text classification: page, Markdown, CSV, LaTeX and pictures."""

from __future__ import annotations

from pathlib import Path

from bench.report.pages.html import render_html
from bench.report.pages.markdown import render_markdown
from bench.report.pictures.plots import FILE_WIDTH, PLOTS, draw, standalone_svg
from bench.report.selection import select_variant
from bench.report.summary import summarise
from bench.report.tables.csv_table import render_csv
from bench.report.tables.latex import render_latex
from bench.report.verdict import reach_verdict
from bench.results.records import Results
from finetune.core.files import write_text


def write_pages(folder: Path, results: Results, where: str | None) -> Path:
    """Write report.html, report.md, results.csv, results.tex and plots/*.svg; report.html's path.

    ``where`` asks for the best variant under conditions. Each file is written by rename.
    """
    summary = summarise(results)
    verdict = reach_verdict(summary)
    selection = select_variant(summary, where) if where else None
    pictures = {name: plot for name in PLOTS if (plot := draw(name, summary, FILE_WIDTH))}
    for name, plot in pictures.items():
        write_text(folder / "plots" / f"{name}.svg", standalone_svg(plot))
    write_text(folder / "results.csv", render_csv(summary))
    write_text(folder / "report.md", render_markdown(summary, verdict, pictures, selection))
    write_text(folder / "results.tex", render_latex(summary))
    page = folder / "report.html"
    write_text(page, render_html(summary, verdict, selection))
    return page
