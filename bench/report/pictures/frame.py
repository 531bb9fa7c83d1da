"""Points, scales and axes of the first picture, and which points lie too far off to set them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report import text
from bench.report.pictures.labels import Box
from bench.report.pictures.svg import Scale, element, line, text_width, write
from bench.statistics.decisions import Estimate

STRAY_GAP = 0.6  # share of the whole range that lies empty above a stray
WIDEST = 3.0  # times outside the medians that an interval may stretch the axis
STRAY_SHARE = 1 / 3  # of the variants that may be strays


@dataclass(frozen=True)
class Axes:
    """What the picture shows: titles, which end is good, how it treats what lies far off.

    ``least_room`` in the unit of the vertical axis is kept free above and below. ``strays``:
    few far worse variants are told in a corner instead of flattening the rest. ``least``: no
    figure can be below, and no tick is.
    """

    x_title: str
    y_title: str
    label: str
    higher_is_better: bool
    least_room: float
    strays: bool
    least: float = -math.inf


@dataclass(frozen=True)
class Point:
    """A variant in the units of the axes, with its intervals; ``told`` are its figures.

    ``title`` is the name as it is shown.
    """

    name: str
    title: str
    runtime: str
    x: Estimate
    y: Estimate
    size_bytes: int | None
    is_baseline: bool
    on_front: bool
    told: str


@dataclass(frozen=True)
class Frame:
    """The picture's size in px, its scales and axes."""

    width: float
    height: float
    x: Scale
    y: Scale
    axes: Axes

    @property
    def narrow(self) -> bool:
        """Whether it is drawn for a phone."""
        return self.width < 600

    @property
    def box(self) -> Box:
        """The area that data and names may use."""
        return Box(self.x.start, self.y.end, self.x.end, self.y.start)


def ends(figure: Estimate) -> tuple[float, float]:
    """Both ends of the interval, or the value twice."""
    low, high = figure.low, figure.high
    return figure.value if low is None else low, figure.value if high is None else high


def split_strays(points: Sequence[Point], axes: Axes) -> tuple[list[Point], list[Point]]:
    """Points that set the scales, and few far worse ones that would flatten the rest."""
    sign = 1 if axes.higher_is_better else -1
    ordered = sorted(points, key=lambda point: sign * point.y.value)
    values = [sign * point.y.value for point in ordered]
    gaps = [above - below for below, above in itertools.pairwise(values)]
    if not axes.strays or len(points) < 4 or values[-1] == values[0]:
        return list(points), []
    widest = max(range(len(gaps)), key=gaps.__getitem__)
    few = widest + 1 <= len(points) * STRAY_SHARE
    if not few or gaps[widest] < STRAY_GAP * (values[-1] - values[0]):
        return list(points), []
    strays = {point.name for point in ordered[: widest + 1] if not point.is_baseline}
    return [p for p in points if p.name not in strays], [p for p in points if p.name in strays]


def build_frame(points: Sequence[Point], axes: Axes, width: float) -> Frame:
    """Scales that hold every point's intervals with room for bubbles and names."""
    narrow = width < 600
    height = 430.0 if narrow else 480.0
    middles = [point.x.value for point in points]
    floor, ceiling = min(middles) / WIDEST, max(middles) * WIDEST
    times = [min(max(end, floor), ceiling) for point in points for end in ends(point.x)]
    heights = [end for point in points for end in (point.y.value, *ends(point.y))]
    low, high = min(heights), max(heights)
    room = max((high - low) * 0.2, axes.least_room)
    reach = math.log(max(times) / min(times)) * (0.1 if narrow else 0.08) + 0.12
    right = 10 if narrow else 16
    y = Scale(low - room, high + room, height - 46, 34)
    left = 14 + max(text_width(words, 11) for _, words in written_ticks(y, 62))
    first, last = min(times) / math.exp(reach), max(times) * math.exp(reach)
    return Frame(
        width=width,
        height=height,
        x=Scale(first, last, left, width - right, log=True),
        y=y,
        axes=axes,
    )


def draw_axes(frame: Frame) -> str:
    """Grid lines, tick labels and axis titles."""
    parts = []
    bottom, top = frame.y.start, frame.y.end
    for tick, shown in written_ticks(frame.y, 62):
        if tick < frame.axes.least:
            continue
        parts.append(line(frame.x.start, frame.y(tick), frame.x.end, frame.y(tick), "grid"))
        parts.append(write(frame.x.start - 8, frame.y(tick) + 4, shown, "tick", "end"))
    for tick in frame.x.ticks(56 if frame.narrow else 80):
        parts.append(line(frame.x(tick), bottom, frame.x(tick), bottom + 5, "axis"))
        if frame.x(tick) + text_width(text.tick(tick), 11) / 2 < frame.width:
            parts.append(write(frame.x(tick), bottom + 19, text.tick(tick), "tick", "middle"))
    parts.append(line(frame.x.start, bottom, frame.x.end, bottom, "axis"))
    parts.append(write(2, top - 20, frame.axes.y_title, "axis-title"))
    parts.append(write(frame.x.end, bottom + 38, frame.axes.x_title, "axis-title", "end"))
    return element("g", "".join(parts), class_="axes")


def written_ticks(scale: Scale, spacing: float) -> list[tuple[float, str]]:
    """Ticks of a linear scale with the decimals that tell neighbours apart."""
    ticks = scale.ticks(spacing)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(tick, f"{tick:,.{decimals}f}") for tick in ticks]
