"""report.html: one file, no network; everything it shows is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.report import text
from bench.report.figures import picture_axis
from bench.report.notes import is_disturbed, method_notes
from bench.report.pictures.key import MOST_NAMES
from bench.report.pictures.plots import PLOTS, draw
from bench.report.pictures.svg import Plot, colour_of
from bench.report.rows import Row
from bench.report.selection import Selection
from bench.report.summary import Summary
from bench.report.tables import facts
from bench.report.tables.columns import Cell, Column, Table, build_table
from bench.report.tables.grids import ladder_grids, seeds_grid, server_grid, training_grid
from bench.report.verdict import Verdict
from bench.results.records import Results

WIDTHS = {"wide": 1200.0, "medium": 720.0, "narrow": 358.0}  # px; report.css picks one


def render_html(summary: Summary, verdict: Verdict, selection: Selection | None = None) -> str:
    """The page as text; the same summary gives the same text."""
    rows = (*summary.rows, *summary.merged_rows)
    colours = {row.name: colour_of(row.runtime) for row in rows}
    return render_page("report.html", colours, _content(summary, verdict, selection))


def render_page(name: str, colours: Mapping[str, str], content: Mapping[str, Any]) -> str:
    """A template beside this module with its ``content``; ``colours`` are the variants' classes."""
    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["variant"] = lambda name: _variant(name, colours)
    environment.filters["names"] = lambda words: mark_names(
        words, lambda name: _variant(name, colours)
    )
    style = "".join(asset(f"{part}.css") for part in ("theme", "plots", "report"))
    return environment.get_template(name).render(
        style=Markup(style), script=Markup(asset("report.js")), **content
    )


def asset(name: str) -> str:
    """A file that lies beside this module."""
    return files("bench.report").joinpath(name).read_text(encoding="utf-8")


def mark_names(words: str, written: Callable[[str], Markup]) -> Markup:
    """Escape ``words``; every name in backticks goes through ``written``."""
    parts = words.split("`")
    return Markup("").join(
        written(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def _variant(name: str, colours: Mapping[str, str]) -> Markup:
    return Markup('<span class="variant {}">{}</span>').format(colours.get(name, "k-grey"), name)


def _content(summary: Summary, verdict: Verdict, selection: Selection | None) -> dict[str, Any]:
    """Every name that the template uses."""
    results, table = summary.results, build_table(summary)
    pictures = {name: place_picture(partial(draw, name, summary)) for name in PLOTS}
    disturbed = is_disturbed(summary.results)
    return {
        **masthead(results, _rows_told(summary)),
        "flags": [*dirty_flags(results), *(["the machine had other work"] if disturbed else [])],
        "verdict": verdict,
        "selection": selection,
        "server": server_grid(results),
        "seeds": seeds_grid(summary),
        **pictures,
        "runtimes": {row.runtime: colour_of(row.runtime) for row in summary.measured},
        "alone": len(summary.measured) < 2,
        "trade_off_caption": _trade_off_caption(summary),
        "table_caption": _table_caption(table),
        **_table_parts(table),
        "ladders": ladder_grids(results),
        "training": training_grid(results),
        "data": facts.data_facts(results),
        "data_summary": facts.flatten(results.data.summary),
        "environment": facts.environment_facts(results),
        "packages": facts.flatten(results.environment.get("packages") or {}),
        "notes": method_notes(summary),
        "commands": results.commands,
    }


def masthead(results: Results, counts: str) -> dict[str, Any]:
    """Name, note and where the figures come from; ``counts`` says how much was measured."""
    found = facts.commit(results)
    commit = f"commit {found[0]}" if found else ""
    origin = (counts, facts.machine(results), facts.when(results), commit)
    return {
        "name": results.name,
        "note": results.note,
        "origin": [part for part in origin if part],
    }


def dirty_flags(results: Results) -> list[str]:
    """What a reader must know of the code before any figure."""
    found = facts.commit(results)
    return ["uncommitted changes"] if found is not None and found[1] else []


def place_picture(drawn_at: Callable[[float], Plot | None]) -> Markup | None:
    """A picture drawn for a desk, a tablet and a phone; the page shows one of them."""
    plots = {size: drawn_at(width) for size, width in WIDTHS.items()}
    drawn = [
        Markup('<div class="{}">{}</div>').format(size, Markup(plot.svg))
        for size, plot in plots.items()
        if plot
    ]
    return Markup("").join(drawn) if drawn else None


def _rows_told(summary: Summary) -> str:
    rows = summary.test_rows or summary.results.data.latency_rows or 0
    noun = "test row" if summary.test_rows else "timed row"
    variants = text.plural(len(summary.rows), "variant")
    return f"{variants}, {text.plural(rows, noun)}" if rows else variants


def _trade_off_caption(summary: Summary) -> str:
    kind, _ = picture_axis(summary.measured)
    area = (
        " The area of a circle is the size on disk."
        if any(row.size_bytes for row in summary.measured)
        else ""
    )
    crowded = len(summary.over_seeds.shown) > MOST_NAMES
    numbered = " What a number stands for is told below the picture." if crowded else ""
    other = "more accurate" if kind == "accuracy" else "smaller in memory"
    return (
        f"Bars are 95 % intervals.{area} The dotted line, the Pareto front, passes through the "
        f"variants that no other beats by being both faster and {other}.{numbered}"
    )


def _table_caption(table: Table) -> str:
    marked = any(cell and cell.mark for _, cells in table.rows for cell in cells)
    if not marked:
        return "Small figures are 95 % intervals."
    return (
        "Small figures are 95 % intervals; ± is the noise floor, by which the baseline differed "
        "from itself. Against the baseline: ▲ better, ▼ worse, ≈ a tie, no difference shown. "
        "Click a heading to sort."
    )


def _table_parts(table: Table) -> dict[str, Any]:
    """Groups with their spans, columns and cells, each with whether it opens a group."""
    columns = table.columns
    opens = [
        index == 0 or columns[index - 1].group != column.group
        for index, column in enumerate(columns)
    ]
    best = [
        _best(column, [cells[index] for row, cells in table.rows if not row.export_failed])
        for index, column in enumerate(columns)
    ]
    return {
        "groups": [
            (name, len(list(members))) for name, members in groupby(columns, lambda c: c.group)
        ],
        "columns": list(zip(columns, opens, strict=True)),
        "table": [
            (
                row,
                [
                    (cell, opens[index], _is_best(row, cell, best[index]))
                    for index, cell in enumerate(cells)
                ],
            )
            for row, cells in table.rows
        ],
    }


def _is_best(row: Row, cell: Cell | None, best: str | None) -> bool:
    return cell is not None and cell.main == best and not row.export_failed


def _best(column: Column, cells: list[Cell | None]) -> str | None:
    """The text of a column's best figure; None without a good end or a choice."""
    found = [cell for cell in cells if cell is not None]
    if not column.best or len(found) < 2:
        return None
    pick = max if column.best == "high" else min
    return pick(found, key=lambda cell: cell.sort).main
