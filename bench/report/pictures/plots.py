"""The pictures of a report by name, inline or as files of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

from bench.report.pictures.bars import draw_footprints
from bench.report.pictures.curves import draw_curves
from bench.report.pictures.distributions import draw_latencies
from bench.report.pictures.lengths import draw_lengths
from bench.report.pictures.scatter import draw_trade_off
from bench.report.pictures.svg import Plot, number
from bench.report.summary import Summary

FILE_WIDTH = 1000.0
PADDING = 20.0

PLOTS: dict[str, Callable[[Summary, float], Plot | None]] = {
    "trade_off": draw_trade_off,
    "latencies": draw_latencies,
    "lengths": draw_lengths,
    "footprints": lambda summary, width: draw_footprints(summary.measured, width),
    "curves": lambda summary, width: draw_curves(summary.results.curves, width),
}


def draw(name: str, summary: Summary, width: float) -> Plot | None:
    """One picture, ``width`` px wide; None when there is nothing to show in it."""
    return PLOTS[name](summary, width)


def standalone_svg(plot: Plot) -> str:
    """The picture as a file: light theme, on paper, colours written out.

    GitHub shows SVG as an image; not every viewer resolves CSS variables, so they are replaced.
    """
    theme, rules = (
        files("bench.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("theme.css", "plots.css")
    )
    values = dict(re.findall(r"(--[\w-]+): ([^;]+);", theme))
    colours = dict(re.findall(r"\.(k-\w+) \{ --k: var\((--\w+)\); \}", rules))
    rules = re.sub(r"\.k-\w+ \{[^}]*\}\n", "", rules)
    style = "".join(_resolve(rule, values, colours) for rule in rules.splitlines(keepends=True))
    width, height = plot.width + 2 * PADDING, plot.height + 2 * PADDING
    ground = f'<rect width="100%" height="100%" fill="{values["--paper"]}"/>'
    body = f'<g transform="translate({number(PADDING)},{number(PADDING)})">{plot.body}</g>'
    whole = Plot(f"<style>{style}</style>{ground}{body}", width, height, plot.label)
    return whole.svg + "\n"


def _resolve(rule: str, values: dict[str, str], colours: dict[str, str]) -> str:
    """A CSS rule without variables; one that uses the colour of a thing, once per colour."""
    rule = re.sub(r"var\((--(?!k\b)[\w-]+)\)", lambda found: values[found[1]], rule)
    if "var(--k)" not in rule:
        return rule
    selector = rule.removeprefix(".plot ")
    return "".join(
        f".plot {within} {selector}".replace("var(--k)", values[variable])
        if not selector.startswith(".spot")
        else f".plot .{name}{selector}".replace("var(--k)", values[variable])
        for name, variable in colours.items()
        for within in [f".{name}"]
    )
