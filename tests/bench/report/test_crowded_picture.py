"""Thirty-six variants in the first picture: every one can be told, no label covers another."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.report.pictures.frame import Axes, Point
from bench.report.pictures.key import number_points
from bench.report.pictures.scatter import draw_points
from bench.report.pictures.svg import text_width
from bench.statistics.decisions import Estimate

AXES = Axes("x", "Accuracy, %", "a picture", True, 0.05, True)
WIDTHS = [1200.0, 720.0, 358.0]


def crowd(count: int) -> list[Point]:
    """Variants in three clouds, as pytorch, ONNX and int8 are, and one far below."""
    generator = np.random.default_rng(count)
    points = []
    for place in range(count):
        time = float([24.0, 12.0, 6.0][place % 3] * np.exp(generator.normal(0, 0.12)))
        share = float(88.5 + generator.normal(0, 0.6)) if place else 60.0
        name = f"nsmc-method-{place}-onnx-fp32"
        told = f"{share:.2f} % · {time:.1f} ms · 112 MB"
        points.append(
            Point(
                name, name, "onnx", Estimate(time, time * 0.98, time * 1.02),
                Estimate(share, share - 1, share + 1), 112_000_000,
                place == 1, place % 9 == 2, told,
            )
        )  # fmt: skip
    return points


def texts_of(svg: str) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text with its box: left, top, right, bottom."""
    found = []
    for one in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        size = {"name": 12.5, "tick": 11, "told": 11, "key-number": 11}.get(
            (one.get("class") or "").split(" ")[0], 11.5
        )
        # the estimate is of the widest face; real ones are narrower, so a tenth is given away
        wide = 0.9 * text_width(one.text, size)
        x, y = float(one.get("x")), float(one.get("y"))
        x -= {"start": 0, "middle": wide / 2, "end": wide}[one.get("text-anchor") or "start"]
        found.append((one.text, (x, y - 0.75 * size, x + wide, y)))
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [16, 40])
def test_every_variant_of_a_crowd_is_told(count: int, width: float) -> None:
    points = crowd(count)
    svg = draw_points(points, AXES, width).svg
    texts = [text for text, _ in texts_of(svg)]
    for point in points:
        assert sum(text.startswith(point.title) for text in texts) == 1, point.title
    numbers = number_points(points[1:], width < 600)
    for number in numbers.values():
        assert texts.count(str(number)) >= 2  # beside its point and in the list
    assert len(set(numbers.values())) == len(numbers) > 0
    baseline = next(point for point in points if point.is_baseline)
    assert baseline.name not in numbers


@pytest.mark.parametrize("width", WIDTHS)
def test_no_label_covers_another_or_leaves_the_picture(width: float) -> None:
    plot = draw_points(crowd(36), AXES, width)
    texts = texts_of(plot.svg)
    for text, (left, top, right, bottom) in texts:
        assert left > -1 and top > -1, text
        assert right < plot.width + 1 and bottom < plot.height + 1, text
    for (one, a), (other, b) in combinations(texts, 2):
        covered = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert min(covered) < 3, f"{one} / {other}"


def test_few_variants_keep_their_names() -> None:
    svg = draw_points(crowd(10), AXES, 1200.0).svg
    assert "key-number" not in svg
    assert len(re.findall(r'class="name', svg)) == 9  # one is off the scale and told in the corner
