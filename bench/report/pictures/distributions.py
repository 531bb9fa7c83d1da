"""Latency of every variant as its empirical distribution, one strip each, on one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.report import text
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
from bench.report.rows import Row
from bench.report.summary import Summary

STEPS = 160  # points of a drawn distribution
STRIP = 36.0
GAP = 14.0


def draw_latencies(summary: Summary, width: float) -> Plot | None:
    """One strip per variant: the share of reviews answered within a time, 0 to 100 %.

    The thin grey line is the baseline's. A dot marks p50, a tick p99.
    """
    rows = [row for row in summary.measured if row.latency_samples is not None]
    if not rows:
        return None
    narrow = width < 600
    above = 20.0 if narrow else 0.0
    pitch = STRIP + GAP + above
    gutter = (
        8 if narrow else 24 + max(text_width(row.title, 12.5, bold=row.is_baseline) for row in rows)
    )
    low, high = _range(rows, narrow)
    x = Scale(low, high, gutter, width - (52 if narrow else 64), log=True)
    top, height = 6.0, 6.0 + pitch * len(rows) + 40
    baseline = summary.baseline
    ghost = _curve(baseline, x) if baseline and baseline.latency_samples is not None else None
    body = _axis(x, top, top + pitch * len(rows))
    for index, row in enumerate(rows):
        foot = top + pitch * index + above + STRIP
        ghosted = None if row is baseline else ghost
        body += _strip(row, x, foot, ghosted, narrow)
    return Plot(body, width, height, "Latency distribution of every variant")


def _range(rows: Sequence[Row], narrow: bool) -> tuple[float, float]:
    """From the fastest half percent to the slowest, with air for the figures written there."""
    pairs = [
        np.percentile(r.latency_samples.values, [0.5, 99.5]) for r in rows if r.latency_samples
    ]
    low, high = min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    air = 1.15 * (high / low) ** (0.09 if narrow else 0.03)
    return float(low / air), float(high) * 1.15


def _curve(row: Row, x: Scale) -> list[tuple[float, float]]:
    """(px, share) along the distribution, clipped to the axis."""
    assert row.latency_samples is not None
    shares = np.linspace(0, 1, STEPS)
    times = np.quantile(row.latency_samples.values, shares)
    clipped = np.clip(times, x.low, x.high)
    return [(x(time), share) for time, share in zip(clipped.tolist(), shares.tolist(), strict=True)]


def _strip(
    row: Row, x: Scale, foot: float, ghost: list[tuple[float, float]] | None, narrow: bool
) -> str:
    assert row.latency is not None
    figures = row.latency

    def at(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(place, foot - share * STRIP) for place, share in curve]

    own = at(_curve(row, x))
    p50, p99 = x(figures.p50_ms), min(x(figures.p99_ms), x.end)
    parts = [line(x.start, foot, x.end, foot, "strip-foot")]
    parts.append(path([*own, (own[-1][0], foot), (own[0][0], foot)], "ecdf-fill", closed=True))
    if ghost:
        parts.append(path(at(ghost), "ghost"))
    parts.append(path(own, "ecdf"))
    parts.append(
        element("circle", cx=number(p50), cy=number(foot - STRIP / 2), r="3.4", class_="median")
    )
    parts.append(line(p99, foot - STRIP * 0.99 - 3, p99, foot - STRIP * 0.99 + 7, "tail"))
    middle = foot - STRIP / 2
    parts.append(write(p50 - 9, middle - 3, text.milliseconds(figures.p50_ms), "value", "end"))
    parts.append(write(p99 + 7, middle + 4, text.milliseconds(figures.p99_ms), "value tail-value"))
    name = "name base" if row.is_baseline else "name"
    if narrow:
        parts.append(write(x.start - 8, foot - STRIP - 8, row.title, name))
    else:
        parts.append(write(x.start - 16, foot - STRIP / 2 + 4, row.title, name, "end"))
    words = (
        f"{row.title}: p50 {text.milliseconds(figures.p50_ms)}, p90 "
        f"{text.milliseconds(figures.p90_ms)}, p95 {text.milliseconds(figures.p95_ms)}, p99 "
        f"{text.milliseconds(figures.p99_ms)} ms, {text.plural(figures.count, 'sample')}"
    )
    group = titled(words, parts, colour_of(row.runtime))
    return element("g", group, data_variant=row.name)


def _axis(x: Scale, top: float, bottom: float) -> str:
    parts = []
    for tick in x.ticks(64):
        parts.append(line(x(tick), top, x(tick), bottom + 4, "grid"))
        parts.append(write(x(tick), bottom + 18, text.tick(tick), "tick", "middle"))
    parts.append(write(x.end, bottom + 36, "ms per review (log)", "axis-title", "end"))
    return element("g", "".join(parts), class_="axes")
