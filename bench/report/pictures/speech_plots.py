"""The pictures of a speech report, drawn by the text report's own hands."""

from __future__ import annotations

from collections.abc import Callable

from bench.report import text
from bench.report.pictures.bars import FIGURES, draw_footprints
from bench.report.pictures.curves import draw_curves
from bench.report.pictures.frame import Axes, Point
from bench.report.pictures.lengths import Panel, draw_panels
from bench.report.pictures.scatter import draw_points
from bench.report.pictures.svg import Plot, colour_of
from bench.report.speech_summary import SpeechRow, SpeechSummary
from bench.results.speech_records import BASE
from bench.statistics.decisions import Estimate

Picture = Callable[[SpeechSummary, float], Plot | None]


def draw_errors(summary: SpeechSummary, width: float) -> Plot | None:
    """Word error rate against real-time factor; None where fewer than two variants have both."""
    return draw_points(*error_points(summary), width)


def error_points(summary: SpeechSummary) -> tuple[list[Point], Axes]:
    """The trained model's variants that have both figures, in percent and as a factor."""
    length = summary.shown
    axes = Axes(
        x_title=f"faster ← real-time factor at {length} s of audio (log)",
        y_title="Word error rate, % ↑ worse",
        label="Word error rate against real-time factor, per variant",
        higher_is_better=False,
        least_room=0.1,
        strays=True,
        least=0,
    )
    points = [_point(row, row.wer, length) for row in summary.trained if row.wer]
    return [one for one in points if one], axes


def _point(row: SpeechRow, wer: Estimate, length: str) -> Point | None:
    if length not in row.rtf:
        return None
    factor = row.rtf[length]
    told = (
        f"{100 * wer.value:.2f} %",
        f"RTF {text.significant(factor.value)}",
        text.bytes_with_unit(row.size_bytes),
    )
    low, high = (wer.value if end is None else end for end in (wer.low, wer.high))
    height = Estimate(100 * wer.value, 100 * low, 100 * high)
    return Point(
        row.name, row.title, row.runtime, factor, height, row.size_bytes, row.is_baseline,
        row.on_front, " · ".join(told),
    )  # fmt: skip


def draw_speed(summary: SpeechSummary, width: float, *, base: bool = False) -> Plot | None:
    """Latency and real-time factor against the length of the audio; None with one length."""
    rows = [row for row in summary.measured if (row.group == BASE) == base and row.latency]
    if not rows or len(summary.lengths) < 2:
        return None
    latency = {
        row.name: [(float(length), found.p50_ms) for length, found in row.latency.items()]
        for row in rows
    }
    factor = {
        row.name: [(float(length), found.value) for length, found in row.rtf.items()]
        for row in rows
    }
    panels = [
        _panel("Median latency, ms", latency, " ms"),
        _panel("Real-time factor", factor, ""),
    ]
    colours = {row.name: colour_of(row.runtime) for row in rows}
    titles = {row.name: row.title for row in rows}
    return draw_panels(
        panels, colours, titles, width, "s of audio", "Speed by the length of the audio"
    )


def _panel(title: str, series: dict[str, list[tuple[float, float]]], unit: str) -> Panel:
    ordered = {name: sorted(points) for name, points in series.items()}
    values = [value for points in ordered.values() for _, value in points]
    return Panel(title, ordered, min(values), max(values), unit)


PLOTS: dict[str, Picture] = {
    "trade_off": draw_errors,
    "lengths": draw_speed,
    "lengths_base": lambda summary, width: draw_speed(summary, width, base=True),
    "footprints": lambda summary, width: draw_footprints(summary.measured, width, FIGURES[:2]),
    "curves": lambda summary, width: draw_curves(summary.results.curves, width),
}
