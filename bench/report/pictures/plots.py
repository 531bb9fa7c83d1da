"""The pictures of a report by name, inline or as files of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

from bench.report import text
from bench.report.pictures.bars import FIGURES, draw_footprints
from bench.report.pictures.curves import draw_curves
from bench.report.pictures.distributions import draw_latencies
from bench.report.pictures.frame import Axes, Point
from bench.report.pictures.lengths import Panel, draw_lengths, draw_panels
from bench.report.pictures.scatter import draw_points, draw_trade_off
from bench.report.pictures.svg import Plot, colour_of, number
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.statistics.decisions import Estimate

Picture = Callable[[Summary, float], Plot | None]
FILE_WIDTH = 1000.0
PADDING = 20.0

PLOTS: dict[str, Picture] = {
    "trade_off": draw_trade_off,
    "latencies": draw_latencies,
    "lengths": draw_lengths,
    "footprints": lambda summary, width: draw_footprints(summary.measured, width),
    "curves": lambda summary, width: draw_curves(summary.results.curves, width),
}


def speech_plots(summary: Summary) -> dict[str, Picture]:
    """The pictures of a speech report; each group beside what was trained has its own of speed."""
    groups = {
        f"lengths_{group}": lambda summary, width, group=group: draw_speed(summary, width, group)
        for group in summary.results.baselines
    }
    return {
        "trade_off": draw_errors,
        "lengths": draw_speed,
        **groups,
        "footprints": lambda summary, width: draw_footprints(summary.measured, width, FIGURES[:2]),
        "curves": lambda summary, width: draw_curves(summary.results.curves, width),
    }


def draw(name: str, summary: Summary, width: float) -> Plot | None:
    """One picture, ``width`` px wide; None when there is nothing to show in it."""
    return PLOTS[name](summary, width)


def standalone_svg(plot: Plot) -> str:
    """The picture as a file: light theme, on paper, colours written out.

    GitHub shows SVG as an image; not every viewer resolves CSS variables, so they are replaced.
    """
    theme, rules = (
        files("bench.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("theme.css", "plots.css")
    )
    values = dict(re.findall(r"(--[\w-]+): ([^;]+);", theme))
    colours = dict(re.findall(r"\.(k-\w+) \{ --k: var\((--\w+)\); \}", rules))
    rules = re.sub(r"\.k-\w+ \{[^}]*\}\n", "", rules)
    style = "".join(_resolve(rule, values, colours) for rule in rules.splitlines(keepends=True))
    width, height = plot.width + 2 * PADDING, plot.height + 2 * PADDING
    ground = f'<rect width="100%" height="100%" fill="{values["--paper"]}"/>'
    body = f'<g transform="translate({number(PADDING)},{number(PADDING)})">{plot.body}</g>'
    whole = Plot(f"<style>{style}</style>{ground}{body}", width, height, plot.label)
    return whole.svg + "\n"


def _resolve(rule: str, values: dict[str, str], colours: dict[str, str]) -> str:
    """A CSS rule without variables; one that uses the colour of a thing, once per colour."""
    rule = re.sub(r"var\((--(?!k\b)[\w-]+)\)", lambda found: values[found[1]], rule)
    if "var(--k)" not in rule:
        return rule
    selector = rule.removeprefix(".plot ")
    return "".join(
        f".plot {within} {selector}".replace("var(--k)", values[variable])
        if not selector.startswith(".spot")
        else f".plot .{name}{selector}".replace("var(--k)", values[variable])
        for name, variable in colours.items()
        for within in [f".{name}"]
    )


def draw_errors(summary: Summary, width: float) -> Plot | None:
    """Word error rate against real-time factor; None where fewer than two variants have both."""
    return draw_points(*error_points(summary), width)


def error_points(summary: Summary) -> tuple[list[Point], Axes]:
    """The trained model's variants that have both figures, in percent and as a factor."""
    length = summary.length
    axes = Axes(
        x_title=f"faster ← real-time factor at {length} s of audio (log)",
        y_title="Word error rate, % ↑ worse",
        label="Word error rate against real-time factor, per variant",
        higher_is_better=False,
        least_room=0.1,
        strays=True,
        least=0,
    )
    points = [_point(row, row.wer, length) for row in summary.over_seeds.trained if row.wer]
    return [one for one in points if one], axes


def _point(row: Row, wer: Estimate, length: str) -> Point | None:
    if length not in row.lengths:
        return None
    factor = row.lengths[length].rtf
    told = [f"{100 * wer.value:.2f} %", f"RTF {text.significant(factor.value)}"]
    told += [text.bytes_with_unit(row.size_bytes)] if row.size_bytes else []
    low, high = (wer.value if end is None else end for end in (wer.low, wer.high))
    height = Estimate(100 * wer.value, 100 * low, 100 * high)
    return Point(
        row.name, row.title, row.runtime, factor, height, row.size_bytes, row.is_baseline,
        row.on_front, " · ".join(told),
    )  # fmt: skip


def draw_speed(summary: Summary, width: float, group: str | None = None) -> Plot | None:
    """Latency and real-time factor against the length of the audio; None with one length."""
    rows = [row for row in summary.measured if row.group == group and row.lengths]
    if not rows or len(summary.lengths) < 2:
        return None
    latency = {
        row.name: [(float(length), one.latency.p50_ms) for length, one in row.lengths.items()]
        for row in rows
    }
    factor = {
        row.name: [(float(length), one.rtf.value) for length, one in row.lengths.items()]
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
