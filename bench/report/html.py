"""report.html: one file, no network; everything it shows is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from bench.report import facts, text
from bench.report.plots import PLOTS, draw
from bench.report.results import LadderStep
from bench.report.summary import Summary, picture_axis
from bench.report.svg import colour_of
from bench.report.table import Cell, Column, Table, build_table
from bench.report.verdict import Verdict

WIDE, NARROW = 1160.0, 358.0


@dataclass(frozen=True)
class Pair:
    """A picture drawn twice: for a desk and for a phone."""

    wide: Markup
    narrow: Markup


def render_html(summary: Summary, verdict: Verdict) -> str:
    """The page as text; the same summary gives the same text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    colours = {row.name: colour_of(row.runtime) for row in summary.rows}
    environment.filters["variant"] = lambda name: _variant(name, colours)
    environment.filters["names"] = lambda words: mark_names(
        words, lambda name: _variant(name, colours)
    )
    style = "".join(asset(f"{name}.css") for name in ("theme", "plots", "report"))
    template = environment.from_string(asset("report.html"))
    return template.render(
        style=Markup(style), script=Markup(asset("report.js")), **_content(summary, verdict)
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


def _variant(name: str, colours: dict[str, str]) -> Markup:
    return Markup('<span class="variant {}">{}</span>').format(colours.get(name, "k-grey"), name)


def _content(summary: Summary, verdict: Verdict) -> dict[str, Any]:
    """Every name that the template uses."""
    results, table = summary.results, build_table(summary)
    pictures = {name: _pair(name, summary) for name in PLOTS}
    environment = {key: value for key, value in results.environment.items() if key != "packages"}
    found = facts.commit(results)
    origin = (
        _rows_told(summary),
        facts.machine(results),
        facts.when(results),
        f"commit {found[0]}" if found else "",
    )
    return {
        "name": results.name,
        "note": results.note,
        "origin": [part for part in origin if part],
        "dirty": found is not None and found[1],
        "verdict": verdict,
        **pictures,
        "trade_off_caption": _trade_off_caption(summary),
        "table_caption": _table_caption(table),
        **_table_parts(table),
        "ladders": [_ladder(name, steps) for name, steps in results.ladders.items() if steps],
        "data": facts.data_facts(results),
        "data_summary": facts.flatten(results.data.summary),
        "environment": facts.flatten(environment),
        "packages": facts.flatten(results.environment.get("packages") or {}),
        "notes": facts.method_notes(summary),
        "commands": results.commands,
    }


def _pair(name: str, summary: Summary) -> Pair | None:
    wide, narrow = draw(name, summary, WIDE), draw(name, summary, NARROW)
    return Pair(Markup(wide.svg), Markup(narrow.svg)) if wide and narrow else None


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
    better = "as accurate" if kind == "accuracy" else "as small in memory"
    return (
        f"Bars are 95 % intervals.{area} On the dotted line stand the variants that no other "
        f"beats: none is as fast and {better}."
    )


def _table_caption(table: Table) -> str:
    marked = any(cell and cell.mark for _, cells in table.rows for cell in cells)
    if not marked:
        return "Small figures are 95 % intervals."
    return (
        "Small figures are 95 % intervals. Against the baseline: ▲ better, ▼ worse, "
        "≈ no difference shown. Click a heading to sort."
    )


def _table_parts(table: Table) -> dict[str, Any]:
    """Groups with their spans, columns and cells, each with whether it opens a group."""
    columns = table.columns
    opens = [
        index == 0 or columns[index - 1].group != column.group
        for index, column in enumerate(columns)
    ]
    best = [
        _best(column, [cells[index] for _, cells in table.rows])
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
                    (cell, opens[index], cell is not None and cell.main == best[index])
                    for index, cell in enumerate(cells)
                ],
            )
            for row, cells in table.rows
        ],
    }


def _best(column: Column, cells: list[Cell | None]) -> str | None:
    """The text of a column's best figure; None without a good end or a choice."""
    found = [cell for cell in cells if cell is not None]
    if not column.best or len(found) < 2:
        return None
    pick = max if column.best == "high" else min
    return pick(found, key=lambda cell: cell.sort).main


def _ladder(name: str, steps: list[LadderStep]) -> dict[str, Any]:
    """An artifact's ladder as headings and rows; columns without a figure are absent."""
    figures: list[tuple[str, Callable[[LadderStep], str | None]]] = [
        ("max Δ logit", lambda s: _maybe(s.max_logit_difference, text.scientific)),
        ("mean Δ logit", lambda s: _maybe(s.mean_logit_difference, text.scientific)),
        ("flipped", lambda s: _maybe(s.flipped, lambda count: f"{count:,}")),
        ("over margin", lambda s: _maybe(s.flipped_over_margin, lambda count: f"{count:,}")),
        ("rows", lambda s: _maybe(s.rows, lambda count: f"{count:,}")),
        ("accuracy, %", lambda s: _maybe(s.accuracy, text.percent)),
        ("F1 macro, %", lambda s: _maybe(s.f1_macro, text.percent)),
    ]
    present = [pair for pair in figures if any(pair[1](step) is not None for step in steps)]
    return {
        "name": name,
        "headings": [*(heading for heading, _ in present), "check"],
        "steps": [
            (step.step, [written(step) or "–" for _, written in present], step.passed)
            for step in steps
        ],
    }


def _maybe(value: float | None, written: Callable[[Any], str]) -> str | None:
    return None if value is None else written(value)
