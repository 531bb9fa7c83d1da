"""Scales and axes of the first picture, and which variants lie too far off to set them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report import text
from bench.report.labels import Box
from bench.report.summary import Row
from bench.report.svg import Scale, element, line, text_width, write

STRAY_GAP = 0.6  # share of the whole range that lies empty above a stray
WIDEST = 3.0  # times outside the medians that an interval may stretch the axis
STRAY_SHARE = 1 / 3  # of the variants that may be strays


@dataclass(frozen=True)
class Frame:
    """The picture's size in px, its scales, and its kind ("accuracy" | "memory")."""

    width: float
    height: float
    x: Scale
    y: Scale
    kind: str

    @property
    def narrow(self) -> bool:
        """Whether it is drawn for a phone."""
        return self.width < 600

    @property
    def box(self) -> Box:
        """The area that data and names may use."""
        return Box(self.x.start, self.y.end, self.x.end, self.y.start)


def axis_title(kind: str) -> str:
    """What the vertical axis shows."""
    return "Accuracy, %" if kind == "accuracy" else "Peak memory, MB"


def height_span(row: Row, kind: str) -> tuple[float, float, float]:
    """Value, low and high in the unit of the vertical axis."""
    if kind == "accuracy" and row.accuracy:
        shown = row.accuracy
        return 100 * shown.value, 100 * (shown.low or 0), 100 * (shown.high or 0)
    memory = (row.peak_memory_bytes or 0) / 1e6
    return memory, memory, memory


def time_span(row: Row) -> tuple[float, float]:
    """Interval of p50 in ms, or the point twice."""
    assert row.p50_ms is not None
    return row.p50_ms.low or row.p50_ms.value, row.p50_ms.high or row.p50_ms.value


def split_strays(rows: Sequence[Row], kind: str) -> tuple[list[Row], list[Row]]:
    """Rows that set the scales, and few far less accurate ones that would flatten the rest."""
    ordered = sorted(rows, key=lambda row: height_span(row, kind)[0])
    values = [height_span(row, kind)[0] for row in ordered]
    gaps = [above - below for below, above in itertools.pairwise(values)]
    if kind != "accuracy" or len(rows) < 4 or values[-1] == values[0]:
        return list(rows), []
    widest = max(range(len(gaps)), key=gaps.__getitem__)
    few = widest + 1 <= len(rows) * STRAY_SHARE
    if not few or gaps[widest] < STRAY_GAP * (values[-1] - values[0]):
        return list(rows), []
    strays = {row.name for row in ordered[: widest + 1] if not row.is_baseline}
    return [r for r in rows if r.name not in strays], [r for r in rows if r.name in strays]


def build_frame(rows: Sequence[Row], kind: str, width: float) -> Frame:
    """Scales that hold every row's intervals with room for bubbles and names."""
    narrow = width < 600
    height = 430.0 if narrow else 480.0
    middles = [row.p50_ms.value for row in rows if row.p50_ms]
    floor, ceiling = min(middles) / WIDEST, max(middles) * WIDEST
    times = [min(max(end, floor), ceiling) for row in rows for end in time_span(row)]
    heights = [end for row in rows for end in height_span(row, kind)]
    low, high = min(heights), max(heights)
    room = max((high - low) * 0.2, 0.05 if kind == "accuracy" else 1.0)
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
        kind=kind,
    )


def draw_axes(frame: Frame) -> str:
    """Grid lines, tick labels and axis titles."""
    parts = []
    bottom, top = frame.y.start, frame.y.end
    for tick, shown in written_ticks(frame.y, 62):
        parts.append(line(frame.x.start, frame.y(tick), frame.x.end, frame.y(tick), "grid"))
        parts.append(write(frame.x.start - 8, frame.y(tick) + 4, shown, "tick", "end"))
    for tick in frame.x.ticks(56 if frame.narrow else 80):
        parts.append(line(frame.x(tick), bottom, frame.x(tick), bottom + 5, "axis"))
        if frame.x(tick) + text_width(text.tick(tick), 11) / 2 < frame.width:
            parts.append(write(frame.x(tick), bottom + 19, text.tick(tick), "tick", "middle"))
    parts.append(line(frame.x.start, bottom, frame.x.end, bottom, "axis"))
    better = "better" if frame.kind == "accuracy" else "more"
    parts.append(write(2, top - 20, f"{axis_title(frame.kind)} ↑ {better}", "axis-title"))
    title = "faster ← p50 latency at batch 1, ms (log)"
    parts.append(write(frame.x.end, bottom + 38, title, "axis-title", "end"))
    return element("g", "".join(parts), class_="axes")


def written_ticks(scale: Scale, spacing: float) -> list[tuple[float, str]]:
    """Ticks of a linear scale with the decimals that tell neighbours apart."""
    ticks = scale.ticks(spacing)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(tick, f"{tick:,.{decimals}f}") for tick in ticks]
