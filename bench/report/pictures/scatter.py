"""The first picture: accuracy (or memory, where none is claimed) against latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.report import text
from bench.report.figures import picture_axis
from bench.report.pictures.frame import (
    Axes,
    Frame,
    Point,
    build_frame,
    draw_axes,
    ends,
    split_strays,
)
from bench.report.pictures.key import SIZE as KEY_SIZE
from bench.report.pictures.key import draw_key, number_points
from bench.report.pictures.labels import Anchor, Box, leader_line, place_labels
from bench.report.pictures.svg import (
    Plot,
    colour_of,
    element,
    line,
    number,
    path,
    text_width,
    titled,
    write,
)
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.statistics.decisions import Estimate

NAME_SIZE = 12.5
NARROW_NAME_SIZE = 11
STRAY_LINE = 17


@dataclass(frozen=True)
class Spot:
    """A point in the picture: its place, radius and interval ends, all in px."""

    point: Point
    x: float
    y: float
    radius: float
    left: float
    right: float
    low: float
    high: float


def draw_trade_off(summary: Summary, width: float) -> Plot | None:
    """Accuracy or memory against median latency; None when fewer than two have both."""
    return draw_points(*trade_off_points(summary), width)


def trade_off_points(summary: Summary) -> tuple[list[Point], Axes]:
    """The variants that have both figures, in percent or MB and milliseconds.

    Runs of one recipe with several seeds are one point.
    """
    rows = summary.over_seeds.shown
    kind, _ = picture_axis(rows)
    by_accuracy = kind == "accuracy"
    title = "Accuracy, %" if by_accuracy else "Peak memory, MB"
    axes = Axes(
        x_title="faster ← p50 latency at batch 1, ms (log)",
        y_title=f"{title} ↑ {'better' if by_accuracy else 'more'}",
        label=f"{title} against p50 latency, per variant",
        higher_is_better=by_accuracy,
        least_room=0.05 if by_accuracy else 1.0,
        strays=by_accuracy,
    )
    found = [(row, _height(row, kind)) for row in rows if row.p50_ms]
    points = [
        Point(
            row.name, row.title, row.runtime, row.p50_ms, height, row.size_bytes,
            row.is_baseline, row.on_front, _told(row, height.value, kind),
        )
        for row, height in found
        if height is not None
    ]  # fmt: skip
    return points, axes


def draw_points(points: Sequence[Point], axes: Axes, width: float) -> Plot | None:
    """Points with names on a logarithmic horizontal axis; None where there are fewer than two.

    Bars are 95 % intervals, area is the size on disk, the stepped line is the Pareto front. Where
    there are too many for names, most have numbers, explained below.
    """
    if len(points) < 2:
        return None
    shown, strays = split_strays(points, axes)
    frame = build_frame(shown, axes, width)
    numbers = number_points(shown, frame.narrow)
    outside = {}
    if numbers:  # no room in the corner either
        outside, strays = {one.name: _arrow(one, shown, axes) for one in strays}, []
    largest = max(point.size_bytes or 0 for point in points)
    spots = [_spot(point, frame, largest) for point in shown]
    front = _front_points(spots, frame, len(strays))
    body = "".join(
        [
            draw_axes(frame),
            _draw_front(front, frame),
            *(_draw_spot(spot) for spot in sorted(spots, key=lambda spot: -spot.radius)),
            *_names(spots, frame, numbers, _obstacles(spots, front, frame, len(strays))),
            *_draw_strays(strays, shown, frame),
        ]
    )
    key, height = draw_key(points, numbers, outside, frame.height, frame.width)
    return Plot(body + key, frame.width, frame.height + height, axes.label)


def _height(row: Row, kind: str) -> Estimate | None:
    """The figure of the vertical axis: accuracy in percent, or memory in MB, a point."""
    if kind != "accuracy":
        memory = (row.peak_memory_bytes or 0) / 1e6
        return None if row.peak_memory_bytes is None else Estimate(memory, memory, memory)
    if row.accuracy is None:
        return None
    return Estimate(100 * row.accuracy.value, *(100 * end for end in ends(row.accuracy)))


def _told(row: Row, value: float, kind: str) -> str:
    """A variant's figures in a line: 89.40 % · 5.86 ms · 112 MB."""
    told = [
        f"{value:.2f} %" if kind == "accuracy" else f"{value:,.0f} MB",
        f"{text.milliseconds(row.p50_ms.value)} ms",
    ]
    if row.size_bytes and kind == "accuracy":
        told.append(text.bytes_with_unit(row.size_bytes))
    return " · ".join(told)


def _spot(point: Point, frame: Frame, largest: int) -> Spot:
    left, right = ends(point.x)
    low, high = ends(point.y)
    widest = 13.0 if frame.narrow else 19.0
    share = math.sqrt(point.size_bytes / largest) if point.size_bytes and largest else 0.25
    return Spot(
        point=point,
        x=frame.x(point.x.value),
        y=frame.y(point.y.value),
        radius=max(4.0, widest * share),
        left=max(frame.x(left), frame.x.start),
        right=min(frame.x(right), frame.x.end),
        low=frame.y(low),
        high=frame.y(high),
    )


