"""Size on disk and peak memory: horizontal bars, one panel per figure, names once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.report import text
from bench.report.pictures.svg import (
    Plot,
    Scale,
    colour_of,
    element,
    number,
    text_width,
    titled,
    write,
)
from bench.report.rows import Row

PITCH = 26.0
THICK = 10.0
NARROW_PITCH = 42.0

Figure = tuple[str, Callable[[Row], float | None]]
FIGURES: tuple[Figure, ...] = (
    ("Size on disk", lambda row: row.size_bytes),
    ("Peak memory", lambda row: row.peak_memory_bytes),
    ("VRAM, torch", lambda row: row.peak_vram_bytes),
    ("VRAM, NVML", lambda row: row.device_bytes),
)


def draw_footprints(
    measured: Sequence[Any], width: float, wanted: Sequence[Figure] = FIGURES
) -> Plot | None:
    """Bars of the wanted figures per variant (rows of a summary); what nobody has gets no panel."""
    figures = [figure for figure in wanted if any(figure[1](row) is not None for row in measured)]
    rows = [row for row in measured if any(value(row) for _, value in figures)]
    if not rows:
        return None
    narrow = width < 600
    gutter = (
        0.0
        if narrow
        else 24 + max(text_width(row.title, 12.5, bold=row.is_baseline) for row in rows)
    )
    pitch = NARROW_PITCH if narrow else PITCH
    top = 34.0
    panel = (width - gutter) / len(figures)
    body = "".join(
        _row_name(row, gutter, top + index * pitch, narrow) for index, row in enumerate(rows)
    )
    for place, figure in enumerate(figures):
        left = gutter + place * panel
        body += _panel(figure, rows, left, panel, top, pitch, narrow)
    return Plot(body, width, top + pitch * len(rows) + 4, "Size on disk and memory per variant")


def _row_name(row: Row, gutter: float, y: float, narrow: bool) -> str:
    name = "name base" if row.is_baseline else "name"
    if narrow:
        return write(0, y + 12, row.title, name)
    return write(gutter - 16, y + PITCH / 2 + 4, row.title, name, "end")


def _panel(
    figure: Figure,
    rows: Sequence[Row],
    left: float,
    width: float,
    top: float,
    pitch: float,
    narrow: bool,
) -> str:
    """One figure's bars with their values at the end."""
    title, value = figure
    largest = max(value(row) or 0 for row in rows)
    scale = Scale(0, largest or 1, left, left + width - (74 if narrow else 96))
    parts = [write(left, 14, title, "panel-title")]
    for index, row in enumerate(rows):
        found = value(row)
        if found is None:
            continue
        y = top + index * pitch + (18 if narrow else (PITCH - THICK) / 2)
        end = max(scale(found), left + 2)
        shown = text.bytes_with_unit(found)
        bar = element(
            "rect",
            x=number(left),
            y=number(y),
            width=number(end - left),
            height=number(THICK),
            rx="1.5",
            class_="amount",
        )
        label = write(end + 7, y + THICK - 1, shown, "value")
        words = f"{row.title}: {title.lower()} {shown}"
        group = titled(words, [bar, label], colour_of(row.runtime))
        parts.append(element("g", group, data_variant=row.name))
    return "".join(parts)
