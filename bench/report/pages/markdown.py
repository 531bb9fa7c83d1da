"""report.md for a pull request: verdict, picture, table, ladders, method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.report.notes import method_notes
from bench.report.rows import Row
from bench.report.selection import Selection
from bench.report.summary import Summary
from bench.report.tables import facts
from bench.report.tables.columns import Cell, Table, build_table
from bench.report.tables.grids import Grid, ladder_grids, seeds_grid, server_grid, training_grid
from bench.report.verdict import Verdict
from bench.results.records import Results
from finetune.core.escaping import escape_markdown as escape
from finetune.core.escaping import markdown_code as code

MARKS = {"better": " ▲", "worse": " ▼", "tie": " ≈", "": ""}


def render_markdown(
    summary: Summary,
    verdict: Verdict,
    pictures: Iterable[str],
    selection: Selection | None = None,
) -> str:
    """The report as GitHub Markdown; ``pictures`` are the names under plots/."""
    results, table = summary.results, build_table(summary)
    note = f" · {escape(results.note)}" if results.note else ""
    pictures = list(pictures)
    blocks = [
        f"# {escape(results.name)}{note}",
        f"**{escape(verdict.headline)}**",
        "\n".join(f"- {escape(sentence)}" for sentence in verdict.details),
        *selection_blocks(selection),
        *(f"![{spoken(name)}](plots/{name}.svg)" for name in pictures[:1]),
        "## All variants",
        *_tables(table),
        *_failures(summary.failed),
        "Small figures in parentheses are 95 % intervals; ± is the noise floor, by which the "
        "baseline differed from itself. Against the baseline: ▲ better, ▼ worse, ≈ a tie, no "
        "difference shown.",
        *_section("Server", server_grid(results), "variant"),
        *_section("Over seeds", seeds_grid(summary), "several seeds"),
        *_training(summary),
        *_ladders(summary),
        *(more_pictures(pictures[1:])),
        "## Data and environment",
        facts_table([*facts.data_facts(results), *environment_pairs(results)]),
        "## How it was measured",
        "\n".join(f"- {escape(item)}" for item in method_notes(summary)),
        *([fence("\n".join(results.commands))] if results.commands else []),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _tables(table: Table) -> list[str]:
    """Two tables, since one of seventeen columns does not fit a pull request."""
    first = [i for i, column in enumerate(table.columns) if column.group in ("Quality", "Latency")]
    second = [i for i in range(len(table.columns)) if i not in first]
    return [_table(table, group) for group in (first, second) if group]


def _table(table: Table, indices: Sequence[int]) -> str:
    columns = [table.columns[index] for index in indices]
    heads = [f"{c.heading}, {c.unit}" if c.unit else c.heading for c in columns]
    body = [
        [_name(row), *(_cell(cells[index]) for index in indices)]
        for row, cells in table.rows
        if not row.failed
    ]
    return _grid([["variant", *heads], ["---", *["---:"] * len(columns)], *body])


def _name(row: Row) -> str:
    name = f"**{code(row.name)}** (baseline)" if row.is_baseline else code(row.name)
    return f"{name} **failed export**" if row.export_failed else name


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    detail = f" ({cell.detail})" if cell.detail else ""
    detail += f" {cell.noise}" if cell.noise else ""
    return f"{cell.main}{MARKS[cell.mark]}{detail}"


def _failures(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        f"- {code(row.name)}: {escape(row.reason or 'no reason was recorded')}" for row in rows
    ]
    return ["Failed:\n\n" + "\n".join(lines)]


def _ladders(summary: Summary) -> list[str]:
    grids = ladder_grids(summary.results)
    parts = [
        part
        for grid in grids
        for part in (
            code(grid.name),
            grid_table(grid, "step"),
            *map(escape, grid.remarks),
        )
    ]
    return ["## From run to artifact", *parts] if parts else []


def _training(summary: Summary) -> list[str]:
    return _section("Training", training_grid(summary.results), "run")


def _section(title: str, grid: Grid | None, first: str) -> list[str]:
    if grid is None:
        return []
    heading = title if grid.name.lower() == first else f"{title}: {grid.name}"
    remarks = "\n".join(f"- {escape(remark)}" for remark in grid.remarks)
    return [f"## {escape(heading)}", grid_table(grid, first), remarks]


def selection_blocks(selection: Selection | None) -> list[str]:
    """Which variant satisfies the conditions, and why the others do not."""
    if selection is None:
        return []
    lines = [f"- {escape(sentence)}" for sentence in selection.sentences]
    return [
        f"{code(selection.where)}: {escape(selection.headline)}",
        "\n".join(lines),
    ]


def grid_table(grid: Grid, first: str) -> str:
    """A small table; the last column of a failed row stands out."""
    rows = [
        [
            *map(escape, row[:-1]),
            f"**{escape(row[-1])}**" if failed else escape(row[-1]),
        ]
        for row, failed in zip(grid.rows, grid.failed, strict=True)
    ]
    rule = ["---", *["---:"] * len(grid.headings)]
    return _grid([[first, *grid.headings], rule, *rows])


def _grid(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def more_pictures(names: Sequence[str]) -> list[str]:
    """The pictures that are not the first, folded away."""
    if not names:
        return []
    images = "\n\n".join(f"![{spoken(name)}](plots/{name}.svg)" for name in names)
    return [f"<details><summary>More pictures</summary>\n\n{images}\n\n</details>"]


def spoken(name: str) -> str:
    """A picture's name as words."""
    return name.replace("_", " ")


def environment_pairs(results: Results) -> facts.Pairs:
    """Hardware, system, code and packages, for ``facts_table``."""
    packages = facts.flatten(results.environment.get("packages") or {})
    told = ", ".join(f"{name} {version}" for name, version in packages)
    return [*facts.environment_facts(results), *([("packages", told)] if told else [])]


def facts_table(pairs: facts.Pairs) -> str:
    """Labels and values as a table without headings."""
    lines = [f"| {escape(label)} | {escape(value)} |" for label, value in pairs]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def fence(code: str) -> str:
    """Text as a block of code, whatever backticks it holds."""
    ticks = "```"
    while ticks in code:
        ticks += "`"
    return f"{ticks}\n{code}\n{ticks}"
