"""The first picture: accuracy (or memory, where none is claimed) against p50 latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.report import text
from bench.report.frame import (
    Frame,
    axis_title,
    build_frame,
    draw_axes,
    height_span,
    split_strays,
    time_span,
)
from bench.report.labels import Anchor, Box, leader_line, place_labels
from bench.report.summary import Row, Summary, picture_axis
from bench.report.svg import Plot, colour_of, element, line, number, path, text_width, titled, write

NAME_SIZE = 12.5
NARROW_NAME_SIZE = 11
STRAY_LINE = 17


@dataclass(frozen=True)
class Spot:
    """A variant in the picture: its row, place, radius and interval ends, all in px."""

    row: Row
    x: float
    y: float
    radius: float
    left: float
    right: float
    low: float
    high: float
    told: str


def draw_trade_off(summary: Summary, width: float) -> Plot | None:
    """Accuracy or memory against median latency; None when fewer than two have both.

    Bars are 95 % intervals, area is the size on disk, the stepped line is the Pareto front.
    """
    kind, value = picture_axis(summary.contenders)
    rows = [row for row in summary.contenders if row.p50_ms and value(row) is not None]
    if len(rows) < 2:
        return None
    shown, strays = split_strays(rows, kind)
    frame = build_frame(shown, kind, width)
    largest = max(row.size_bytes or 0 for row in rows)
    spots = [_spot(row, frame, largest) for row in shown]
    front = _front_points(spots, frame, len(strays))
    body = "".join(
        [
            draw_axes(frame),
            _draw_front(front, frame),
            *(_draw_spot(spot) for spot in sorted(spots, key=lambda spot: -spot.radius)),
            *_names(spots, frame, _obstacles(spots, front, frame, len(strays))),
            *_draw_strays(strays, spots, frame),
        ]
    )
    label = f"{axis_title(kind)} against p50 latency, per variant"
    return Plot(body, frame.width, frame.height, label)


def _spot(row: Row, frame: Frame, largest: int) -> Spot:
    assert row.p50_ms is not None
    value, low, high = height_span(row, frame.kind)
    left, right = time_span(row)
    widest = 13.0 if frame.narrow else 19.0
    share = math.sqrt(row.size_bytes / largest) if row.size_bytes and largest else 0.25
    return Spot(
        row=row,
        x=frame.x(row.p50_ms.value),
        y=frame.y(value),
        radius=max(4.0, widest * share),
        left=max(frame.x(left), frame.x.start),
        right=min(frame.x(right), frame.x.end),
        low=frame.y(low),
        high=frame.y(high),
        told=_told(row, frame.kind),
    )


def _told(row: Row, kind: str) -> str:
    """A variant's figures in a line: 89.40 % · 5.86 ms · 112 MB."""
    assert row.p50_ms is not None
    value = height_span(row, kind)[0]
    told = [
        f"{value:.2f} %" if kind == "accuracy" else f"{value:,.0f} MB",
        f"{text.milliseconds(row.p50_ms.value)} ms",
    ]
    if row.size_bytes and kind == "accuracy":
        told.append(text.bytes_with_unit(row.size_bytes))
    return " · ".join(told)


def _front_points(spots: Sequence[Spot], frame: Frame, strays: int) -> list[tuple[float, float]]:
    """Corners of the Pareto front: nothing measured lies left of it and above (or below)."""
    front = sorted((spot for spot in spots if spot.row.on_front), key=lambda spot: spot.x)
    if not front:
        return []
    edge = (
        frame.y.start - STRAY_LINE * strays - (8 if strays else 0)
        if frame.kind == "accuracy"
        else frame.y.end
    )
    points = [(front[0].x, edge), (front[0].x, front[0].y)]
    for spot in front[1:]:
        points += [(spot.x, points[-1][1]), (spot.x, spot.y)]
    return [*points, (frame.x.end, front[-1].y)]


