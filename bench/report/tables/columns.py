"""The columns of the main table: one definition for HTML and Markdown.

A column that no variant has a figure for is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.report import text
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.statistics.decisions import Estimate


@dataclass(frozen=True)
class Cell:
    """What a cell shows; ``detail`` and ``noise`` are smaller lines, ``sort`` the number behind it.

    ``mark`` is "better", "worse" or "tie" where the cell is a comparison.
    """

    main: str
    sort: float
    detail: str = ""
    mark: str = ""
    title: str = ""
    noise: str = ""


@dataclass(frozen=True)
class Column:
    """A column: ``best`` says which end of it is good ("high" | "low" | "")."""

    key: str
    group: str
    heading: str
    unit: str
    help: str
    best: str
    cell: Callable[[Row], Cell | None]


@dataclass(frozen=True)
class Table:
    """The columns present, and the cells of every row in their order (None: no figure)."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Row, tuple[Cell | None, ...]], ...]


def build_table(summary: Summary) -> Table:
    """Every variant's cells; empty columns left out."""
    grid = [(row, [column.cell(row) for column in COLUMNS]) for row in summary.rows]
    present = [
        index for index in range(len(COLUMNS)) if any(cells[index] is not None for _, cells in grid)
    ]
    return Table(
        columns=tuple(COLUMNS[index] for index in present),
        rows=tuple((row, tuple(cells[index] for index in present)) for row, cells in grid),
    )


