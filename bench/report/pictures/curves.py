"""Training curves of the runs: loss and validation accuracy over steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.report import text
from bench.report.pictures.frame import written_ticks
from bench.report.pictures.labels import spread
from bench.report.pictures.svg import (
    Plot,
    Scale,
    element,
    line,
    number,
    palette_class,
    path,
    text_width,
    titled,
    write,
)
from bench.results.records import CurvePoint

HEIGHT = 250.0
Series = list[tuple[float, float]]


def draw_curves(curves: Mapping[str, Sequence[CurvePoint]], width: float) -> Plot | None:
    """Panels of loss (thin: training, strong: validation), validation accuracy and WER."""
    fit = {name: _series(points, "loss") for name, points in curves.items()}
    checked = {name: _series(points, "eval_loss") for name, points in curves.items()}
    accuracy = {
        name: [(step, 100 * share) for step, share in _series(points, "eval_accuracy")]
        for name, points in curves.items()
    }
    panels = []
    if any(fit.values()) or any(checked.values()):
        panels.append(("Loss · thin: training, strong: validation", fit, checked))
    if any(accuracy.values()):
        panels.append(("Validation accuracy, %", {}, accuracy))
    errors = {
        name: [(step, 100 * share) for step, share in _series(points, "eval_wer")]
        for name, points in curves.items()
    }
    if any(errors.values()):
        panels.append(("Validation word error rate, %", {}, errors))
    if not panels:
        return None
    narrow = width < 600
    gap = 36.0
    each = width if narrow else (width - gap * (len(panels) - 1)) / len(panels)
    body = "".join(
        element(
            "g",
            _panel(title, faint, strong, list(curves), each),
            transform=f"translate({0 if narrow else number(index * (each + gap))},"
            f"{number(index * HEIGHT) if narrow else 0})",
        )
        for index, (title, faint, strong) in enumerate(panels)
    )
    height = HEIGHT * len(panels) if narrow else HEIGHT
    return Plot(body, width, height, "Training curves of the runs")


def _series(points: Sequence[CurvePoint], field: str) -> Series:
    """(step, value) where the value was logged and is finite, by step."""
    found = ((point.step, getattr(point, field)) for point in points)
    return sorted(
        (step, value) for step, value in found if value is not None and math.isfinite(value)
    )


def _panel(
    title: str,
    faint: Mapping[str, Series],
    strong: Mapping[str, Series],
    names: Sequence[str],
    width: float,
) -> str:
    every = [point for group in (faint, strong) for series in group.values() for point in series]
    heights = [value for _, value in every]
    room = (max(heights) - min(heights)) * 0.06 or 0.05
    gutter = min(16 + max(text_width(name, 12, bold=True) for name in names), width * 0.36)
    y = Scale(min(heights) - room, max(heights) + room, HEIGHT - 46, 30)
    left = 12 + max(text_width(words, 11) for _, words in written_ticks(y, 44))
    x = Scale(0, max(step for step, _ in every) or 1, left, width - gutter)
    parts = [write(0, 14, title, "panel-title"), _axes(x, y)]
    ends: dict[str, float] = {}
    for index, name in enumerate(names):
        colour = palette_class(index)
        for group, class_ in ((faint, "curve faint"), (strong, "curve")):
            series = group.get(name, [])
            if series:
                drawn = [(x(step), y(value)) for step, value in series]
                parts.append(element("g", path(drawn, class_), class_=colour))
                ends[name] = drawn[-1][1]
        parts += [_dot(name, step, value, x, y, colour) for step, value in strong.get(name, [])]
    places = spread(list(ends.values()), 15, y.end, y.start)
    for name, end in zip(ends, places, strict=True):
        colour = palette_class(list(names).index(name))
        parts.append(element("g", write(x.end + 10, end + 4, name, "run-name"), class_=colour))
    return "".join(parts)


def _dot(name: str, step: float, value: float, x: Scale, y: Scale, colour: str) -> str:
    circle = element("circle", cx=number(x(step)), cy=number(y(value)), r="2.4", class_="dot")
    return titled(f"{name}, step {step:,.0f}: {text.significant(value, 4)}", [circle], colour)


def _axes(x: Scale, y: Scale) -> str:
    parts = []
    for tick, words in written_ticks(y, 44):
        parts.append(line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(write(x.start - 7, y(tick) + 4, words, "tick", "end"))
    for tick in x.ticks(80):
        parts.append(write(x(tick), y.start + 18, f"{tick:,.0f}", "tick", "middle"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(write(x.end, y.start + 36, "step", "axis-title", "end"))
    return "".join(parts)