def _draw_front(points: Sequence[tuple[float, float]], frame: Frame) -> str:
    if not points:
        return ""
    x, y = points[-1]
    below = frame.kind != "accuracy"
    name = write(x - 2, y + (16 if below else -7), "Pareto front", "front-name", "end")
    return path(points, "front") + name


def _draw_spot(spot: Spot) -> str:
    """Interval bars and the bubble."""
    classes = f"spot {colour_of(spot.row.runtime)}{' on-front' if spot.row.on_front else ''}"
    bars = [
        line(spot.x, spot.low, spot.x, spot.high, "bar"),
        line(spot.left, spot.y, spot.right, spot.y, "bar"),
    ]
    bubble = element("circle", cx=number(spot.x), cy=number(spot.y), r=number(spot.radius))
    words = f"{spot.row.name}: {spot.told}"
    group = titled(words, [bubble, *bars], classes)
    return element("g", group, data_variant=spot.row.name)


def _draw_strays(strays: Sequence[Row], spots: Sequence[Spot], frame: Frame) -> list[str]:
    """Variants off the scale, told in the corner with the direction they lie in."""
    inside = [spot.row.p50_ms.value for spot in spots if spot.row.p50_ms]
    drawn = []
    for index, row in enumerate(strays):
        time = row.p50_ms.value if row.p50_ms else 0
        arrow = "↙" if time < min(inside) else "↘" if time > max(inside) else "↓"
        y = frame.y.start - 10 - index * STRAY_LINE
        words = f"{arrow} {row.name}, {_told(row, frame.kind)}"
        parts = [write(frame.x.start + 8, y, words, "stray")]
        group = titled(f"{words}: off the scale", parts, colour_of(row.runtime))
        drawn.append(element("g", group, data_variant=row.name))
    return drawn


def _obstacles(
    spots: Sequence[Spot], front: Sequence[tuple[float, float]], frame: Frame, strays: int
) -> list[Box]:
    """What names must not cover: interval bars, the front and its name, the strays' corner."""
    boxes = [Box(s.x - 4, s.high, s.x + 4, s.low) for s in spots]
    boxes += [Box(s.left, s.y - 3, s.right, s.y + 3) for s in spots]
    for (x1, y1), (x2, y2) in pairwise(front):
        boxes.append(Box(min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1))
    if front:
        x, y = front[-1]
        boxes.append(Box(x - 76, y - 18, x, y + 18))
    inside = frame.box
    corner = inside.bottom - 8 - STRAY_LINE * strays
    return [*boxes, Box(inside.left, corner, inside.right, inside.bottom)]


def _names(spots: Sequence[Spot], frame: Frame, obstacles: Sequence[Box]) -> list[str]:
    """The name of every spot, with its figures below where there is room, and leader lines."""
    size = NARROW_NAME_SIZE if frame.narrow else NAME_SIZE
    height = 14.0 if frame.narrow else 30.0
    anchors = [
        Anchor(spot.x, spot.y, spot.radius + 1, _label_width(spot, frame, size) + 8, height)
        for spot in spots
    ]
    boxes = place_labels(anchors, frame.box, obstacles)
    return [
        _name(spot, anchor, box, frame, size)
        for spot, anchor, box in zip(spots, anchors, boxes, strict=True)
    ]


def _name(spot: Spot, anchor: Anchor, box: Box, frame: Frame, size: float) -> str:
    ends = leader_line(anchor, box)
    parts = [line(*ends, "leader")] if ends else []
    x, side = (box.right, "end") if box.right < spot.x else (box.left, "start")
    class_ = "name base" if spot.row.is_baseline else "name"
    parts.append(write(x, box.top + size - 1.5, spot.row.name, class_, side))
    if not frame.narrow:
        parts.append(write(x, box.top + size + 13, spot.told, "told", side))
    return element("g", "".join(parts), class_="label", data_variant=spot.row.name)


def _label_width(spot: Spot, frame: Frame, size: float) -> float:
    name = text_width(spot.row.name, size, bold=spot.row.is_baseline)
    return name if frame.narrow else max(name, text_width(spot.told, 11))
