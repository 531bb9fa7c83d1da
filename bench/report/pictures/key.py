"""A crowded picture: most points have a number in it, and the numbers a list below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.report.pictures.frame import Point
from bench.report.pictures.svg import colour_of, element, text_width, titled, write

MOST_NAMES = 12  # names that stand beside their points, figures below them
MOST_NAMES_NARROW = 7
SIZE = 11.0
PITCH = 17.0
GAP = 26.0


def number_points(points: Sequence[Point], narrow: bool) -> dict[str, int]:
    """Name → number of the points that get no name in the picture; none where all have room.

    The baseline and the Pareto front keep their names, as many as there is room for.
    """
    most = MOST_NAMES_NARROW if narrow else MOST_NAMES
    if len(points) <= most:
        return {}
    by_weight = sorted(points, key=lambda one: (not one.is_baseline, not one.on_front, one.x.value))
    kept = {one.name for one in by_weight[:most] if one.is_baseline or one.on_front}
    others = sorted((one for one in points if one.name not in kept), key=lambda one: one.x.value)
    return {one.name: place for place, one in enumerate(others, start=1)}


def draw_key(
    points: Sequence[Point],
    numbers: Mapping[str, int],
    outside: Mapping[str, str],
    y: float,
    width: float,
) -> tuple[str, float]:
    """The list below the picture, from ``y`` down in columns, and its height in px.

    ``outside``: name → arrow, of points that lie off the scale; they come last.
    """
    known = {one.name: one for one in points}
    entries = [(str(numbers[name]), known[name]) for name in sorted(numbers, key=numbers.get)]
    entries += [(arrow, known[name]) for name, arrow in outside.items()]
    if not entries:
        return "", 0.0
    gutter = 12 + max(text_width(mark, SIZE, bold=True) for mark, _ in entries)
    column = gutter + GAP + max(text_width(_told(point), SIZE) for _, point in entries)
    folded = column - GAP > width
    columns = 1 if folded else max(1, min(len(entries), int((width + GAP) // column)))
    rows, pitch = math.ceil(len(entries) / columns), PITCH * (2 if folded else 1)
    drawn = []
    for place, (mark, point) in enumerate(entries):
        left, top = (place // rows) * column, y + 14 + (place % rows) * pitch
        lines = [point.title, point.told] if folded else [_told(point)]
        parts = [write(left, top, mark, "key-number")]
        parts += [
            write(left + gutter, top + below * PITCH * 0.85, one, "told")
            for below, one in enumerate(lines)
        ]
        group = titled(f"{point.title}: {point.told}", parts, colour_of(point.runtime))
        drawn.append(element("g", group, data_variant=point.name))
    return "".join(drawn), 14 + rows * pitch


def _told(point: Point) -> str:
    return f"{point.title}: {point.told}"
