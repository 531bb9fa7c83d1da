"""report.html in headless Chromium: no console error, nothing cut off, pictures there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chromium import Page, find_chromium
from page_checks import SEEN_PLOTS, WIDTHS, faults_of
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
# px by which the main table is wider than the room it has
TABLE_OVERHANG = """(() => {
  const table = document.querySelector('table.results'), room = table.parentElement;
  const style = getComputedStyle(room);
  const inner = room.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return Math.round(table.getBoundingClientRect().width - inner);
})()"""
PLOTS_SEEN = {"full": 4, "everything": 5, "speed": 4, "one": 3}


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
@pytest.mark.parametrize(("width", "dark"), WIDTHS)
def test_nothing_is_cut_off(
    page: Page, reports: dict[str, Path], kind: str, width: int, dark: bool
) -> None:
    page.problems.clear()
    page.open(reports[kind], width, dark=dark)
    assert faults_of(page, width) == []
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
