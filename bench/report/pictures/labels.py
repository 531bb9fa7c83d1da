"""Where the names go in a crowded picture: near their point, over nothing, inside the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SWEEPS = 8
DISTANCES = (5, 14, 26, 42, 62, 86, 114, 146)
DIRECTIONS = 24
LEADER_FROM = 12  # px between a point's edge and its label; beyond, a line joins them


@dataclass(frozen=True)
class Box:
    """A rectangle by its corners, in px; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that lies closest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


@dataclass(frozen=True)
class Anchor:
    """A point with a radius, and the size of the label that belongs to it."""

    x: float
    y: float
    radius: float
    width: float
    height: float


def place_labels(anchors: Sequence[Anchor], frame: Box, obstacles: Sequence[Box] = ()) -> list[Box]:
    """A box for every anchor's label; deterministic.

    Each label tries places around its point in growing distance. The crowded ones choose
    first, then all choose again, a few times, given where the others stand.
    """
    bubbles = [Box(a.x - a.radius, a.y - a.radius, a.x + a.radius, a.y + a.radius) for a in anchors]
    fixed = [*bubbles, *obstacles]
    choices = [
        [(box, _fixed_cost(anchor, box, fixed)) for box in _candidates(anchor, frame)]
        for anchor in anchors
    ]
    order = sorted(range(len(anchors)), key=lambda index: _distance_to_next(anchors, index))
    placed: dict[int, Box] = {}
    for _ in range(SWEEPS):
        before = dict(placed)
        for index in order:
            others = [
                (box, _leader(anchors[other], box))
                for other, box in placed.items()
                if other != index
            ]
            placed[index] = _best(anchors[index], choices[index], others)
        if placed == before:
            break
    return [placed[index] for index in range(len(anchors))]


def leader_line(anchor: Anchor, box: Box) -> tuple[float, float, float, float] | None:
    """The line from a point's edge to its label, or None where they stand side by side."""
    x, y = box.nearest(anchor.x, anchor.y)
    distance = math.hypot(x - anchor.x, y - anchor.y)
    if distance - anchor.radius < LEADER_FROM:
        return None
    share = (anchor.radius + 2) / distance
    near = anchor.x + (x - anchor.x) * share, anchor.y + (y - anchor.y) * share
    return (*near, anchor.x + (x - anchor.x) * 0.97, anchor.y + (y - anchor.y) * 0.97)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near ``wanted`` at least ``gap`` apart between ``low`` and ``high``, in order."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    result = [0.0] * len(wanted)
    floor = low
    for index in order:
        result[index] = floor = max(wanted[index], floor)
        floor += gap
    ceiling = high
    for index in reversed(order):
        result[index] = min(result[index], ceiling)
        ceiling = result[index] - gap
    return result


def _candidates(anchor: Anchor, frame: Box) -> list[Box]:
    """Boxes around the point, right and left first; those that leave the frame are moved in."""
    boxes = []
    for distance in DISTANCES:
        for turn in range(DIRECTIONS):
            angle = 2 * math.pi * turn / DIRECTIONS
            reach = anchor.radius + distance
            x, y = anchor.x + reach * math.cos(angle), anchor.y + reach * math.sin(angle)
            left = x - anchor.width * (1 - math.cos(angle)) / 2
            top = y - anchor.height * (1 - math.sin(angle)) / 2
            left = min(max(left, frame.left), frame.right - anchor.width)
            top = min(max(top, frame.top), frame.bottom - anchor.height)
            boxes.append(Box(left, top, left + anchor.width, top + anchor.height))
    return boxes


def _distance_to_next(anchors: Sequence[Anchor], index: int) -> float:
    own = anchors[index]
    return min(
        (
            math.hypot(own.x - other.x, own.y - other.y)
            for place, other in enumerate(anchors)
            if place != index
        ),
        default=0.0,
    )


Line = tuple[float, float, float, float]


def _leader(anchor: Anchor, box: Box) -> Line:
    return (anchor.x, anchor.y, *box.nearest(anchor.x, anchor.y))


def _fixed_cost(anchor: Anchor, box: Box, fixed: Sequence[Box]) -> float:
    """How bad a place is by itself: what it covers, how far it is, and that it lies left."""
    x, y = box.nearest(anchor.x, anchor.y)
    distance = max(0.0, math.hypot(anchor.x - x, anchor.y - y) - anchor.radius)
    covered = sum(box.overlap(other) for other in fixed)
    return 20 * covered + distance**1.5 + (3 if x < anchor.x else 0)


def _best(
    anchor: Anchor, choices: Sequence[tuple[Box, float]], others: Sequence[tuple[Box, Line]]
) -> Box:
    """The cheapest place given the other labels and their leader lines; the first of equals."""
    best, least = choices[0][0], math.inf
    for box, cost in choices:
        if cost >= least:
            continue
        own = _leader(anchor, box)
        for other, line in others:
            cost += 20 * box.overlap(other)
            cost += 400 * (_cross(own, line) + _cuts(line, box) + _cuts(own, other))
        if cost < least:
            best, least = box, cost
    return best


def _cross(one: Line, other: Line) -> bool:
    """Whether two segments cross."""

    def side(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    p, q, r, s = one[:2], one[2:], other[:2], other[2:]
    return side(p, q, r) * side(p, q, s) < 0 and side(r, s, p) * side(r, s, q) < 0


def _cuts(segment: Line, box: Box) -> bool:
    """Whether a segment runs through a box: through one of its diagonals."""
    return _cross(segment, (box.left, box.top, box.right, box.bottom)) or _cross(
        segment, (box.left, box.bottom, box.right, box.top)
    )
