"""results.tex: the main table for a paper, in the booktabs style."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.report import text
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.report.tables.grids import seeds_grid
from bench.statistics.decisions import Estimate
from finetune.core.escaping import escape_latex

TIE = r"$\approx$"
Figure = Callable[[Row], str | None]


def render_latex(summary: Summary) -> str:
    """A tabular with the figures that every paper asks for; a column nobody has is absent.

    Wants ``\\usepackage{booktabs}``. Ties with the baseline carry an approximately-equal sign.
    A second one has the recipes of several seeds, where there are any.
    """
    tables = [_main_table(summary), *_seeds_table(summary)]
    return "\n".join(line for table in tables for line in table) + "\n"


def _main_table(summary: Summary) -> list[str]:
    """One row per variant that has figures."""
    rows = [row for row in summary.shown if row.latency or row.accuracy]
    present = [(head, cell) for head, cell in COLUMNS if any(cell(row) for row in rows)]
    lines = [
        f"% {_one_line(summary.results.name)}: kotune report makes this again from results.json",
        rf"\begin{{tabular}}{{l{'r' * len(present)}}}",
        r"\toprule",
        " & ".join(["Variant", *(head for head, _ in present)]) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        name = escape_latex(row.title)
        cells = [rf"\textbf{{{name}}}" if row.is_baseline else name]
        cells += [cell(row) or "--" for _, cell in present]
        lines.append(" & ".join(cells) + r" \\")
        lines += [r"\midrule"] if row.is_baseline and len(rows) > 1 else []
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _seeds_table(summary: Summary) -> Iterator[list[str]]:
    """The report's table over seeds as a tabular of its own."""
    grid = seeds_grid(summary)
    if grid is None:
        return
    heads = " & ".join(escape_latex(heading) for heading in ("Recipe", *grid.headings))
    body = [" & ".join(map(escape_latex, row)) + r" \\" for row in grid.rows]
    yield [
        "",
        "% means over seeds: Student's t on the logit scale; tests adjusted after Holm",
        *(f"% {_one_line(remark)}" for remark in grid.remarks),
        rf"\begin{{tabular}}{{l{'r' * len(grid.headings)}}}",
        r"\toprule",
        heads + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _one_line(words: str) -> str:
    return " ".join(words.split())


def _estimate(name: str, written: Callable[[float], str]) -> Figure:
    def cell(row: Row) -> str | None:
        found: Estimate | None = getattr(row, name)
        return _with_interval(found, written) if found else None

    return cell


def _with_interval(found: Estimate, written: Callable[[float], str]) -> str:
    if found.low is None or found.high is None:
        return escape_latex(written(found.value))
    ends = text.span(written(found.low), written(found.high))
    return escape_latex(f"{written(found.value)} ({ends})")


def _difference(row: Row) -> str | None:
    if row.comparison is None:
        return None
    told = _with_interval(row.comparison.difference, text.points)
    return f"{told}~{TIE}" if row.comparison.finding == "tie" else told


def _speedup(row: Row) -> str | None:
    if row.speedup is None:
        return None
    told = _with_interval(row.speedup, text.times)
    return f"{told}~{TIE}" if row.speed_finding == "tie" else told


def _p95(row: Row) -> str | None:
    return escape_latex(text.milliseconds(row.latency.p95_ms)) if row.latency else None


def _bytes(name: str) -> Figure:
    def cell(row: Row) -> str | None:
        found = getattr(row, name)
        return None if found is None else escape_latex(text.megabytes(found))

    return cell


COLUMNS: tuple[tuple[str, Figure], ...] = (
    (r"Accuracy, \%", _estimate("accuracy", text.percent)),
    (r"$\Delta$, points", _difference),
    (r"F1 macro, \%", _estimate("f1_macro", text.percent)),
    ("p50, ms", _estimate("p50_ms", text.milliseconds)),
    ("p95, ms", _p95),
    (r"Speed-up, $\times$", _speedup),
    ("rows/s", _estimate("rows_per_s", text.significant)),
    ("Size, MB", _bytes("size_bytes")),
    ("Memory, MB", _bytes("peak_memory_bytes")),
)
