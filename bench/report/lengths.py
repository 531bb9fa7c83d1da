"""Latency against length, one panel per batch size: what a model costs beyond typical reviews."""

from __future__ import annotations

from collections import defaultdict

from bench.grid import cell_median_ms
from bench.report import text
from bench.report.labels import spread
from bench.report.summary import Summary
from bench.report.svg import (
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

HEIGHT = 300.0
GAP = 30.0
LABEL = 11.0
LABEL_GAP = 13.5
Points = list[tuple[int, float]]


def draw_lengths(summary: Summary, width: float) -> Plot | None:
    """Milliseconds per text against tokens, a line per variant; None without a grid."""
    cells = grid_medians(summary)
    if not cells:
        return None
    batches = sorted({batch for by_batch in cells.values() for batch in by_batch})
    narrow = width < 800
    gutter = 14 + max(text_width(name, LABEL) for name in cells)
    columns = 1 if narrow else len(batches)
    each = (width - GAP * (columns - 1) - (0 if narrow else gutter)) / columns
    height = max(HEIGHT, 70 + LABEL_GAP * len(cells))
    y = _y_scale(cells, height)
    parts = []
    for place, batch in enumerate(batches):
        series = {name: by[batch] for name, by in cells.items() if batch in by}
        labelled = narrow or place == len(batches) - 1
        inner = each - gutter if narrow else each
        left, top = (0.0, place * height) if narrow else (place * (each + GAP), 0.0)
        body = _panel(batch, series, y, inner, labelled, summary)
        parts.append(element("g", body, transform=f"translate({number(left)},{number(top)})"))
    total = height * len(batches) if narrow else height
    return Plot("".join(parts), width, total, "Latency against length and batch size")


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


def _y_scale(cells: dict[str, dict[int, Points]], height: float) -> Scale:
    times = [time for by in cells.values() for points in by.values() for _, time in points]
    return Scale(min(times) / 1.25, max(times) * 1.25, height - 46, 30, log=True)


def _panel(
    batch: int,
    series: dict[str, Points],
    y: Scale,
    width: float,
    labelled: bool,
    summary: Summary,
) -> str:
    """One batch size: axes, lines, and where asked the names at their ends."""
    colours = {row.name: colour_of(row.runtime) for row in summary.rows}
    lengths = sorted({length for points in series.values() for length, _ in points})
    left = 12 + max(text_width(text.tick(tick), LABEL) for tick in y.ticks(44))
    last = lengths[-1] if lengths[-1] > lengths[0] else lengths[0] * 2
    x = Scale(lengths[0], last, left, width - 8, log=True)
    parts = [write(0, 14, f"Batch {batch}, ms per text", "panel-title")]
    for tick in y.ticks(44):
        parts.append(line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(write(x.start - 7, y(tick) + 4, text.tick(tick), "tick", "end"))
    parts += [write(x(one), y.start + 18, f"{one}", "tick", "middle") for one in lengths]
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(write(x.end, y.start + 36, "tokens", "axis-title", "end"))
    for name, points in series.items():
        drawn = [(x(length), y(time)) for length, time in points]
        dots = [
            element("circle", cx=number(px), cy=number(py), r="2.6", class_="dot")
            for px, py in drawn
        ]
        told = ", ".join(f"{n} tokens {text.milliseconds(time)} ms" for n, time in points)
        group = titled(f"{name}: {told}", [path(drawn, "curve"), *dots], colours[name])
        parts.append(element("g", group, data_variant=name))
    if labelled:
        parts += _end_names(series, x, y, colours)
    return "".join(parts)


def _end_names(series: dict[str, Points], x: Scale, y: Scale, colours: dict[str, str]) -> list[str]:
    """Each variant's name beside the end of its line, apart from the others'."""
    names = list(series)
    ends = [y(series[name][-1][1]) for name in names]
    places = spread(ends, LABEL_GAP, y.end - 8, y.start)
    drawn = []
    for name, place in zip(names, places, strict=True):
        label = write(x.end + 10, place + 4, name, "length-name")
        drawn.append(element("g", label, class_=colours[name], data_variant=name))
    return drawn
