"""SVG by hand: elements, scales, ticks and how wide a text will be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

PALETTE = ("blue", "orange", "green", "red", "sky", "purple", "grey")
RUNTIME_COLOURS = {
    "pytorch": "blue",
    "merged": "sky",
    "pipeline": "purple",
    "onnx": "red",
    "openvino": "green",
    "optimum": "orange",
    "sklearn": "grey",
}


@dataclass(frozen=True)
class Plot:
    """A picture: its markup and size in px; ``label`` is what a screen reader says."""

    body: str
    width: float
    height: float
    label: str

    @property
    def svg(self) -> str:
        """The whole element, styled by the page it stands in."""
        size = f'viewBox="0 0 {number(self.width)} {number(self.height)}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" {size} '
            f'width="{number(self.width)}" height="{number(self.height)}" '
            f'aria-label="{escape(self.label)}">{self.body}</svg>'
        )


@dataclass(frozen=True)
class Scale:
    """Maps ``low`` … ``high`` of the data to ``start`` … ``end`` px, linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The px of a value; values outside stay outside."""
        low, high, value = (
            (math.log(self.low), math.log(self.high), math.log(value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, spacing: float = 90) -> list[float]:
        """Round values, about ``spacing`` px apart, inside the scale."""
        wanted = max(2, abs(self.end - self.start) / spacing)
        return _log_ticks(self, wanted) if self.log else _linear_ticks(self, wanted)


def colour_of(runtime: str) -> str:
    """The class of a runtime's colour; unknown runtimes share one."""
    return f"k-{RUNTIME_COLOURS.get(runtime, 'green')}"


def palette_class(index: int) -> str:
    """The class of the n-th colour, for things that have no runtime."""
    return f"k-{PALETTE[index % len(PALETTE)]}"


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def element(name: str, content: str = "", **attributes: str | float) -> str:
    """One element; attributes are escaped, ``content`` is markup already. class_ is class."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{pairs}>{content}</{name}>" if content else f"<{name}{pairs}/>"


def write(x: float, y: float, words: str, class_: str = "", anchor: str = "start") -> str:
    """Text; ``words`` is escaped."""
    return element(
        "text", escape(words), x=number(x), y=number(y), class_=class_, text_anchor=anchor
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return element(
        "line", x1=number(x1), y1=number(y1), x2=number(x2), y2=number(y2), class_=class_
    )


def path(points: Sequence[tuple[float, float]], class_: str, closed: bool = False) -> str:
    """A polyline through ``points``."""
    steps = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=f"M{steps}{'Z' if closed else ''}", class_=class_)


def titled(words: str, content: Iterable[str], class_: str = "") -> str:
    """A group that shows ``words`` on hover."""
    return element("g", element("title", escape(words)) + "".join(content), class_=class_)


def text_width(words: str, size: float, bold: bool = False) -> float:
    """How wide ``words`` are at ``size`` px in DejaVu Sans, the widest of the usual faces."""
    return size * sum(map(_advance, words)) * (1.12 if bold else 1.0)


def _advance(letter: str) -> float:
    """Width of a letter in em; Hangul, kana and ideographs fill the square."""
    if ord(letter) > 0x1100 and not 0x2000 <= ord(letter) < 0x2E80:
        return 1.0
    for letters, width in (("ijlI", 0.29), (".,:;|!'· ", 0.32), ("ftr-()[]", 0.4), ("mwMW%", 0.92)):
        if letter in letters:
            return width
    return 0.72 if letter.isupper() else 0.63


def _attribute(value: str | float) -> str:
    return escape(value if isinstance(value, str) else number(value))


def _linear_ticks(scale: Scale, wanted: float) -> list[float]:
    step = _round_step((scale.high - scale.low) / wanted)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _round_step(raw: float) -> float:
    """The next larger 1, 2 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def _log_ticks(scale: Scale, wanted: float) -> list[float]:
    """1-2-5 decades, 1-3, decades, or every n-th by the room; linear for a narrow span."""
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    every = max(1, math.ceil((last - first) / wanted))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [
            tick
            for decade in range(first, last + 1, every if factors == (1,) else 1)
            for factor in factors
            if scale.low <= (tick := factor * 10.0**decade) <= scale.high
        ]
        if len(ticks) <= wanted * 1.4:
            break
    return ticks if len(ticks) >= 3 else _linear_ticks(scale, wanted)
