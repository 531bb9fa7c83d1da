"""report.html in headless Chromium: no console error, nothing cut off, pictures there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, find_chromium, open_browser
from results_factory import make_results

from bench.report.writing import write_report

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="chromium is not installed: apt-get install chromium"
)

KINDS = {
    "full": {"rows": 2_000, "noise_pair": True},
    "everything": {"rows": 2_000, "noise_pair": True, "scenarios": True},
    "speed": {"accuracy": False, "gpu": True},
    "one": {"variants": 1, "failed": False},
}
# elements that stick out of the window and are not inside something that scrolls
STICKING_OUT = """[...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  if (!box.width || !box.height || element.closest('.scroll')) return false;
  return box.right > innerWidth + 1 || box.left < -1;
}).map(element => element.outerHTML.slice(0, 120))"""
# text in pictures that leaves its picture
CUT_TEXT = """[...document.querySelectorAll('svg.plot')].flatMap(plot => {
  const frame = plot.getBoundingClientRect();
  return [...plot.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.width && (box.right > frame.right + 1 || box.left < frame.left - 1
      || box.bottom > frame.bottom + 1 || box.top < frame.top - 1);
  }).map(text => text.textContent);
})"""
# names of the first picture that cover each other
COVERED_NAMES = """(() => {
  const boxes = [...document.querySelectorAll('#trade-off .label .name')]
    .map(name => [name.textContent, name.getBoundingClientRect()]).filter(([, box]) => box.width);
  return boxes.flatMap(([name, a], index) => boxes.slice(index + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
    .map(([other]) => `${name} / ${other}`));
})()"""
# px by which the main table is wider than the room it has
TABLE_OVERHANG = """(() => {
  const table = document.querySelector('table.results'), room = table.parentElement;
  const style = getComputedStyle(room);
  const inner = room.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return Math.round(table.getBoundingClientRect().width - inner);
})()"""
PLOTS_SEEN = {"full": 4, "everything": 5, "speed": 4, "one": 3}
SEEN_PLOTS = """[...document.querySelectorAll('svg.plot')]
  .filter(plot => plot.getBoundingClientRect().width > 100).length"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind, options in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        content = json.dumps(make_results(**options), ensure_ascii=False)
        (folder / "results.json").write_text(content, "utf-8")
        where = "accuracy_drop<=0.2pt, p95_ms<=20, size_mb<=150" if kind == "everything" else None
        made[kind] = write_report(folder, where=where)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (820, False), (390, False)]
)
def test_nothing_is_cut_off(
    page: Page, reports: dict[str, Path], kind: str, width: int, dark: bool
) -> None:
    page.problems.clear()
    page.open(reports[kind], width, dark=dark)
    assert page.problems == []
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask(STICKING_OUT) == []
    assert page.ask(CUT_TEXT) == []
    assert page.ask(COVERED_NAMES) == []
    assert page.ask(SEEN_PLOTS) == PLOTS_SEEN[kind]
    if width == 1280 and kind == "full":
        assert page.ask(TABLE_OVERHANG) <= 0


def test_dark_is_dark_and_readable(page: Page, reports: dict[str, Path]) -> None:
    colours = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    page.open(reports["full"], 1280, dark=True)
    ground, ink = page.ask(colours)
    page.open(reports["full"], 1280)
    assert [ground, ink] != page.ask(colours)
    assert sum(map(int, ground[4:-1].split(","))) < 120
    assert sum(map(int, ink[4:-1].split(","))) > 600


def test_a_heading_sorts_and_the_baseline_stays_on_top(
    page: Page, reports: dict[str, Path]
) -> None:
    page.open(reports["full"], 1280)
    names = "[...document.querySelectorAll('.results tbody tr')].map(row => row.dataset.variant)"
    click = "document.querySelector('.results th[title^=\"Median over all\"] button').click()"
    page.ask(click)
    order = page.ask(names)
    assert order[:2] == ["full-pytorch-fp32", "tfidf-sklearn-fp64"]
    assert order[-2:] == ["qlora-pytorch-nf4", "qlora-onnx-int8"]
    page.ask(click)
    assert page.ask(names)[:2] == ["full-pytorch-fp32", "qlora-pytorch-nf4"]
    assert page.ask("document.querySelectorAll('[aria-sort=descending]').length") == 1


def test_pointing_at_a_row_lights_its_points(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["full"], 1280)
    row = "document.querySelector('.results tr[data-variant=\"lora-onnx-int8\"]')"
    page.ask(f"{row}.dispatchEvent(new MouseEvent('mouseenter'))")
    lit = "[...new Set([...document.querySelectorAll('.plot .lit')].map(e => e.dataset.variant))]"
    assert page.ask(lit) == ["lora-onnx-int8"]
    page.ask(f"{row}.dispatchEvent(new MouseEvent('mouseleave'))")
    assert page.ask("document.body.classList.contains('focus')") is False
