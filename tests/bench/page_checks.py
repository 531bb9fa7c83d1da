"""What a report's page is asked in the browser: nothing cut off, nothing covered."""

from __future__ import annotations

WIDTHS = [(1280, False), (1280, True), (820, False), (390, False)]  # px, and whether it is dark
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
SEEN_PLOTS = """[...document.querySelectorAll('svg.plot')]
  .filter(plot => plot.getBoundingClientRect().width > 100).length"""


def faults_of(page, width: int) -> list[object]:
    """What sticks out, is cut or covered, or the console complained of; empty for a good page."""
    wide = page.ask("document.documentElement.scrollWidth")
    return [
        *page.problems,
        *([f"{wide} px wide"] if wide > width else []),
        *page.ask(STICKING_OUT),
        *page.ask(CUT_TEXT),
        *page.ask(COVERED_NAMES),
    ]