def _front_points(spots: Sequence[Spot], frame: Frame, strays: int) -> list[tuple[float, float]]:
    """Corners of the Pareto front: nothing measured lies left of it and above (or below)."""
    front = sorted((spot for spot in spots if spot.point.on_front), key=lambda spot: spot.x)
    if not front:
        return []
    corner = STRAY_LINE * strays + (8 if strays else 0)
    edge = frame.y.start - corner if frame.axes.higher_is_better else frame.y.end + corner
    points = [(front[0].x, edge), (front[0].x, front[0].y)]
    for spot in front[1:]:
        points += [(spot.x, points[-1][1]), (spot.x, spot.y)]
    return [*points, (frame.x.end, front[-1].y)]


def _draw_front(points: Sequence[tuple[float, float]], frame: Frame) -> str:
    if not points:
        return ""
    x, y = points[-1]
    below = not frame.axes.higher_is_better
    name = write(x - 2, y + (16 if below else -7), "Pareto front", "front-name", "end")
    return path(points, "front") + name


def _draw_spot(spot: Spot) -> str:
    """Interval bars and the bubble."""
    classes = f"spot {colour_of(spot.point.runtime)}{' on-front' if spot.point.on_front else ''}"
    bars = [
        line(spot.x, spot.low, spot.x, spot.high, "bar"),
        line(spot.left, spot.y, spot.right, spot.y, "bar"),
    ]
    bubble = element("circle", cx=number(spot.x), cy=number(spot.y), r=number(spot.radius))
    words = f"{spot.point.title}: {spot.point.told}"
    group = titled(words, [bubble, *bars], classes)
    return element("g", group, data_variant=spot.point.name)


def _arrow(stray: Point, shown: Sequence[Point], axes: Axes) -> str:
    """The direction in which a point off the scale lies."""
    inside = [point.x.value for point in shown]
    place = (stray.x.value > max(inside)) - (stray.x.value < min(inside))
    return ("↙↓↘" if axes.higher_is_better else "↖↑↗")[place + 1]


def _draw_strays(strays: Sequence[Point], shown: Sequence[Point], frame: Frame) -> list[str]:
    """Points off the scale, told in the worse corner with the direction they lie in."""
    drawn = []
    for index, point in enumerate(strays):
        y = (
            frame.y.start - 10 - index * STRAY_LINE
            if frame.axes.higher_is_better
            else frame.y.end + 14 + index * STRAY_LINE
        )
        words = f"{_arrow(point, shown, frame.axes)} {point.title}, {point.told}"
        parts = [write(frame.x.start + 8, y, words, "stray")]
        group = titled(f"{words}: off the scale", parts, colour_of(point.runtime))
        drawn.append(element("g", group, data_variant=point.name))
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
    reach = 8 + STRAY_LINE * strays
    if frame.axes.higher_is_better:
        corner = Box(inside.left, inside.bottom - reach, inside.right, inside.bottom)
    else:
        corner = Box(inside.left, inside.top, inside.right, inside.top + reach)
    return [*boxes, corner]


def _names(
    spots: Sequence[Spot], frame: Frame, numbers: Mapping[str, int], obstacles: Sequence[Box]
) -> list[str]:
    """The name of every spot, with its figures below where there is room, and leader lines.

    A spot that has a number gets that alone.
    """
    size = NARROW_NAME_SIZE if frame.narrow else NAME_SIZE
    height = 14.0 if frame.narrow else 30.0
    anchors = [
        Anchor(spot.x, spot.y, spot.radius + 1, text_width(str(number), KEY_SIZE, True) + 4, 13.0)
        if (number := numbers.get(spot.point.name))
        else Anchor(spot.x, spot.y, spot.radius + 1, _label_width(spot, frame, size) + 8, height)
        for spot in spots
    ]
    boxes = place_labels(anchors, frame.box, obstacles)
    return [
        _number(number, spot, anchor, box)
        if (number := numbers.get(spot.point.name))
        else _name(spot, anchor, box, frame, size)
        for spot, anchor, box in zip(spots, anchors, boxes, strict=True)
    ]


def _number(number: int, spot: Spot, anchor: Anchor, box: Box) -> str:
    leader = leader_line(anchor, box)
    parts = [line(*leader, "leader")] if leader else []
    parts.append(write(box.left + 2, box.top + 10, str(number), "key-number"))
    group = titled(f"{spot.point.title}: {spot.point.told}", parts, colour_of(spot.point.runtime))
    return element("g", group, class_="label", data_variant=spot.point.name)


def _name(spot: Spot, anchor: Anchor, box: Box, frame: Frame, size: float) -> str:
    leader = leader_line(anchor, box)
    parts = [line(*leader, "leader")] if leader else []
    x, side = (box.right, "end") if box.right < spot.x else (box.left, "start")
    class_ = "name base" if spot.point.is_baseline else "name"
    parts.append(write(x, box.top + size - 1.5, spot.point.title, class_, side))
    if not frame.narrow:
        parts.append(write(x, box.top + size + 13, spot.point.told, "told", side))
    return element("g", "".join(parts), class_="label", data_variant=spot.point.name)


def _label_width(spot: Spot, frame: Frame, size: float) -> float:
    name = text_width(spot.point.title, size, bold=spot.point.is_baseline)
    return name if frame.narrow else max(name, text_width(spot.point.told, 11))