def _interval(estimate: Estimate, written: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return text.span(written(estimate.low), written(estimate.high))


def _estimate(
    figure: Callable[[Row], Estimate | None], written: Callable[[float], str]
) -> Callable[[Row], Cell | None]:
    """A cell of a figure with its interval below."""

    def cell(row: Row) -> Cell | None:
        found = figure(row)
        if found is None:
            return None
        return Cell(written(found.value), found.value, _interval(found, written))

    return cell


def _plain(
    figure: Callable[[Row], float | None], written: Callable[[float], str]
) -> Callable[[Row], Cell | None]:
    """A cell of a bare number."""

    def cell(row: Row) -> Cell | None:
        found = figure(row)
        return None if found is None else Cell(written(found), found)

    return cell


def _percentile(field: str, beside: str) -> Callable[[Row], Cell | None]:
    """A percentile, and another one below it."""

    def cell(row: Row) -> Cell | None:
        if row.latency is None:
            return None
        found, other = getattr(row.latency, field), getattr(row.latency, beside)
        detail = f"{beside.removesuffix('_ms')} {text.milliseconds(other)}"
        return Cell(text.milliseconds(found), found, detail)

    return cell


def _difference(row: Row) -> Cell | None:
    if row.comparison is None:
        return None
    found, pair = row.comparison, row.comparison.paired
    test = f"{found.test}, Holm-adjusted {text.p_value(found.p_adjusted)}"
    rows = f"{pair.gained:,} rows right only here, {pair.lost:,} only in the baseline; "
    return Cell(
        text.points(found.difference.value),
        found.difference.value,
        _interval(found.difference, text.points),
        found.finding,
        rows + test if pair else test,
    )


def _f1(row: Row) -> Cell | None:
    if row.f1_macro is None:
        return None
    named = [("binary", row.f1_binary), ("micro", row.f1_micro), ("weighted", row.f1_weighted)]
    others = ", ".join(f"{name} {text.percent(f1.value)}" for name, f1 in named if f1)
    detail = _interval(row.f1_macro, text.percent)
    return Cell(text.percent(row.f1_macro.value), row.f1_macro.value, detail, title=others)


def _speedup(row: Row) -> Cell | None:
    if row.speedup is None:
        return None
    mark = {"faster": "better", "slower": "worse", "tie": "tie"}[row.speed_finding or "tie"]
    detail, title, noise = _interval(row.speedup, text.times), "", ""
    if row.noise_floor is not None and not row.is_noise_pair:
        noise = f"±{100 * row.noise_floor:.1f} %"
        title = f"noise floor: the baseline differed from itself by {noise[1:]}"
    return Cell(text.times(row.speedup.value), row.speedup.value, detail, mark, title, noise)


def _size(row: Row) -> Cell | None:
    if row.size_bytes is None:
        return None
    adapter = f"adapter {text.megabytes(row.adapter_bytes)}" if row.adapter_bytes else ""
    return Cell(text.megabytes(row.size_bytes), row.size_bytes, adapter)


def _load(row: Row) -> Cell | None:
    if row.load_s is None:
        return None
    first = f"1st {text.milliseconds(row.first_call_ms)} ms" if row.first_call_ms else ""
    return Cell(text.significant(row.load_s), row.load_s, first)


def _vram(row: Row) -> Cell | None:
    """PyTorch's peak where there is one, and what NVML says of the process."""
    device = row.device_bytes
    told = f"NVML {text.megabytes(device)}" if device else ""
    if row.peak_vram_bytes is not None:
        return Cell(text.megabytes(row.peak_vram_bytes), row.peak_vram_bytes, told)
    return Cell(text.megabytes(device), device, "by NVML") if device else None


def _trainable(row: Row) -> Cell | None:
    if row.trainable_share is None or row.trainable is None:
        return None
    count = f"{text.significant(row.trainable / 1e6)} M"
    share = "100" if row.trainable_share == 1 else text.significant(100 * row.trainable_share, 2)
    return Cell(share, row.trainable_share, count)


COLUMNS = (
    Column(
        "accuracy", "Quality", "Accuracy", "%", "Right answers on all test rows; Wilson interval",
        "high", _estimate(lambda row: row.accuracy, text.percent),
    ),
    Column(
        "accuracy_unseen", "Quality", "Unseen", "%",
        "Accuracy on the test rows whose text is not in the training set; Wilson interval",
        "high", _estimate(lambda row: row.accuracy_unseen, text.percent),
    ),
    Column(
        "difference", "Quality", "Δ", "points",
        "Accuracy minus the baseline's on the same rows; paired bootstrap interval",
        "high", _difference,
    ),
    Column(
        "f1", "Quality", "F1 macro", "%", "Mean of the classes' F1; bootstrap interval", "high", _f1
    ),
    Column(
        "p50_ms", "Latency", "p50", "ms", "Median over all reviews; bootstrap interval", "low",
        _estimate(lambda row: row.p50_ms, text.milliseconds),
    ),
    Column(
        "p95_ms", "Latency", "p95", "ms", "95 % are faster; below, the time that 90 % keep", "low",
        _percentile("p95_ms", "p90_ms"),
    ),
    Column(
        "p99_ms", "Latency", "p99", "ms", "99 % are faster; below, the slowest of all", "low",
        _percentile("p99_ms", "max_ms"),
    ),
    Column(
        "speedup", "Latency", "Speed-up", "×",
        "Baseline's p50 divided by this p50; bootstrap interval, ± noise floor", "high", _speedup,
    ),
    Column(
        "rows_per_s", "Bulk", "Throughput", "rows/s", "Median over rounds; bootstrap interval",
        "high", _estimate(lambda row: row.rows_per_s, text.significant),
    ),
    Column("size", "Footprint", "Size", "MB", "Files needed to predict", "low", _size),
    Column(
        "memory", "Footprint", "Memory", "MB", "Peak resident memory of the process", "low",
        _plain(lambda row: row.peak_memory_bytes, text.megabytes),
    ),
    Column(
        "vram", "Footprint", "VRAM", "MB", "Peak of PyTorch's allocator; by NVML, the process's",
        "low", _vram,
    ),
    Column(
        "energy", "Footprint", "Energy", "mJ", "A review, the machine's idle draw included", "low",
        _plain(lambda row: row.energy_j, lambda joules: text.significant(1e3 * joules)),
    ),
    Column(
        "load_s", "Footprint", "Load", "s", "Time to load; below, the first call after it", "low",
        _load,
    ),
    Column(
        "trainable", "Training", "Trained", "%", "Share of the parameters that were trained", "low",
        _trainable,
    ),
    Column(
        "training_time", "Training", "Time", "", "Wall-clock time of training", "low",
        _plain(lambda row: row.training_time_s, text.duration),
    ),
)  # fmt: skip
