"""Figures against length, such as latency with a panel per batch size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report import text
from bench.report.pictures.labels import spread
from bench.report.pictures.svg import (
    Plot,
    Scale,
    colour_of,
    element,
    line,
    number,
    path,
    text_width,
    titled,
    write,
)
from bench.report.summary import Summary
from bench.statistics.latency import cell_median_ms

HEIGHT = 300.0
GAP = 30.0
LABEL = 11.0
LABEL_GAP = 13.5
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One panel: a line of (length, value) per variant, and the values its scale must hold."""

    title: str
    series: dict[str, Points]
    lowest: float
    highest: float
    unit: str  # of the values, as it follows a number


def draw_lengths(summary: Summary, width: float) -> Plot | None:
    """Milliseconds per text against tokens, a line per variant; None without a grid."""
    cells = grid_medians(summary)
    if not cells:
        return None
    times = [time for by in cells.values() for points in by.values() for _, time in points]
    panels = [
        Panel(
            f"Batch {batch}, ms per text",
            {name: by[batch] for name, by in cells.items() if batch in by},
            min(times),
            max(times),
            " ms",
        )
        for batch in sorted({batch for by_batch in cells.values() for batch in by_batch})
    ]
    colours = {row.name: colour_of(row.runtime) for row in summary.rows}
    label = "Latency against length and batch size"
    return draw_panels(panels, colours, summary.titles, width, "tokens", label)


def draw_panels(
    panels: Sequence[Panel],
    colours: Mapping[str, str],
    titles: Mapping[str, str],
    width: float,
    x_title: str,
    label: str,
) -> Plot:
    """Panels beside each other, below each other on a phone, on logarithmic axes.

    The names, as ``titles`` has them, stand at the ends of the last one's lines; ``x_title`` is
    the unit of the lengths.
    """
    names = {name for panel in panels for name in panel.series}
    narrow = width < 800
    gutter = 14 + max(text_width(titles[name], LABEL) for name in names)
    columns = 1 if narrow else len(panels)
    each = (width - GAP * (columns - 1) - (0 if narrow else gutter)) / columns
    height = max(HEIGHT, 70 + LABEL_GAP * len(names))
    parts = []
    for place, panel in enumerate(panels):
        labelled = narrow or place == len(panels) - 1
        inner = each - gutter if narrow else each
        left, top = (0.0, place * height) if narrow else (place * (each + GAP), 0.0)
        y = Scale(panel.lowest / 1.25, panel.highest * 1.25, height - 46, 30, log=True)
        body = _panel(panel, y, inner, labelled, colours, titles, x_title)
        parts.append(element("g", body, transform=f"translate({number(left)},{number(top)})"))
    total = height * len(panels) if narrow else height
    return Plot("".join(parts), width, total, label)


def grid_medians(summary: Summary) -> dict[str, dict[int, Points]]:
    """Variant → batch → (tokens, milliseconds per text), by length."""
    medians: dict[str, dict[int, Points]] = {}
    failed = {row.name for row in summary.failed}
    for variant in summary.results.variants:
        samples: dict[tuple[int, int], list[list[float]]] = defaultdict(list)
        for cell in variant.grid if variant.name not in failed else []:
            samples[cell.batch, cell.length].append(cell.samples_ms)
        for (batch, length), taken in sorted(samples.items()):
            by_batch = medians.setdefault(variant.name, {})
            by_batch.setdefault(batch, []).append((length, cell_median_ms(taken) / batch))
    return medians


def _panel(
    panel: Panel,
    y: Scale,
    width: float,
    labelled: bool,
    colours: Mapping[str, str],
    titles: Mapping[str, str],
    x_title: str,
) -> str:
    """Axes, lines, and where asked the names at their ends."""
    lengths = sorted({length for points in panel.series.values() for length, _ in points})
    left = 12 + max(text_width(text.tick(tick), LABEL) for tick in y.ticks(44))
    last = lengths[-1] if lengths[-1] > lengths[0] else lengths[0] * 2
    x = Scale(lengths[0], last, left, width - 8, log=True)
    parts = [write(0, 14, panel.title, "panel-title")]
    for tick in y.ticks(44):
        parts.append(line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(write(x.start - 7, y(tick) + 4, text.tick(tick), "tick", "end"))
    parts += [write(x(one), y.start + 18, f"{one:g}", "tick", "middle") for one in lengths]
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(write(x.end, y.start + 36, x_title, "axis-title", "end"))
    for name, points in panel.series.items():
        drawn = [(x(length), y(time)) for length, time in points]
        dots = [
            element("circle", cx=number(px), cy=number(py), r="2.6", class_="dot")
            for px, py in drawn
        ]
        told = ", ".join(
            f"{n:g} {x_title} {text.significant(value)}{panel.unit}" for n, value in points
        )
        group = titled(f"{titles[name]}: {told}", [path(drawn, "curve"), *dots], colours[name])
        parts.append(element("g", group, data_variant=name))
    if labelled:
        parts += _end_names(panel.series, x, y, colours, titles)
    return "".join(parts)


def _end_names(
    series: dict[str, Points],
    x: Scale,
    y: Scale,
    colours: Mapping[str, str],
    titles: Mapping[str, str],
) -> list[str]:
    """Each variant's name beside the end of its line, apart from the others'."""
    names = list(series)
    ends = [y(series[name][-1][1]) for name in names]
    places = spread(ends, LABEL_GAP, y.end - 8, y.start)
    drawn = []
    for name, place in zip(names, places, strict=True):
        label = write(x.end + 10, place + 4, titles[name], "length-name")
        drawn.append(element("g", label, class_=colours[name], data_variant=name))
    return drawn
