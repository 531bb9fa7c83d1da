"""report.md for a pull request: verdict, picture, table, ladders, method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.report import facts, text
from bench.report.results import LadderStep
from bench.report.summary import Row, Summary
from bench.report.table import Cell, Table, build_table
from bench.report.verdict import Verdict

MARKS = {"better": " ▲", "worse": " ▼", "tie": " ≈", "": ""}


def render_markdown(summary: Summary, verdict: Verdict, pictures: Iterable[str]) -> str:
    """The report as GitHub Markdown; ``pictures`` are the names under plots/."""
    results, table = summary.results, build_table(summary)
    note = f" · {escape(results.note)}" if results.note else ""
    pictures = list(pictures)
    blocks = [
        f"# {escape(results.name)}{note}",
        f"**{escape(verdict.headline)}**",
        "\n".join(f"- {escape(sentence)}" for sentence in verdict.details),
        *(f"![{_spoken(name)}](plots/{name}.svg)" for name in pictures[:1]),
        "## All variants",
        *_tables(table),
        *_failures(summary.failed),
        "Small figures in parentheses are 95 % intervals. Against the baseline: ▲ better, ▼ worse, "
        "≈ no difference shown.",
        *_ladders(summary),
        *(_pictures(pictures[1:])),
        "## Data and environment",
        _facts([*facts.data_facts(results), *_environment(summary)]),
        "## How it was measured",
        "\n".join(f"- {escape(item)}" for item in facts.method_notes(summary)),
        *([_fence("\n".join(results.commands))] if results.commands else []),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(words: str) -> str:
    """Text that Markdown shows as it is; names in backticks stay code."""
    parts = " ".join(words.split()).split("`")
    return "`".join(
        part if index % 2 and index < len(parts) - 1 else _escape_part(part)
        for index, part in enumerate(parts)
    )


def _escape_part(words: str) -> str:
    for letter in "\\*_[]|#":
        words = words.replace(letter, f"\\{letter}")
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


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
    code = "`" + row.name.replace("|", "\\|") + "`"
    return f"**{code}** (baseline)" if row.is_baseline else code


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    detail = f" ({cell.detail})" if cell.detail else ""
    return f"{cell.main}{MARKS[cell.mark]}{detail}"


def _failures(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = [f"- `{row.name}`: {escape(row.reason or 'no reason was recorded')}" for row in rows]
    return ["Failed:\n\n" + "\n".join(lines)]


def _ladders(summary: Summary) -> list[str]:
    """Every artifact's ladder in one table."""
    rows = [
        [escape(name), *_ladder_cells(step)]
        for name, steps in summary.results.ladders.items()
        for step in steps
    ]
    if not rows:
        return []
    head = ["artifact", "step", "max Δ logit", "flipped", "accuracy, %", "check"]
    rule = ["---", "---", "---:", "---:", "---:", "---"]
    return ["## From run to artifact", _grid([head, rule, *rows])]


def _ladder_cells(step: LadderStep) -> list[str]:
    drift, flips, share = step.max_logit_difference, step.flipped, step.accuracy
    return [
        escape(step.step),
        "" if drift is None else text.scientific(drift),
        "" if flips is None else f"{flips:,}",
        "" if share is None else text.percent(share),
        "passed" if step.passed else "**failed**",
    ]


def _grid(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _pictures(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    images = "\n\n".join(f"![{_spoken(name)}](plots/{name}.svg)" for name in names)
    return [f"<details><summary>More pictures</summary>\n\n{images}\n\n</details>"]


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _environment(summary: Summary) -> facts.Pairs:
    results = summary.results
    found = facts.commit(results)
    commit = found and (found[0] + (" with uncommitted changes" if found[1] else ""))
    packages = facts.flatten(results.environment.get("packages") or {})
    pairs = [
        ("machine", facts.machine(results)),
        ("measured", facts.when(results)),
        ("commit", commit or ""),
        ("python", str(results.environment.get("python") or "")),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages)),
    ]
    return [(label, value) for label, value in pairs if value]


def _facts(pairs: facts.Pairs) -> str:
    lines = [f"| {escape(label)} | {escape(value)} |" for label, value in pairs]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _fence(code: str) -> str:
    ticks = "```"
    while ticks in code:
        ticks += "`"
    return f"{ticks}\n{code}\n{ticks}"
